"""What a trained model makes of speech: the numbers of the validation, the head of its own run, or why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robustdistiller.acoustics import Condition, load_audio
from robustdistiller.acoustics.listening.page import Version
from robustdistiller.acoustics.listening.spectrogram import magnitudes
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain import distill
from robustdistiller.pretrain.training.listening import Listener, distance_tables
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import SpeechEncoder, load_encoder, save_checkpoint

from ..conftest import TEACHER

WAVE = np.random.default_rng(0).normal(0, 0.1, 9001).astype(np.float32)
NOISY = WAVE + np.random.default_rng(1).normal(0, 0.1, 9001).astype(np.float32)


def test_the_distance_to_the_teacher_is_that_of_the_validation(make_config, corpus, tmp_path: Path) -> None:
    speech = tmp_path / "speech"
    speech.mkdir()
    shutil.copy(next(corpus.speech.rglob("00.wav")), speech / "one.wav")
    validation = ["validation.every_steps=6", f"validation.speech={speech}", "validation.conditions=[clean]"]
    distill(make_config(tmp_path / "run", *validation, "trainer.ema_decay=0.5"))
    listener = Listener(str(tmp_path / "run" / "student.ckpt"))
    assert listener.notes == [] and listener.enhances
    wave = load_audio(speech / "one.wav").numpy()[:24000]
    found = listener.ask(wave, wave).teacher
    (line,) = read_history(tmp_path / "run" / "validation.csv")
    assert list(found) == ["teacher layer 2", "teacher layer 4"]
    for name, layer in zip(found, (2, 4)):
        assert found[name] == pytest.approx(line[f"cosine_layer{layer}"], rel=1e-4)


def test_hidden_states_are_compared_with_those_of_clean_speech(straight: Path) -> None:
    listener = Listener(str(straight / "student.ckpt"))
    found = listener.ask(WAVE, NOISY).own
    assert list(found) == ["projected", "layer 1", "layer 2"]
    encoder = load_encoder(straight / "student.ckpt")
    with torch.no_grad():
        clean, noisy = (encoder(torch.from_numpy(wave)[None]).hidden_states[1][0] for wave in (WAVE, NOISY))
    expected = 1 - torch.nn.functional.cosine_similarity(clean, noisy, dim=-1).mean()
    assert found["layer 1"] == pytest.approx(float(expected), rel=1e-4) and expected > 1e-3
    assert list(listener.ask(WAVE, WAVE).own.values()) == pytest.approx([0, 0, 0], abs=1e-6)


def test_the_enhancement_head_of_the_run_masks_what_is_heard(straight: Path) -> None:
    answer = Listener(str(straight / "student.ckpt")).ask(WAVE, NOISY)
    noisy = magnitudes(NOISY)
    assert answer.enhanced.shape == noisy.shape and answer.resynthesis.shape == NOISY.shape
    share = answer.enhanced[2:-2] / noisy[2:-2]
    assert share.min() > 0 and share.max() < 1 and share.std() > 1e-4
    again = magnitudes(answer.resynthesis)[5:-5]
    assert np.corrcoef(again.ravel(), answer.enhanced[5:-5].ravel())[0, 1] > 0.98


def test_a_student_alone_has_no_head_and_says_so(straight: Path, tmp_path: Path) -> None:
    shutil.copy(straight / "student.ckpt", tmp_path)
    listener = Listener(str(tmp_path / "student.ckpt"))
    assert listener.notes == [f"The enhancement head is in the run's checkpoints, and {tmp_path} has none of them."]
    answer = listener.ask(WAVE, NOISY)
    assert answer.enhanced is None and list(answer.teacher) == ["teacher layer 2", "teacher layer 4"]


def test_another_teacher_is_refused_and_a_lost_one_is_a_note(
    straight: Path, teacher_path: Path, tmp_path: Path
) -> None:
    student, other = str(straight / "student.ckpt"), tmp_path / "other.ckpt"
    torch.manual_seed(9)
    save_checkpoint(other, SpeechEncoder(TEACHER), {})
    with pytest.raises(SettingsError, match=r"other.ckpt is not the file that the student learnt from"):
        Listener(student, str(other))
    moved = shutil.move(teacher_path, tmp_path / "moved.ckpt")
    try:
        listener = Listener(student)
        (note,) = listener.notes
        assert note.startswith("Without comparison with the teacher and enhancement head:") and "teacher.ckpt" in note
        assert listener.ask(WAVE, NOISY).teacher == {} and listener.ask(WAVE, NOISY).own["layer 2"] > 0
        assert Listener(student, str(moved)).ask(WAVE, NOISY).teacher
    finally:
        shutil.move(moved, teacher_path)


def test_a_model_that_is_no_student(teacher_path: Path) -> None:
    listener = Listener(str(teacher_path))
    assert len(listener.ask(WAVE, NOISY).own) == 6 and "this is none" in listener.notes[0]
    with pytest.raises(SettingsError, match=r"--teacher x: .* is no student"):
        Listener(str(teacher_path), "x")


def test_tables_are_means_over_utterances_and_short_ones_are_named(straight: Path) -> None:
    def versions(*waves: np.ndarray) -> list[Version]:
        return [Version(Condition(), {}, wave) for wave in waves]

    listener = Listener(str(straight / "student.ckpt"))
    utterances = {"one": versions(WAVE, NOISY), "two": versions(WAVE[:5000], NOISY[:5000])}
    own, taught = distance_tables(listener, utterances)
    each = [listener.ask(a.waveform, b.waveform) for a, b in utterances.values()]
    assert own.rows["layer 1"] == pytest.approx([0, np.mean([one.own["layer 1"] for one in each])], abs=1e-6)
    name = "teacher layer 4"
    assert taught.rows[name][1] == pytest.approx(np.mean([one.teacher[name] for one in each]), abs=1e-6)
    assert all(one.enhanced is not None for group in utterances.values() for one in group)
    with pytest.raises(ValueError, match=r"utterance click: .* has 100 samples"):
        distance_tables(listener, {"click": versions(WAVE[:100], NOISY[:100])})
