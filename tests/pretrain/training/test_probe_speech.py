"""The labelled speech of a probe: how it is divided, and which tables and files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.training.probe_speech import labelled_speech
from robustdistiller.upstream import SpeechEncoder

from ..conftest import TEACHER
from .tones import FREQUENCIES_HZ, MAX_SAMPLES, NOISY, make_probe, write_table

#: Names and labels; there is nothing in the files, which only reading them would notice.
LINES = [(f"audio/{index}, a tone.wav", list(FREQUENCIES_HZ)[index % 3]) for index in range(45)]


@pytest.fixture(autouse=True)
def empty_files(tmp_path) -> None:
    (tmp_path / "audio").mkdir()
    for path, _ in LINES:
        (tmp_path / path).touch()


def test_the_split_and_the_choice_keep_labels_in_proportion(tmp_path) -> None:
    uneven = [line for index, line in enumerate(LINES) if index % 3 or index < 6]  # 2, 15 and 15 utterances
    table = write_table(tmp_path / "a.csv", uneven)

    def count(**options) -> dict[tuple[str, str], int]:
        rows = labelled_speech(table, **{"test_share": 1 / 3, "max_utterances": None, "seed": 0} | options)
        return {
            (label[:1], split): sum(row.label == label and row.split == split for row in rows)
            for label in FREQUENCIES_HZ
            for split in ("train", "test")
        }

    assert list(count().values()) == [1, 1, 10, 5, 10, 5]
    assert list(count(test_share=0.99).values()) == [1, 1, 1, 14, 1, 14]
    assert list(count(max_utterances=6).values()) == [1] * 6
    assert sum(count(max_utterances=20).values()) == 20
    assert list(count(max_utterances=20).values()) == pytest.approx([1, 1, 6, 3, 6, 3], abs=1)
    names = [{row.name for row in labelled_speech(table, 1 / 3, most, 0)} for most in (8, 20, None)]
    assert names[0] < names[1] < names[2]


def test_given_splits_are_kept(tmp_path) -> None:
    lines = [(split, label, path) for (path, label), split in zip(LINES, ["test"] * 3 + ["train"] * 42)]
    rows = labelled_speech(write_table(tmp_path / "a.csv", lines, ("split", "label", "path")), 1 / 3, None, 0)
    assert [row.split for row in rows] == [line[0] for line in lines] and rows[0].line == 2


def test_a_table_of_three_splits_is_tested_on_its_development_set(tmp_path) -> None:
    parts = ["valid"] * 6 + ["test"] * 6 + ["train"] * 33
    lines = [(path, label, "me", split) for (path, label), split in zip(LINES, parts)]
    table = write_table(tmp_path / "a.csv", lines, ("path", "label", "speaker", "split"))
    rows = labelled_speech(table, 1 / 3, None, 0)
    assert [(row.name, row.split) for row in rows] == [
        *((path, "test") for path, _ in LINES[:6]),
        *((path, "train") for path, _ in LINES[12:]),
    ]


@pytest.mark.parametrize("tested", ["dev", "test"])
def test_a_label_that_is_not_tested_is_trained_on(tmp_path, tested) -> None:
    """As in the shipped table of words, where one of 40 is not in the development set."""
    lines = [(path, label, tested if index < 6 and index % 3 else "train") for index, (path, label) in enumerate(LINES)]
    rows = labelled_speech(write_table(tmp_path / "a.csv", lines, ("path", "label", "split")), 1 / 3, 20, 0)
    assert len(rows) == 20
    low, mid, high = FREQUENCIES_HZ
    assert {(row.label, row.split) for row in rows} == {
        *((label, split) for label in (mid, high) for split in ("train", "test")),
        (low, "train"),
    }


def test_of_one_recording_nothing_is_tested(tmp_path) -> None:
    lines = [*LINES[:2], *LINES[3:5], *LINES[6:8], LINES[2]]  # 3, 3 and 1
    rows = labelled_speech(write_table(tmp_path / "a.csv", lines), 1 / 3, None, 0)
    assert [row.split for row in rows if row.name == LINES[2][0]] == ["train"]
    assert sum(row.split == "test" for row in rows) == 2


def test_paths_may_be_absolute(tmp_path) -> None:
    lines = [(str(tmp_path / path) if index % 2 else path, label) for index, (path, label) in enumerate(LINES)]
    rows = labelled_speech(write_table(tmp_path / "a.csv", lines), 1 / 3, None, 0)
    assert [row.path for row in rows] == [tmp_path / path for path, _ in LINES]
    lines.append((str(tmp_path / LINES[0][0]), "x"))
    with pytest.raises(ValueError, match=r"line 47: .*/audio/0, a tone.wav stands in line 2 already"):
        labelled_speech(write_table(tmp_path / "b.csv", lines), 1 / 3, None, 0)


def bad_files(folder: Path) -> dict[str, np.ndarray]:
    (folder / "text.wav").write_text("no audio")
    (folder / "nothing.wav").write_bytes(b"")
    tone = np.sin(np.arange(4000)).astype(np.float32)
    return {
        "a.wav": tone,
        "b.wav": tone[:3000],
        "c.wav": tone[:2000],
        "d.wav": tone[:1000],
        "silent.wav": 0 * tone,
        "direct.wav": 0 * tone + 0.25,
        "late.wav": np.concatenate([np.zeros(MAX_SAMPLES, np.float32), tone]),
        "nan.wav": np.where(tone > 0.9, np.nan, tone),
    }


FOUR = "a.wav,x\nb.wav,x\nc.wav,y\nd.wav,y\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'path', found an empty file"),
        ("file,label\na.wav,x\n", "has no column 'path', found file, label"),
        ("path,label,spilt\n", "has no column 'split', found path, label, spilt"),
        ("path,label,label\n", "has the column 'label' 2 times; expected it once"),
        ("path,label\n", "found no lines, expected two labels or more"),
        ("path,label\na.wav,x\nb.wav,x\n", "found 'x', expected two labels or more"),
        (f"path,label\n\n{FOUR}absent.wav,y\n", "line 7: no file "),
        (f"path,label\n{FOUR}text.wav,y\n", "line 6: "),
        (f"path,label\n{FOUR}nothing.wav,y\n", "is an empty file (0 bytes)"),
        (f"path,label\n{FOUR}.,y\n", "line 6: no file "),
        (f"path,label\n{FOUR}nan.wav,y\n", "line 6: "),
        (f"path,label\n{FOUR}silent.wav,y\n", "line 6: silent.wav is silent, each of its first 4000 samples is 0"),
        (f"path,label\n{FOUR}direct.wav,y\n", "line 6: direct.wav is silent, each of its first 4000 samples is 0.25"),
        (f"path,label\n{FOUR}late.wav,y\n", "line 6: late.wav is silent, each of its first 8000 samples is 0"),
        (f"path,label\n{FOUR}./a.wav,y\n", "line 6: ./a.wav stands in line 2 already"),
        ("path,label\na.wav,x,y\n", "line 2: found 3 fields, expected 2 as in line 1; put a value with a comma"),
        ("path,label\na.wav\n", "line 2: found 1 fields, expected 2"),
        ("path,label\na.wav, \n", "line 2: no label; expected one in every line"),
        ("path,label\n,x\n", "line 2: no path; expected one in every line"),
        ('path,label\na.wav,"x\n', "line 2: this is no table"),
        ("path,label,split\na.wav,x,devel\n", "line 2: the split must be train, dev or test, found 'devel'"),
        (
            "path,label,split\na.wav,x,train\nb.wav,x,test\nc.wav,y,test\nd.wav,y,test\n",
            "line 4: all 2 utterances of 'y' are for test, expected one or more for train",
        ),
        (
            "path,label,split\na.wav,x,train\nb.wav,x,train\nc.wav,y,train\nd.wav,y,train\n",
            "no utterance to test on, expected some; give some the split test, or add some",
        ),
        ("path,label\na.wav,x\nb.wav,y\n", "no utterance to test on, expected some"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(text, message, tmp_path) -> None:
    for name, samples in bad_files(tmp_path).items():
        soundfile.write(tmp_path / name, samples, 16_000, subtype="FLOAT")
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(SettingsError) as error:
        make_probe(tmp_path / "x.csv")
    said = str(error.value)
    assert said.startswith(f"probe: {tmp_path / 'x.csv'}") and message in said and "\n" not in said


def test_what_is_no_table_is_refused(tmp_path) -> None:
    (tmp_path / "latin.csv").write_bytes("path,label\na.wav,h\xe4\n".encode("latin-1"))
    for path, message in (
        (tmp_path / "absent.csv", "no such file; expected a table"),
        (tmp_path, "this is no file; expected a table"),
        (tmp_path / "latin.csv", "is not in UTF-8"),
    ):
        with pytest.raises(SettingsError, match=r"^probe: ") as error:
            make_probe(path)
        assert message in str(error.value)
    with pytest.raises(SettingsError, match="3 labels need one utterance to train on and one to test on each; found "):
        make_probe(write_table(tmp_path / "a.csv", LINES), max_utterances=5)


def test_quiet_speech_a_byte_order_mark_and_spaces_are_no_faults(tmp_path) -> None:
    for name, samples in bad_files(tmp_path).items():
        soundfile.write(tmp_path / name, 1e-4 * samples, 16_000, subtype="PCM_16")
    (tmp_path / "x.csv").write_text(f"path, label\n{FOUR}".replace(",x", ', "x"'), encoding="utf-8-sig")
    probe = make_probe(tmp_path / "x.csv", NOISY)
    assert probe.labels == ["x", "y"] and set(probe.measure(SpeechEncoder(TEACHER)).values()) <= {0.0, 0.5, 1.0}
