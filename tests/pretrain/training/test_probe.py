"""The probe while training: what it measures, that it disturbs nothing, and what it refuses."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression

from robustdistiller.acoustics import AudioSource, Corruptor, corrupt_utterance
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain import distill, load_config
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.pretrain.training.probe import Probe, ProbeConfig, mean_states
from robustdistiller.pretrain.training.probe_speech import labelled_speech
from robustdistiller.upstream import SpeechEncoder, read_checkpoint

from ..conftest import TEACHER
from .tones import MAX_SAMPLES, NOISY, make_probe, write_table, write_tones


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of the tones' folder `audio`. Paths are given relative to it: how they are divided depends on their hash."""
    return tmp_path_factory.mktemp("tones")


@pytest.fixture(scope="module")
def tones(folder) -> list[tuple[str, str]]:
    return write_tones(folder)


@pytest.fixture(scope="module")
def table(tones, folder) -> Path:
    return write_table(folder / "tones.csv", tones)


@pytest.fixture(scope="module")
def student() -> SpeechEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return SpeechEncoder(TEACHER)


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
        waveform = torch.from_numpy(soundfile.read(row.path, dtype="float32")[0][:MAX_SAMPLES])
        heard = corrupt_utterance(waveform, corruptor, f"probe/{row.name}")
        with torch.no_grad():
            states = student.eval()(heard[None]).hidden_states
        found.append(torch.cat([state[0].mean(0) for state in states]).double().numpy())
    return np.stack(found)


def test_it_is_a_logistic_regression_on_means_over_time(tones, student, folder) -> None:
    table, l2 = write_table(folder / "mono.csv", tones[3:]), 0.03
    condition = "noise:snr_db=6,noise=pink"
    found = make_probe(table, condition, l2=l2).measure(student)
    rows = labelled_speech(table, 1 / 3, None, 0)
    train, test = ([row for row in rows if row.split == split] for split in ("train", "test"))
    x = features_one_by_one(student, train, Corruptor("clean"))
    mean, scale = x.mean(0), x.std(0)
    theirs = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=5000)
    theirs.fit((x - mean) / scale, [row.label for row in train])
    for name, one in (("clean", "clean"), (condition, condition)):
        y = features_one_by_one(student, test, Corruptor(one, seed=4))
        assert found[name] == pytest.approx(theirs.score((y - mean) / scale, [row.label for row in test]), abs=1e-3)


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


def test_the_probe_of_a_run_chooses_the_best_checkpoint(make_config, table, tmp_path) -> None:
    options = ("probe.every_steps=1", "probe.criterion=true", "trainer.max_steps=2", "validation.conditions=[clean]")
    distill(make_config(tmp_path, f"probe.data={table}", *options))
    accuracies = [line["probe_accuracy"] for line in read_history(tmp_path / "validation.csv")]
    best = read_checkpoint(tmp_path / "student_best.ckpt").metadata["best"]
    assert best["criterion"] == "probe_accuracy" and best["step"] == 1 + np.argmax(accuracies)
    assert best["value"] == pytest.approx(max(accuracies), rel=1e-5) and len(accuracies) == 2


def test_a_probe_beside_a_validation_without_clean_speech(make_config, table, tmp_path) -> None:
    """The probe hears clean speech in any case, so that a line of the table has no distance."""
    options = ("probe.every_steps=1", "validation.every_steps=1", "validation.conditions=[noise:snr_db=5]")
    distill(make_config(tmp_path, f"probe.data={table}", *options, "trainer.max_steps=1"))
    lines = {line["condition"]: line for line in read_history(tmp_path / "validation.csv")}
    assert "cosine" in lines["noise:snr_db=5"] and "cosine" not in lines["clean"]
    assert all("probe_accuracy" in line for line in lines.values())


def test_a_measurement_that_is_no_number_is_not_the_best(make_config, table, tmp_path, monkeypatch) -> None:
    accuracies = iter([np.nan, 0.5, 0.4])
    monkeypatch.setattr(Probe, "measure", lambda self, student: {"clean": next(accuracies)})
    options = ("probe.every_steps=1", "probe.criterion=true", "trainer.max_steps=3", "validation.conditions=[clean]")
    distill(make_config(tmp_path, f"probe.data={table}", *options))
    assert read_checkpoint(tmp_path / "student_best.ckpt").metadata["best"]["step"] == 2


def test_broken_noise_is_told_before_the_first_step(table, tmp_path) -> None:
    soundfile.write(tmp_path / "noise.wav", np.full(100, np.nan, np.float32), 16_000, subtype="FLOAT")
    corruptor = Corruptor("noise:snr_db=5", AudioSource.from_path(tmp_path))
    with pytest.raises(SettingsError, match=r"^probe: .*noise\.wav"):
        Probe(ProbeConfig(every_steps=1, data=str(table)), {"noise:snr_db=5": corruptor}, MAX_SAMPLES)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["every_steps=0", "data=a.csv"], "probe.every_steps: found 0, expected at least 1 or null"),
        (["every_steps=10"], "probe.every_steps is given and probe.data is not"),
        (["criterion=true"], "probe.criterion=true chooses by a probe that is never made"),
        (["test_share=1.0"], "probe.test_share: found 1.0, expected less than 1"),
        (["max_utterances=3"], "probe.max_utterances: found 3, expected at least 4 or null"),
        (["l2=0"], "probe.l2: found 0, expected more than 0"),
        (["l2=x"], "probe.l2: found 'x', expected a number"),
    ],
)
def test_settings_out_of_range_are_refused(overrides, message) -> None:
    with pytest.raises(SettingsError) as error:
        load_config("distilhubert", [f"probe.{text}" for text in overrides])
    assert message in str(error.value)
