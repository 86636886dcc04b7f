"""The built corpus: what is held out, counts, noise and rooms, rebuilding."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
from collections import Counter

import pytest
import soundfile

from robustdistiller.eval.tasks.csv_task import read_items
from robustdistiller.mini import build, data_dir
from robustdistiller.mini import corpus as corpus_module
from robustdistiller.mini.corpus import STAMP, file_stem
from robustdistiller.mini.pack import read_pack


def audio_digest(path) -> str:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 16000
    assert samples.ndim == 1
    return hashlib.sha256(samples.tobytes()).hexdigest()


NOT_SPEECH = ("ㄏㄡ2_5", "ㄏㄡ3_5", "ㄏㄡ4_5", "confbridge-join", "confbridge-leave")


def test_pool_is_exactly_the_training_utterances(corpus):
    expected = {
        f"{utterance.voice}/{file_stem(utterance)}.flac": utterance.num_samples
        for utterance in read_pack(data_dir())
        if utterance.split == "train" and not utterance.utterance_id.endswith(NOT_SPEECH)
    }
    found = {
        path.relative_to(corpus.pool).as_posix(): soundfile.info(path).frames for path in corpus.pool.rglob("*.flac")
    }
    assert found == expected
    assert corpus.counts()["pool"] == {"train": len(found)}


def test_no_dev_or_test_audio_is_in_the_pool(corpus):
    """Compared by content, so that another name cannot hide a leak."""
    pool = {audio_digest(path) for path in corpus.pool.rglob("*.flac")}
    held_out = []
    for name in ("valid", "test"):
        with (corpus.syllables / "data" / f"{name}_data.csv").open(encoding="utf-8") as stream:
            held_out += [corpus.syllables / row["path"] for row in csv.DictReader(stream)]
    for split in ("dev-clean", "test-clean"):
        held_out += (corpus.prompts / split).rglob("*.flac")
    items, _ = read_items(corpus.tasks["initials"])
    held_out += [item.path for item in items if item.split != "train"]
    assert len(held_out) == 2 * (120 + 346) + 56 + 110
    assert not [path for path in held_out if audio_digest(path) in pool]
    in_train = [item.path for item in items if item.split == "train"]
    assert all(audio_digest(path) in pool for path in in_train[:50]), "the comparison finds what is there"


def test_counts(corpus):
    counts = corpus.counts()
    assert counts["syllables"] == {"train": 678, "dev": 120, "test": 346}
    assert counts["prompts"] == {"train": 368, "dev": 56, "test": 110}
    for slot in ("initials", "finals", "tones"):
        assert counts[slot] == counts["syllables"]
    assert counts["voices"] == {"train": 531, "dev": 334, "test": 796}
    assert counts["noise"] == {"train noise": 71, "train music": 94, "test noise": 29, "test music": 5}
    assert counts["rir"] == {"train": 66, "test": 20}


def test_noise_and_rooms_of_training_and_test_are_disjoint(corpus):
    for one, other in ((corpus.noise_train, corpus.noise_test), (corpus.rir_train, corpus.rir_test)):
        first = {audio_digest(path) for path in one.rglob("*.flac")}
        second = {audio_digest(path) for path in other.rglob("*.flac")}
        assert first
        assert second
        assert not first & second


def test_room_responses_keep_their_measurements(corpus):
    for folder in (corpus.rir_train, corpus.rir_test):
        with (folder / "rir.tsv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        assert {row["file"] for row in rows} == {path.name for path in folder.glob("*.flac")}
        assert all(0.1 < float(row["rt60_measured_s"]) < 1.5 for row in rows)
        assert all(soundfile.info(folder / row["file"]).frames == int(row["num_samples"]) for row in rows)


def test_licences_travel_with_the_corpus(corpus):
    assert (corpus.root / "LICENSES.md").read_bytes() == (data_dir() / "LICENSES.md").read_bytes()


def test_a_second_build_changes_nothing(corpus):
    before = {path: path.stat().st_mtime_ns for path in corpus.root.rglob("*")}
    assert build(corpus.root) == corpus
    assert {path: path.stat().st_mtime_ns for path in corpus.root.rglob("*")} == before


def quick_write(corpus, progress):
    (corpus.pool / "voice").mkdir(parents=True)
    return {"pool": {"train": 0}}


def test_an_outdated_corpus_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_module, "_write", quick_write)
    built = build(tmp_path / "corpus")
    (built.root / "old").touch()
    assert (build(tmp_path / "corpus").root / "old").exists(), "same version: kept"
    monkeypatch.setattr(corpus_module, "LAYOUT_VERSION", corpus_module.LAYOUT_VERSION + 1)
    assert not (build(tmp_path / "corpus").root / "old").exists()
    monkeypatch.setattr(corpus_module, "data_digest", lambda: "other data")
    assert json.loads((build(tmp_path / "corpus").root / STAMP).read_text())["data_digest"] == "other data"


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(corpus, progress):
        quick_write(corpus, progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus_module, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is no mini corpus"):
        build(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("text", ['{"name": "interviews"}', "[]", "not json", ""])
def test_a_folder_with_a_corpus_json_of_somebody_elses_is_left_alone(text, tmp_path):
    (tmp_path / STAMP).write_text(text)
    (tmp_path / "interview.wav").touch()
    with pytest.raises(FileExistsError, match="is no mini corpus"):
        build(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {STAMP, "interview.wav"}


def test_a_build_that_is_terminated_leaves_nothing(tmp_path, monkeypatch):
    def die(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        monkeypatch.setattr(corpus_module, "_write", die)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "mini")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list(tmp_path.iterdir())


def test_file_names_are_ascii_and_unique():
    names = Counter((utterance.voice, file_stem(utterance)) for utterance in read_pack(data_dir()))
    assert max(names.values()) == 1
    assert all(name.isascii() for _, name in names)


def test_a_task_without_data_is_refused(corpus):
    for options in (corpus.overrides, corpus.head_options):
        with pytest.raises(ValueError, match="fluent_commands"):
            options("emotion")
