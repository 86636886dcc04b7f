"""Nothing that is chosen by, or tested with, is trained on."""

from __future__ import annotations

import csv

import numpy as np
import soundfile

from research.recipe_study.pool import BABBLE_VOICES, SPLIT_OF_RANK, prepare, speech_parts
from robustdistiller.eval.tasks.csv_task import read_items
from robustdistiller.mini.pack import rank_of, read_table


def names(path) -> set[str]:
    return {row["name"] for row in read_table(path)}


def test_speech_is_divided_by_utterance_and_voice(pool):
    parts = speech_parts(read_table(pool / "speech.tsv"))
    assert len(parts["speech"]) > 100
    assert not any(rank_of(row["utterance_id"]) in SPLIT_OF_RANK for row in parts["speech"])
    assert not any(row["voice"] in BABBLE_VOICES for row in parts["speech"])
    for split in ("dev", "test"):
        babble = parts[f"babble-{split}"]
        assert babble and all(row["voice"] in BABBLE_VOICES for row in babble)
        assert all(SPLIT_OF_RANK[rank_of(row["utterance_id"])] == split for row in babble)


def test_noise_and_rooms_of_the_splits_are_disjoint(materials):
    noise = [names(materials.noise(split)[0]) for split in ("train", "dev", "test")]
    rooms = [
        {path.read_bytes() for path in materials.rir(split)[0].glob("*.flac")} for split in ("train", "dev", "test")
    ]
    for one, two, three in (noise, rooms):
        assert one and two and three
        assert not (one & two or one & three or two & three)


def test_manifest_pieces_are_the_pool_s_samples(materials, pool):
    row = read_table(materials.speech[0])[-1]
    name, _, start = row["name"].partition("/")[2].partition("@")
    original = next(one for one in read_table(pool / "speech.tsv") if one["utterance_id"] == name)
    assert start == original["offset_samples"]
    length = int(original["num_samples"])
    expected = soundfile.read(pool / "speech" / original["file"], dtype="int16")[0][int(start) : int(start) + length]
    offset = int(row["offset_samples"])
    found = soundfile.read(materials.speech[0].parent / row["file"], dtype="int16")[0][offset : offset + length]
    assert np.array_equal(found, expected)


def test_tasks_of_pool_and_shipped_corpus_stand_side_by_side(materials):
    assert set(materials.tasks) == {"words", "pool_words", "pool_voices", "initials", "finals", "tones", "voices"}
    items, drawn = read_items(materials.tasks["pool_voices"])
    assert not drawn and {item.label for item in items} == {"v0", "v1"}


def test_the_probe_never_hears_test_items(materials):
    tests = {item.path.name for item in read_items(materials.tasks["pool_words"])[0] if item.split == "test"}
    with materials.probe.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tests and {row["split"] for row in rows} == {"train", "test"}
    assert not any(row["path"].rpartition("/")[2] in tests for row in rows)
    assert all((materials.probe.parent / row["path"]).is_file() for row in rows)


def test_a_pool_is_prepared_once_and_again_when_it_changes(materials, pool, tmp_path):
    written = materials.speech[0].stat().st_mtime_ns
    assert prepare(pool, materials.work).speech[0].stat().st_mtime_ns == written
    changed = tmp_path / "pool"
    changed.mkdir()
    for path in pool.iterdir():
        (changed / path.name).symlink_to(path)
    (changed / "noise.tsv").unlink()
    lines = (pool / "noise.tsv").read_text().splitlines()
    (changed / "noise.tsv").write_text("\n".join(lines[:-1]) + "\n")
    work = tmp_path / "work"
    work.mkdir()
    (work / "corpus").symlink_to(materials.corpus.root)
    before = names(prepare(pool, work).noise("test")[0])
    assert len(names(prepare(changed, work).noise("test")[0])) == len(before) - 1
