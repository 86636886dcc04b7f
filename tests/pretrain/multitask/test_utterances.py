"""Labels, splits and trials from folders and tables, and what is refused."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.multitask import KeywordsConfig, SpeakersConfig
from robustdistiller.pretrain.multitask.keywords import keyword_utterances
from robustdistiller.pretrain.multitask.speakers import draw_trials, speaker_utterances

from .conftest import WORDS, Labelled, write_tone

GENERATOR = np.random.default_rng(2)


def make_files(root: Path, *names: str) -> Path:
    for name in names:
        write_tone(root / name, 500.0, GENERATOR, duration_s=0.02)
    return root


def by_split(utterances) -> dict[str, Counter]:
    return {split: Counter(one.label for one in utterances if one.split == split) for split in ("train", "dev", "test")}


def table(root: Path, *rows: str, header: str = "path\tlabel\tsplit") -> str:
    (root / "list.tsv").write_text("\n".join([header, *rows]) + "\n")
    return str(root / "list.tsv")


def words_in_folders(root: Path, label: str = "yes", split_names=("train", "dev", "test")) -> Path:
    return make_files(root, *(f"{s}/{w}/{i}.wav" for s in split_names for w in (label, "no") for i in range(2)))


def test_speech_commands_lists_are_honoured(labelled: Labelled) -> None:
    found = by_split(keyword_utterances(KeywordsConfig(str(labelled.keywords)), seed=0))
    assert found == {"train": dict.fromkeys(WORDS, 5), "dev": dict.fromkeys(WORDS, 2), "test": dict.fromkeys(WORDS, 2)}


@pytest.mark.parametrize("dev", ["dev", "valid", "validation"])
def test_folders_per_split(tmp_path: Path, dev: str) -> None:
    root = words_in_folders(tmp_path, split_names=("train", dev, "test"))
    found = by_split(keyword_utterances(KeywordsConfig(str(root)), seed=0))
    assert found == {split: {"yes": 2, "no": 2} for split in ("train", "dev", "test")}


def test_words_against_the_rest_and_silence(tmp_path: Path) -> None:
    words = ("yes", "no", "bed", "cat")
    files = [f"{split}/{word}/{i}.wav" for split in ("train", "dev", "test") for word in words for i in range(10)]
    root = make_files(tmp_path, *files)
    write_tone(root / "train" / "_background_noise_" / "rain.wav", 90.0, GENERATOR, duration_s=20)
    config = KeywordsConfig(str(root), words=["yes", "no"], unknown_share=0.5, silence_share=0.2)
    utterances = keyword_utterances(config, seed=0)
    expected = {"yes": 10, "no": 10, "_unknown_": 10, "_silence_": 4}
    assert by_split(utterances) == dict.fromkeys(("train", "dev", "test"), expected)
    silence = {
        s: [one.piece for one in utterances if one.label == "_silence_" and one.split == s]
        for s in ("train", "dev", "test")
    }
    for split, (low_s, high_s) in {"train": (0, 16), "dev": (16, 18), "test": (18, 20)}.items():
        for piece in silence[split]:
            assert low_s * 16000 <= piece.frame_offset <= high_s * 16000 - 16000 and piece.num_frames == 16000
    assert utterances == keyword_utterances(config, seed=0) != keyword_utterances(config, seed=1)


def test_tables_with_paths_and_with_pieces(tmp_path: Path) -> None:
    make_files(tmp_path, "a.wav", "b.wav")
    rows = [
        f"a.wav\t{10 * i}\t10\t{label}\t{split}"
        for i, (label, split) in enumerate(
            [("x", "train"), ("x", "train"), ("y", "train"), ("y", "train"), ("x", "dev"), ("y", "test")]
        )
    ]
    header = "file\toffset_samples\tnum_samples\tlabel\tsplit"
    utterances = keyword_utterances(KeywordsConfig(table(tmp_path, *rows, header=header)), seed=0)
    assert [(one.piece.frame_offset, one.piece.num_frames) for one in utterances] == [(10 * i, 10) for i in range(6)]
    assert utterances[4].piece.path == tmp_path / "a.wav" and utterances[4].split == "dev"


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["a.wav\tx"], "path\tlabel", r"has no column 'split'; expected train, dev or test for each"),
        (
            ["a.wav\tx\ttrain", "c.wav\tx\ttrain"],
            "path\tlabel\tsplit",
            r"line 3: no file .*c\.wav; expected",
        ),
        (["a.wav\tx"], "path\tlabel\tsplit", "line 2: found 2 fields, expected 3"),
        (["a.wav\tx\ttrain", "a.wav\tx\tdev"], "path\tlabel\tsplit", r"line 3: a\.wav stands in line 2 already"),
        (["a.wav\tx\teval"], "path\tlabel\tsplit", r"line 2: the split must be train, dev or test, found 'eval'"),
        (["a.wav\t?\t9\tx\tdev"], "file\toffset_samples\tnum_samples\tlabel\tsplit", r"line 2: .*whole numbers.*'\?'"),
    ],
)
def test_broken_tables_are_refused(tmp_path: Path, rows, header: str, message: str) -> None:
    make_files(tmp_path, "a.wav")
    with pytest.raises(SettingsError, match=message):
        keyword_utterances(KeywordsConfig(table(tmp_path, *rows, header=header)), seed=0)


def test_data_that_cannot_be_learnt_from_are_refused(tmp_path: Path) -> None:
    def refused(root: Path, message: str, **options) -> None:
        with pytest.raises(SettingsError, match=message):
            keyword_utterances(KeywordsConfig(str(root), **options), seed=0)

    refused(tmp_path / "none", "does not exist; expected a folder")
    refused(make_files(tmp_path / "a", "yes/1.wav", "no/1.wav"), r"has no validation_list\.txt; expected it and its")
    root = words_in_folders(tmp_path / "b", split_names=("train", "test"))
    refused(root, r"no utterances for dev \(found train 4, dev 0, test 4\)")
    make_files(words_in_folders(tmp_path / "c"), "dev/maybe/1.wav")
    refused(tmp_path / "c", r"1 labels are in dev but not in train \(maybe\)")
    make_files(words_in_folders(tmp_path / "d"), "train/maybe/1.wav")
    refused(tmp_path / "d", r"1 of 3 classes have one training utterance \(maybe\)")
    refused(tmp_path / "d", "words: perhaps are not among the labels", words=["yes", "perhaps"])
    make_files(words_in_folders(tmp_path / "e"), "train/stray.wav")
    refused(tmp_path / "e", r"should hold its audio as SPLIT/LABEL/\.\.\., found train/stray\.wav")
    root = words_in_folders(tmp_path / "f", label="no")
    refused(root, "the training split has one class, 'no'")
    root = make_files(tmp_path / "g", "yes/1.wav", "no/1.wav")
    (root / "validation_list.txt").write_text("yes/2.wav\n")
    (root / "testing_list.txt").write_text("no/1.wav\n")
    refused(root, r"name 1 files that are not there \(yes/2\.wav\)")


def test_a_trial_list_makes_the_test_split(labelled: Labelled) -> None:
    utterances, trials = speaker_utterances(SpeakersConfig(str(labelled.speakers), dev_share=0.3), seed=0)
    found = by_split(utterances)
    assert set(found["train"]) == {"id0", "id1", "id2", "id3"} and set(found["test"]) == {"id4", "id5"}
    assert found["dev"].total() == 8 and min(found["train"].values()) >= 2
    assert [trial.same for trial in trials["test"]] == [True, True, False, False, False]
    assert trials["test"][0].first == "id4/video/0.wav"
    names = {one.piece.name: one for one in utterances}
    assert all(names[name].split == "dev" for trial in trials["dev"] for name in (trial.first, trial.second))
    assert len(trials["dev"]) == 28


def test_voxceleb_calls_its_training_set_dev(tmp_path: Path) -> None:
    train = [f"dev/wav/id{i}/v{j}/1.wav" for i in range(3) for j in range(5)]
    make_files(tmp_path, *train, *(f"test/wav/id{i}/v{j}/1.wav" for i in (8, 9) for j in range(3)))
    (tmp_path / "veri_test.txt").write_text("1 id8/v0/1.wav id8/v1/1.wav\n0 id8/v0/1.wav id9/v2/1.wav\n")
    utterances, trials = speaker_utterances(SpeakersConfig(str(tmp_path)), seed=0)
    found = by_split(utterances)
    assert found["train"].total() + found["dev"].total() == 15 and found["dev"].total() == 4
    assert found["test"] == {"id8": 2, "id9": 1}  # those in the trials
    assert trials["test"][1].second == "test/wav/id9/v2/1.wav"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1 id4/video/0.wav id4/video/9.wav\n", r"names 1 files that are not in the data \(first: id4/video/9\.wav\)"),
        ("1 id4/video/0.wav id5/video/0.wav\n", "line 1 says 1, but the files belong to id4 and id5"),
        ("yes id4/video/0.wav id5/video/0.wav\n", "expected `1 FILE FILE` or `0 FILE FILE`"),
        ("1 id4/video/0.wav id4/video/1.wav\n", "makes 1 trials of one speaker and 0 of two"),
        (None, "does not exist"),
    ],
)
def test_broken_trial_lists_are_refused(labelled: Labelled, tmp_path: Path, lines, message: str) -> None:
    path = tmp_path / "trials.txt"
    if lines is not None:
        path.write_text(lines)
    with pytest.raises(SettingsError, match=message):
        speaker_utterances(SpeakersConfig(str(labelled.speakers), trials=str(path)), seed=0)


def test_speakers_that_cannot_be_learnt_or_measured_are_refused(tmp_path: Path) -> None:
    def refused(root: Path, message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            speaker_utterances(SpeakersConfig(str(root)), seed=0)

    train = [f"train/ann/{i}.wav" for i in range(6)] + [f"train/bob/{i}.wav" for i in range(6)]
    refused(make_files(tmp_path / "a", "ann/1.wav"), r"does not say which speakers are for testing.*trials=LIST")
    root = make_files(tmp_path / "b", *train, "train/eve/1.wav", *(f"test/{s}/{i}.wav" for s in "xy" for i in "12"))
    refused(root, r"1 of 3 classes have one training utterance \(eve\)")
    root = make_files(tmp_path / "c", *train, "test/x/1.wav", "test/y/1.wav")
    refused(root, "the test split .* makes 0 trials of one speaker and 1 of two")
    root = make_files(tmp_path / "d", *train, *(f"test/{s}/{i}.wav" for s in "xy" for i in "12"))
    (root / "veri_test.txt").write_text("1 ann/0.wav ann/1.wav\n0 x/1.wav y/1.wav\n")
    refused(root, r"names 2 files that the data put into another split than test \(first: train/ann/0\.wav\)")


@pytest.mark.parametrize(("sizes", "most"), [((40, 40, 40), 500), ((60, 1, 1), 200), ((3,) * 40, 300), ((200, 1), 150)])
def test_drawn_trials(sizes: tuple[int, ...], most: int) -> None:
    speaker_of = {f"{who}-{i}": str(who) for who, size in enumerate(sizes) for i in range(size)}
    trials = draw_trials(speaker_of, most, seed=3)
    pairs = {(one.first, one.second) for one in trials}
    assert len(pairs) == len(trials) == most and all(a != b for a, b in pairs)
    assert all(one.same == (speaker_of[one.first] == speaker_of[one.second]) for one in trials)
    every = list(combinations(sorted(speaker_of), 2))
    num_same = sum(speaker_of[a] == speaker_of[b] for a, b in every)
    expected = min(num_same, max(most // 2, most - (len(every) - num_same)))
    assert sum(one.same for one in trials) == expected
    assert trials == draw_trials(speaker_of, most, seed=3) != draw_trials(speaker_of, most, seed=4)
