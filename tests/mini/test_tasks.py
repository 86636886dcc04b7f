"""The tables of the shipped recordings are tasks: every label is learnt, every recording is there."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.tasks import get
from robustdistiller.eval.tasks.csv_task import read_items
from robustdistiller.mini import data_dir
from robustdistiller.mini.pack import read_pack, read_table
from robustdistiller.mini.tasks import Clip, word_clips, write_tasks

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


def test_words_lie_in_their_utterances():
    utterances = {utterance.utterance_id: utterance for utterance in read_pack(data_dir())}
    rows = read_table(data_dir() / "words.tsv")
    assert len({(row["utterance_id"], row["offset_samples"]) for row in rows}) == len(rows)
    for row in rows:
        utterance, start, length = utterances[row["utterance_id"]], int(row["offset_samples"]), int(row["num_samples"])
        assert 0 <= start < start + length <= utterance.num_samples, row
        assert 0.12 * 16_000 <= length <= 1.4 * 16_000, row
        assert row["word"] in utterance.text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'") or any(
            mark.isdigit() for mark in utterance.text
        ), row
        assert row["label"].startswith(f"{utterance.language}_"), "words of two languages are not one"


def test_words_are_many_and_none_is_common(corpus):
    items, _ = read_items(corpus.tasks["words"])
    assert corpus.counts()["words"] == Counter(item.split for item in items)
    train = Counter(item.label for item in items if item.split == "train")
    assert len(train) == len({item.label for item in items}) >= 40
    assert sum(train.values()) >= 2000
    for split in ("train", "test"):
        counts = Counter(item.label for item in items if item.split == split)
        assert sum(counts.values()) >= 400
        assert max(counts.values()) <= 0.07 * sum(counts.values())
    assert len({label.split("_")[0] for label in train}) == 4


def test_every_word_is_audible(corpus):
    for item in read_items(corpus.tasks["words"])[0]:
        samples = soundfile.read(item.path, dtype="int16")[0].astype(float)
        assert np.sqrt(np.mean(samples**2)) > 100, item.name


def test_no_text_with_words_is_in_two_splits():
    utterances = {utterance.utterance_id: utterance for utterance in read_pack(data_dir())}
    splits = {}
    for identifier in {row["utterance_id"] for row in read_table(data_dir() / "words.tsv")}:
        utterance = utterances[identifier]
        text = (utterance.language, "".join(mark for mark in utterance.text.lower() if mark.isalnum()))
        assert splits.setdefault(text, utterance.split) == utterance.split, utterance


def test_a_word_is_the_named_samples(tmp_path):
    utterance = next(one for one in read_pack(data_dir()) if one.utterance_id == "en_activated")
    samples = np.arange(utterance.num_samples, dtype=np.int16)
    soundfile.write(tmp_path / "en_activated.flac", samples, 16_000)
    row = {"utterance_id": "en_activated", "label": "en_activated", "offset_samples": "300", "num_samples": "500"}
    (clip,) = word_clips({utterance: tmp_path / "en_activated.flac"}, [row])
    assert np.array_equal(clip.samples, np.arange(300, 800))
    assert (clip.split, clip.speaker, clip.labels) == ("train", utterance.voice, {"words": "en_activated"})


def test_the_command_names_the_tasks(corpus):
    done = CliRunner().invoke(app, ["prepare", "mini", str(corpus.root)])
    assert done.exit_code == 0, done.output
    assert all(f"  - {path}\n" in done.output for path in corpus.tasks.values())
