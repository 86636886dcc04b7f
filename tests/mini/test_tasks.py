"""The tables of the shipped recordings are tasks: every label is learnt, every recording is there."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.tasks import get
from robustdistiller.eval.tasks.csv_task import read_items
from robustdistiller.mini.tasks import Clip, write_tasks

LABELS = {"initials": 22, "finals": 36, "tones": 4, "voices": 4}


@pytest.mark.parametrize("name", LABELS)
def test_a_table_is_a_task_by_its_path(corpus, name):
    task = get(str(corpus.tasks[name]))  # checks that the head can learn every label of dev and test
    assert (task.code, task.item_counts["test"]) == (name, corpus.counts()[name]["test"])
    items, drawn = read_items(corpus.tasks[name])
    assert not drawn
    assert len({item.label for item in items}) == LABELS[name]


def test_voices_are_told_apart_by_a_second_of_them(corpus):
    items, _ = read_items(corpus.tasks["voices"])
    lengths = [soundfile.info(item.path).frames for item in items[::50]]
    assert max(lengths) == 16_000
    speakers = {item.label: item.speaker for item in items}
    assert all(label == speaker for label, speaker in speakers.items())


def test_the_slots_share_their_recordings(corpus):
    paths = [{item.path for item in read_items(corpus.tasks[name])[0]} for name in ("initials", "finals", "tones")]
    assert paths[0] == paths[1] == paths[2]


def test_clips_of_one_name_get_different_files(tmp_path):
    samples = np.arange(800, dtype=np.int16)
    clips = [Clip("a/b", "me", "train", {"words": word}, samples * place) for place, word in enumerate(("yes", "no"))]
    assert write_tasks(tmp_path, "audio", clips) == {"words": {"train": 2}}
    assert (tmp_path / "words.csv").read_text().splitlines()[1:] == [
        "audio/a/b.flac,yes,me,train",
        "audio/a/b-2.flac,no,me,train",
    ]
    assert np.array_equal(soundfile.read(tmp_path / "audio/a/b-2.flac", dtype="int16")[0], samples)


def test_the_command_names_the_tasks(corpus):
    done = CliRunner().invoke(app, ["prepare", "mini", str(corpus.root)])
    assert done.exit_code == 0, done.output
    assert all(f"  - {path}\n" in done.output for path in corpus.tasks.values())
