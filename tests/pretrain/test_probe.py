"""The probe while training: what it measures, that it disturbs nothing, and what it refuses."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.acoustics import AudioSource, Corruptor, corrupt_utterance
from robustdistiller.common.settings import SettingsError, read
from robustdistiller.pretrain.training.probe import Probe, ProbeConfig, fit_logistic, mean_states
from robustdistiller.pretrain.training.probe_speech import labelled_speech
from robustdistiller.upstream import SpeechEncoder

from .conftest import TEACHER

FREQUENCIES_HZ = {"low": 150, "middle, so to say": 700, 'a "high" one': 2000}
MAX_SAMPLES = 8000
NOISY = "noise:snr_db=-10,noise=white"


def write_table(path: Path, lines: list[tuple[str, ...]], header: tuple[str, ...] = ("path", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of the tones' folder `audio`. Paths are given relative to it: how they are divided depends on their hash."""
    return tmp_path_factory.mktemp("tones")


@pytest.fixture(scope="module")
def tones(folder) -> list[tuple[str, str]]:
    """45 tones in a little noise, of three frequencies, in many lengths, three of them at another rate in stereo."""
    (folder / "audio").mkdir()
    generator = np.random.default_rng(1)
    lines = []
    for index in range(45):
        label = list(FREQUENCIES_HZ)[index % 3]
        rate_hz, channels = (44_100, 2) if index < 3 else (16_000, 1)
        time_s = np.arange(int(rate_hz * generator.uniform(0.2, 0.6))) / rate_hz
        hz, phase = FREQUENCIES_HZ[label] * generator.uniform(0.98, 1.02), generator.uniform(0, 6)
        samples = 0.2 * np.sin(2 * np.pi * hz * time_s + phase) + generator.normal(0, 0.005, len(time_s))
        name = f"audio/{index}, a tone.wav"
        soundfile.write(folder / name, np.tile(samples[:, None], channels), rate_hz)
        lines.append((name, label))
    return lines


@pytest.fixture(scope="module")
def table(tones, folder) -> Path:
    return write_table(folder / "tones.csv", tones)


@pytest.fixture(scope="module")
def student() -> SpeechEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return SpeechEncoder(TEACHER)


def make_probe(table: Path, *conditions: str, **settings) -> Probe:
    corruptors = {condition: Corruptor(condition, seed=4) for condition in conditions}
    return Probe(ProbeConfig(every_steps=1, data=str(table), **settings), corruptors, MAX_SAMPLES)


def test_tones_are_told_apart_and_less_so_in_noise(table, student) -> None:
    found = make_probe(table, "clean", "noise:snr_db=30,noise=white", NOISY).measure(student)
    assert list(found) == ["clean", "noise:snr_db=30,noise=white", NOISY]
    assert found["clean"] == 1.0
    assert found[NOISY] <= 0.7 < found["noise:snr_db=30,noise=white"]


def test_labels_without_meaning_are_guessed(tones, student, folder) -> None:
    accuracies = []
    for seed in range(6):
        labels = [label for _, label in tones]
        random.Random(seed).shuffle(labels)
        lines = [(path, label) for (path, _), label in zip(tones, labels)]
        accuracies.append(make_probe(write_table(folder / "shuffled.csv", lines)).measure(student)["clean"])
    # 15 test items each, so that the mean has a standard error of 0.05.
    assert abs(np.mean(accuracies) - 1 / 3) < 0.15, accuracies


def test_two_measurements_are_equal_and_change_nothing(table, student) -> None:
    probe = make_probe(table, NOISY)
    student.train()
    student.transformer.eval()
    student.requires_grad_(True)
    modes = [part.training for part in student.modules()]
    weights = {name: value.clone() for name, value in student.state_dict().items()}
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with torch.autocast("cpu", torch.bfloat16):
        first = probe.measure(student)
    with torch.inference_mode():
        assert probe.measure(student) == first == make_probe(table, NOISY).measure(student)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert [part.training for part in student.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in student.parameters())


def features_one_by_one(student: SpeechEncoder, rows, corruptor: Corruptor) -> np.ndarray:
    found = []
    for row in rows:
        waveform = torch.from_numpy(soundfile.read(row.file, dtype="float32")[0][:MAX_SAMPLES])
        heard = corrupt_utterance(waveform, corruptor, f"probe/{row.name}")
        with torch.no_grad():
            states = student.eval()(heard[None]).hidden_states
        found.append(torch.cat([state[0].mean(0) for state in states]).double().numpy())
    return np.stack(found)


def test_it_is_the_logistic_regression_of_scikit_learn(tones, student, folder) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    table, l2 = write_table(folder / "mono.csv", tones[3:]), 0.03
    condition = "noise:snr_db=6,noise=pink"
    found = make_probe(table, condition, l2=l2).measure(student)
    rows = labelled_speech(table, 1 / 3, None, 0)
    train, test = ([row for row in rows if row.split == split] for split in ("train", "test"))
    x = features_one_by_one(student, train, Corruptor("clean"))
    mean, scale = x.mean(0), x.std(0)
    theirs = linear_model.LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=5000)
    theirs.fit((x - mean) / scale, [row.label for row in train])
    for name, one in (("clean", "clean"), (condition, condition)):
        y = features_one_by_one(student, test, Corruptor(one, seed=4))
        assert found[name] == pytest.approx(theirs.score((y - mean) / scale, [row.label for row in test]), abs=1e-3)
    labels = torch.tensor([theirs.classes_.tolist().index(row.label) for row in train])
    weight, bias = fit_logistic(torch.from_numpy((x - mean) / scale), labels, 3, l2)
    np.testing.assert_allclose(weight.numpy().T, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-4)


def test_padding_and_what_is_shorter_than_a_frame(student) -> None:
    waveforms = torch.zeros(3, 3000)
    waveforms[0], waveforms[1, :1200], waveforms[2, :50] = torch.randn(3000), torch.randn(1200), 1.0
    student.eval()
    together = mean_states(student, waveforms, torch.tensor([3000, 1200, 50]))
    for row, length in zip(range(3), (3000, 1200, 50)):
        alone = mean_states(student, waveforms[row : row + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-4)
    assert together.isfinite().all()


def test_features_that_are_no_numbers_have_no_accuracy(table, student) -> None:
    broken = SpeechEncoder(TEACHER)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    assert all(np.isnan(value) for value in make_probe(table, NOISY).measure(broken).values())


def test_the_identity_is_what_is_heard_and_not_where_it_lies(tones, folder, tmp_path) -> None:
    def describe(name: str, lines, **settings) -> dict:
        (tmp_path / name).mkdir()
        (tmp_path / name / "audio").symlink_to(folder / "audio")
        return make_probe(write_table(tmp_path / name / "x.csv", lines), NOISY, **settings).describe()

    first = describe("a", tones)
    assert describe("b", tones[::-1]) == first and NOISY in first["conditions"]
    swapped = [(tones[0][0], tones[1][1]), (tones[1][0], tones[0][1]), *tones[2:]]
    others = [describe("c", swapped), describe("d", tones, seed=1), describe("e", tones, max_utterances=9)]
    assert len({one["speech"] for one in (first, *others)}) == 4
    assert describe("f", tones, l2=0.1) != first


def test_the_split_and_the_choice_keep_labels_in_proportion(tones, tmp_path) -> None:
    uneven = [line for index, line in enumerate(tones) if index % 3 or index < 6]  # 2, 15 and 15 utterances
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


def test_given_splits_are_kept(tones, tmp_path) -> None:
    lines = [(split, label, path) for (path, label), split in zip(tones, ["test"] * 3 + ["train"] * 42)]
    rows = labelled_speech(write_table(tmp_path / "a.csv", lines, ("split", "label", "path")), 1 / 3, None, 0)
    assert [row.split for row in rows] == [line[0] for line in lines] and rows[0].line == 2


def test_paths_may_be_absolute(tones, folder, tmp_path) -> None:
    lines = [(str(folder / path) if index % 2 else path, label) for index, (path, label) in enumerate(tones)]
    (tmp_path / "audio").symlink_to(folder / "audio")
    rows = labelled_speech(write_table(tmp_path / "a.csv", lines), 1 / 3, None, 0)
    assert len(rows) == 45 and all(row.file.is_file() for row in rows)
    with pytest.raises(SettingsError, match=r"line 3: audio/0, a tone.wav is in line 2 already"):
        labelled_speech(write_table(tmp_path / "b.csv", [(str(folder / tones[0][0]), "x"), tones[0]]), 1 / 3, None, 0)


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
        ("", "line 1: found the columns of an empty file, expected path, label and, if wanted, split"),
        ("file,label\na.wav,x\n", "line 1: found the columns 'file', 'label', expected path, label"),
        ("path,label,spilt\n", "did you mean 'split'?"),
        ("path,label,label\n", "line 1: found the columns 'path', 'label', 'label'"),
        ("path,label\n", "found no lines, expected two labels or more"),
        ("path,label\na.wav,x\nb.wav,x\n", "found 'x', expected two labels or more"),
        (f"path,label\n{FOUR}late.wav,z\n", "line 6: 'z' has this utterance only, expected two or more"),
        (f"path,label\n\n{FOUR}absent.wav,y\n", "line 7: audio file"),
        (f"path,label\n{FOUR}text.wav,y\n", "line 6: "),
        (f"path,label\n{FOUR}nothing.wav,y\n", "is an empty file (0 bytes)"),
        (f"path,label\n{FOUR}.,y\n", "is a folder"),
        (f"path,label\n{FOUR}nan.wav,y\n", "line 6: "),
        (f"path,label\n{FOUR}silent.wav,y\n", "line 6: silent.wav is silent, each of its first 4000 samples is 0"),
        (f"path,label\n{FOUR}direct.wav,y\n", "line 6: direct.wav is silent, each of its first 4000 samples is 0.25"),
        (f"path,label\n{FOUR}late.wav,y\n", "line 6: late.wav is silent, each of its first 8000 samples is 0"),
        (f"path,label\n{FOUR}./a.wav,y\n", "line 6: ./a.wav is in line 2 already"),
        ("path,label\na.wav,x,y\n", "line 2: found 3 fields, expected 2 as in line 1; put a value with a comma"),
        ("path,label\na.wav\n", "line 2: found 1 fields, expected 2"),
        ("path,label\na.wav, \n", "line 2: the label is empty"),
        ("path,label\n,x\n", "line 2: the path is empty"),
        ('path,label\na.wav,"x\n', "not CSV"),
        ("path,label,split\na.wav,x,dev\n", "line 2: found the split 'dev', expected train or test"),
        (
            "path,label,split\na.wav,x,train\nb.wav,x,test\nc.wav,y,test\nd.wav,y,test\n",
            "line 4: all 2 utterances of 'y' are for test, expected one or more for train",
        ),
        (
            "path,label,split\na.wav,x,train\nb.wav,x,test\nc.wav,y,train\nd.wav,y,train\n",
            "line 4: all 2 utterances of 'y' are for train, expected one or more for test",
        ),
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


def test_what_is_no_table_is_refused(table, tmp_path) -> None:
    (tmp_path / "latin.csv").write_bytes("path,label\na.wav,h\xe4\n".encode("latin-1"))
    for path, message in (
        (tmp_path / "absent.csv", "cannot be read (No such file or directory)"),
        (tmp_path, "cannot be read (Is a directory)"),
        (tmp_path / "latin.csv", "is not UTF-8"),
    ):
        with pytest.raises(SettingsError, match=r"^probe: ") as error:
            make_probe(path)
        assert message in str(error.value)
    with pytest.raises(SettingsError, match="3 labels need one utterance to train on and one to test on each; found "):
        make_probe(table, max_utterances=5)


def test_quiet_speech_a_byte_order_mark_and_spaces_are_no_faults(student, tmp_path) -> None:
    for name, samples in bad_files(tmp_path).items():
        soundfile.write(tmp_path / name, 1e-4 * samples, 16_000, subtype="PCM_16")
    (tmp_path / "x.csv").write_text(f"path, label\n{FOUR}".replace(",x", ', "x"'), encoding="utf-8-sig")
    probe = make_probe(tmp_path / "x.csv", NOISY)
    assert probe.labels == ["x", "y"] and set(probe.measure(student).values()) <= {0.0, 0.5, 1.0}


def test_broken_noise_is_told_before_the_first_step(table, tmp_path) -> None:
    soundfile.write(tmp_path / "noise.wav", np.full(100, np.nan, np.float32), 16_000, subtype="FLOAT")
    corruptor = Corruptor("noise:snr_db=5", AudioSource.from_path(tmp_path))
    with pytest.raises(SettingsError, match=r"^probe: .*noise\.wav"):
        Probe(ProbeConfig(every_steps=1, data=str(table)), {"noise:snr_db=5": corruptor}, MAX_SAMPLES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"every_steps": 0, "data": "a.csv"}, "probe: every_steps is 0, expected 1 or more"),
        ({"every_steps": 10}, "probe: every_steps is given and data is not"),
        ({"data": "a.csv", "criterion": True}, "probe: criterion chooses by a probe that is never made"),
        ({"test_share": 1.0}, "probe: test_share is 1.0, expected more than 0 and less than 1"),
        ({"max_utterances": 3}, "probe: max_utterances is 3, expected 4 or more"),
        ({"l2": 0.0}, "probe: l2 is 0.0, expected more than 0"),
        ({"l2": "x"}, "probe.l2: found 'x', expected a number"),
    ],
)
def test_settings_out_of_range_are_refused(values, message) -> None:
    with pytest.raises(SettingsError) as error:
        read(ProbeConfig, values, "probe")
    assert message in str(error.value)
