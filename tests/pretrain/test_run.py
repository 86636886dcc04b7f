"""Whole runs on a tiny corpus: what teacher and student hear, exact resume, errors, and what a run leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import soundfile
import torch
import typer
import yaml
from typer.testing import CliRunner

from robustdistiller.acoustics import corrupt
from robustdistiller.cli.distill import distill as distill_command
from robustdistiller.pretrain import NonFiniteLossError, RunInterrupted, SettingsError, distill, module
from robustdistiller.pretrain.callbacks import read_history
from robustdistiller.upstream import checkpoint_digest, load_encoder, read_checkpoint

from .conftest import run_overrides

APP = typer.Typer()
APP.command()(distill_command)


def last_checkpoint(out_dir: Path) -> dict:
    return torch.load(max((out_dir / "checkpoints").iterdir()), weights_only=True)


def assert_equal_states(found: object, expected: object, place: str = "") -> None:
    """Bit for bit, through nested containers."""
    assert type(found) is type(expected), place
    if isinstance(found, torch.Tensor):
        assert torch.equal(found, expected), place
    elif isinstance(found, dict):
        assert found.keys() == expected.keys(), place
        for key in found:
            assert_equal_states(found[key], expected[key], f"{place}/{key}")
    elif isinstance(found, (list, tuple)):
        assert len(found) == len(expected), place
        for index, (one, other) in enumerate(zip(found, expected)):
            assert_equal_states(one, other, f"{place}/{index}")
    else:
        assert found == expected, place


def assert_same_run(found: Path, expected: Path) -> None:
    """Student, heads, optimizer, scheduler, and the place in the data."""
    one, other = last_checkpoint(found), last_checkpoint(expected)
    for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "progress"):
        assert_equal_states(one[part], other[part], part)
    names = set(one["state_dict"])
    assert any(name.startswith("student.heads.") for name in names)
    assert any(name.startswith("enhancement.lstm.") for name in names)
    assert not any("teacher" in name for name in names)
    students = [read_checkpoint(path / "student.ckpt").state_dict for path in (found, expected)]
    assert_equal_states(*students)


class Fail(pl.Callback):
    """Breaks the run in the middle of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.global_step + 1 == self.step:
            raise OSError("the power went out")


class Signal(pl.Callback):
    """Sends a signal to this process during a step."""

    def __init__(self, step: int, number: int = signal.SIGINT):
        self.step, self.number = step, number

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        if trainer.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, corpus, teacher_path) -> Path:
    """Six steps without interruption; the second epoch begins in the last one."""
    from robustdistiller.pretrain import load_config

    out_dir = tmp_path_factory.mktemp("straight")
    distill(load_config("robustdistiller", run_overrides(corpus, teacher_path, out_dir)))
    return out_dir


def test_three_steps_and_three_more_equal_six(make_config, straight: Path, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=3"))
    assert last_checkpoint(tmp_path)["global_step"] == 3
    distill(make_config(tmp_path))
    assert_same_run(tmp_path, straight)


def test_a_run_that_breaks_inside_a_step_resumes_exactly(make_config, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="power"):
        distill(make_config(tmp_path, "trainer.save_every_steps=2"), callbacks=[Fail(step=4)])
    assert last_checkpoint(tmp_path)["global_step"] == 2
    distill(make_config(tmp_path, "data.num_workers=1"))
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_resumes_exactly(make_config, straight, tmp_path: Path, number) -> None:
    before = signal.getsignal(number)
    with pytest.raises(RunInterrupted, match=rf"stopped by {number.name} at step 2 of 6.*same command") as stop:
        distill(make_config(tmp_path), callbacks=[Signal(2, number)])
    assert stop.value.exit_code == 130 and signal.getsignal(number) is before
    assert not (tmp_path / "student.ckpt").exists()
    distill(make_config(tmp_path))
    assert_same_run(tmp_path, straight)


def test_time_limit_saves_and_stops(make_config, tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted, match=r"stopped by trainer\.max_hours=1e-09 at step 1") as stop:
        distill(make_config(tmp_path, "trainer.max_hours=1e-9"))
    assert stop.value.exit_code == 0 and last_checkpoint(tmp_path)["global_step"] == 1


def test_accumulated_steps_resume_exactly(make_config, tmp_path: Path) -> None:
    options = ("trainer.accumulate=2", "optim.schedule_steps=4")
    distill(make_config(tmp_path / "a", *options, "trainer.max_steps=4"))
    distill(make_config(tmp_path / "b", *options, "trainer.max_steps=2"))
    distill(make_config(tmp_path / "b", *options, "trainer.max_steps=4"))
    assert last_checkpoint(tmp_path / "a")["progress"]["position"]["batches"] == 8
    assert_same_run(tmp_path / "b", tmp_path / "a")
    for line in read_history(tmp_path / "a" / "history.csv"):
        expected = [2e-4 * (1 - step / 4) / 0.93 for step in (line["step"] - 1, line["step"])]
        assert line["lr"] == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("lost", ["generators", "place in the data", "optimizer"])
def test_a_resume_that_loses_something_is_noticed(make_config, straight, tmp_path, monkeypatch, lost: str) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=3"))
    if lost == "generators":
        original = module._step_seed
        monkeypatch.setattr(module, "_step_seed", lambda seed, position, rank: original(seed + 1, position, rank))
    elif lost == "place in the data":
        monkeypatch.setattr(module.Distiller, "on_load_checkpoint", lambda self, checkpoint: None)
    else:
        path = next((tmp_path / "checkpoints").iterdir())
        saved = torch.load(path, weights_only=True)
        for state in saved["optimizer_states"][0]["state"].values():
            state["exp_avg"].zero_()
        torch.save(saved, path)
    distill(make_config(tmp_path))
    with pytest.raises(AssertionError, match="state_dict"):
        assert_same_run(tmp_path, straight)


def test_global_generators_are_left_alone(make_config, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    distill(make_config(tmp_path, "trainer.max_steps=1"))
    assert torch.equal(torch.get_rng_state(), before)


def test_command_line_run_killed_and_continued(corpus, teacher_path, straight, tmp_path: Path, caplog) -> None:
    arguments = ["robustdistiller", *run_overrides(corpus, teacher_path, tmp_path)]
    program = "import typer; from robustdistiller.cli.distill import distill; typer.run(distill)"
    command = [sys.executable, "-c", program, *arguments, "trainer.save_every_steps=1"]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline_s = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints/step-*2.ckpt")) and killed.poll() is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.002)
    killed.kill()
    _, console = killed.communicate()
    for line in ("26 files", "3 files", "student with prediction heads", "step 2 of 6: loss"):
        assert line in console
    assert "GPU available" not in console and "Warning" not in console, console

    with caplog.at_level("INFO"):
        continued = CliRunner().invoke(APP, arguments)
    assert continued.exit_code == 0, continued.output
    assert continued.stdout.strip() == str(tmp_path / "student.ckpt")
    assert any(record.getMessage().startswith("continuing ") for record in caplog.records)
    assert_same_run(tmp_path, straight)


class Listen(pl.Callback):
    """Keeps what teacher and student were given."""

    def __init__(self):
        self.teacher, self.student, self.batches, self.layers = [], [], [], []

    def on_train_start(self, trainer, pl_module) -> None:
        pl_module.teacher.register_forward_pre_hook(lambda _, given: self.teacher.append(given[0].clone()))
        pl_module.student.register_forward_pre_hook(lambda _, given: self.student.append(given[0].clone()))
        for index, layer in enumerate(pl_module.teacher.transformer.layers, start=1):
            layer.register_forward_hook(lambda *_, index=index: self.layers.append(index))
        self.weights = {name: value.clone() for name, value in pl_module.teacher.state_dict().items()}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.batches.append(batch)

    def on_train_end(self, trainer, pl_module) -> None:
        teacher = pl_module.teacher
        assert not teacher.training and not any(part.training for part in teacher.modules())
        assert not any(weight.requires_grad or weight.grad is not None for weight in teacher.parameters())
        assert_equal_states(dict(teacher.state_dict()), self.weights)
        assert pl_module.student.training


@pytest.mark.parametrize("recipe", ["robustdistiller", "distilhubert"])
def test_teacher_hears_clean_and_student_corrupted_speech(make_config, tmp_path: Path, recipe: str) -> None:
    heard = Listen()
    distill(make_config(tmp_path, recipe=recipe), callbacks=[heard])
    assert len(heard.batches) == len(heard.teacher) == len(heard.student) == 6
    operations = []
    for batch, teacher, student in zip(heard.batches, heard.teacher, heard.student):
        assert torch.equal(teacher, batch.waveforms)
        if recipe == "distilhubert":
            assert batch.corruption is None and torch.equal(student, teacher)
            continue
        assert torch.equal(student, corrupt(batch.waveforms, batch.lengths, batch.corruption))
        for row, parameters in enumerate(batch.corruption.parameters):
            operations.append(parameters.operation)
            assert torch.equal(student[row], teacher[row]) == (parameters.operation == "clean")
    if recipe == "robustdistiller":
        assert set(operations) == {"clean", "noise", "reverb", "noise+reverb"}
    assert set(heard.layers) == {1, 2, 3, 4}, "layers above the last predicted one were run"


def test_loss_falls_and_every_term_is_logged(make_config, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=30", "optim.schedule_steps=30", "optim.lr=3e-3"))
    lines = read_history(tmp_path / "history.csv")
    assert [line["step"] for line in lines] == list(range(2, 31, 2))
    first, last = lines[0], lines[-1]
    for term in ("loss", "l1", "cosine", "l1_layer2", "l1_layer4"):
        assert last[term] < 0.97 * first[term]
    for line in lines:
        expected = line["l1"] + line["cosine"] + 2 * line["enhancement"]
        assert line["loss"] == pytest.approx(expected, rel=1e-4)
        assert line["l1"] == pytest.approx((line["l1_layer2"] + line["l1_layer4"]) / 2, rel=1e-4)
        assert line["audio_s_per_s"] > 0 and line["grad_norm"] > 0
    assert any((tmp_path / "tensorboard").iterdir())
    assert (tmp_path / "history.png").stat().st_size > 1000


def test_history_holds_each_step_once_after_a_resume(make_config, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="power"):
        distill(make_config(tmp_path, "trainer.save_every_steps=2"), callbacks=[Fail(step=6)])
    with (tmp_path / "history.csv").open("a") as file:
        file.write("6,0,cut off")
    distill(make_config(tmp_path))
    assert [line["step"] for line in read_history(tmp_path / "history.csv")] == [2, 4, 6]


def test_student_file_says_where_it_comes_from(straight: Path, teacher_path: Path) -> None:
    checkpoint = read_checkpoint(straight / "student.ckpt")
    notes = checkpoint.metadata
    assert notes["teacher"]["file"] == "teacher.ckpt" and notes["teacher"]["metadata"]["name"] == "tiny teacher"
    assert notes["teacher"]["sha256"] == checkpoint_digest(teacher_path)
    assert (notes["recipe"], notes["step"]) == ("robustdistiller", 6)
    assert notes["config"] == yaml.safe_load((straight / "config.yaml").read_text())
    assert notes["corruption"]["snr_db"] == [0, 20] and notes["corruption"]["noise_probability"] == 0.25
    for package in ("robustdistiller", "torch", "torchaudio", "lhotse", "lightning"):
        assert notes["versions"][package][0].isdigit()
    assert notes["parameters"]["student with prediction heads"] == checkpoint.build().count_parameters()
    assert notes["audio_hours"] > 0 and notes["last_losses"]["step"] == 6 and notes["date"].startswith("20")
    assert load_encoder(straight / "student.ckpt").config.prediction_layers == (2, 4)
    assert json.loads((straight / "run.json").read_text())["teacher"] == notes["teacher"]["sha256"]


def test_a_finished_run_is_left_as_it_is(make_config, straight: Path) -> None:
    digest = checkpoint_digest(straight / "student.ckpt")
    assert distill(make_config(straight)) == straight / "student.ckpt"
    assert checkpoint_digest(straight / "student.ckpt") == digest


def test_old_checkpoints_are_removed(make_config, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.save_every_steps=1", "trainer.keep_checkpoints=2"))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000005.ckpt", "step-00000006.ckpt"]


def test_a_full_disk_leaves_the_previous_checkpoint(make_config, straight, tmp_path: Path, monkeypatch) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=3"))
    save = torch.save

    def half_save(content, path):
        save(content, path)
        with Path(path).open("r+b") as file:
            file.truncate(1000)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half_save)
    with pytest.raises(OSError, match="No space left"):
        distill(make_config(tmp_path, "trainer.save_every_steps=1"))
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003.ckpt"]
    distill(make_config(tmp_path))
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["optim.lr=1e-3", "seed=3"],
            r"(?s)optim\.lr: 0\.0002 there, 0\.001 now.*seed: 0 there, 3 now.*another out_dir",
        ),
        (["corruption.snr_db=[5,20]"], r"corruption\.snr_db: \[0, 20\] there, \[5, 20\] now"),
        (["student.num_layers=1"], r"student\.num_layers: 2 there, 1 now"),
        (["data.min_samples=4000"], r"(?s)data\.min_samples.*speech: "),
    ],
)
def test_another_run_in_the_same_folder_is_refused(make_config, straight, overrides, message) -> None:
    with pytest.raises(SettingsError, match=message):
        distill(make_config(straight, *overrides))


def test_another_teacher_is_refused(make_config, straight: Path, teacher_path: Path, tmp_path: Path) -> None:
    content = torch.load(teacher_path, weights_only=True)
    content["metadata"]["name"] = "another"
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(SettingsError, match=r"teacher: .* there, .* now"):
        distill(make_config(straight, f"teacher.checkpoint={tmp_path / 'other.ckpt'}"))


def test_a_longer_schedule_must_be_asked_for(make_config, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=2", "optim.schedule_steps=null"))
    with pytest.raises(SettingsError, match=r"max_steps=4 goes beyond optim\.schedule_steps=2.*schedule_steps=4 too"):
        distill(make_config(tmp_path, "trainer.max_steps=4", "optim.schedule_steps=null"))
    distill(make_config(tmp_path, "trainer.max_steps=4", "optim.schedule_steps=4"))
    assert last_checkpoint(tmp_path)["global_step"] == 4


def test_non_finite_loss_stops_with_step_and_utterances(make_config, tmp_path: Path) -> None:
    class Poison(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            if batch_idx == 2:
                self.ids = batch.ids
                batch.waveforms[1, 100] = float("nan")

    poison = Poison()
    with pytest.raises(NonFiniteLossError) as error:
        distill(make_config(tmp_path, "trainer.save_every_steps=1", recipe="distilhubert"), callbacks=[poison])
    message = str(error.value)
    assert "the loss is not finite at step 3 (epoch 0, batch 2): loss nan, l1 nan, cosine nan" in message
    assert f"first in the speech of {poison.ids[1]}." in message
    assert f"Utterances of the batch: {', '.join(poison.ids)}." in message
    assert last_checkpoint(tmp_path)["global_step"] == 2
    assert all(torch.isfinite(value).all() for value in last_checkpoint(tmp_path)["state_dict"].values())


def test_non_finite_gradient_stops(make_config, tmp_path: Path) -> None:
    class Poison(pl.Callback):
        def on_after_backward(self, trainer, pl_module) -> None:
            next(pl_module.student.parameters()).grad[:] = float("nan")

    with pytest.raises(NonFiniteLossError, match=r"gradient is not finite at step 1 .*utterances: speech/"):
        distill(make_config(tmp_path), callbacks=[Poison()])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.speech=[]"], r"data\.speech: no speech"),
        (["data.noise=[]"], r"data\.noise: .*white_noise_probability=1"),
        (["data.rir=[]"], r"data\.rir: .*corruption\.reverb_probability=0"),
        (["corruption.babble_probability=0.2"], r"data\.babble: .*babble_probability=0"),
        (["data.noise=/no/such/folder"], r"data\.noise: /no/such/folder does not exist"),
        (["teacher.checkpoint=null"], r"teacher\.checkpoint: which model"),
        (["out_dir=null"], r"out_dir: say where"),
        (["trainer.batch_size=null"], r"give batch_size .* or batch_seconds"),
        (["student.prediction_layers=[2,9]"], r"the teacher has layers 0 to 5, found \[9\]"),
        (["trainer.precision=fp16"], "needs a CUDA device"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(make_config, tmp_path: Path, overrides, message) -> None:
    with pytest.raises(SettingsError, match=message):
        distill(make_config(tmp_path, *overrides))
    assert not (tmp_path / "checkpoints").exists()


def test_data_roots_are_counted(make_config, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        distill(make_config(tmp_path, "trainer.max_steps=1"))
    lines = [record.getMessage() for record in caplog.records]
    found = [line for line in lines if line.startswith(("speech ", "noise ", "rir "))]
    assert [line.split(": ")[1].split(",")[0] for line in found] == ["26 files", "3 files", "2 files"]
    assert found[1].endswith("3 files, 6.0 s")
    assert any("student with prediction heads" in line for line in lines)


def test_noise_can_be_excluded_and_folders_may_share_names(make_config, corpus, tmp_path: Path) -> None:
    from robustdistiller.pretrain.inputs import check_data

    both = f"data.noise=[{corpus.noise},{corpus.rir.parent / 'noise'}]"
    with pytest.raises(SettingsError, match="occurs twice"):
        check_data(make_config(tmp_path, both), tmp_path)
    (tmp_path / "other").symlink_to(corpus.noise)
    config = make_config(tmp_path, f"data.noise=[{corpus.noise},{tmp_path / 'other'}]", "data.noise_exclude=['*0.wav']")
    _, corruptor = check_data(config, tmp_path)
    assert corruptor.noise.names == ("noise/noise1.wav", "noise/noise2.wav", "other/noise1.wav", "other/noise2.wav")
    with pytest.raises(SettingsError, match=r"data\.noise_exclude=\['\*'\] leaves none of the 3 files"):
        check_data(make_config(tmp_path, "data.noise_exclude=['*']"), tmp_path)


def test_urbansound_voices_and_music_are_excluded() -> None:
    from fnmatch import fnmatchcase

    from robustdistiller.pretrain import load_config

    patterns = load_config("robustdistiller").data.noise_exclude
    kept = ["fold1/101415-3-0-2.wav", "audio/fold10/2937-1-0-0.wav", "free-sound/noise-free-sound-0002.wav"]
    excluded = ["fold1/102106-2-0-0.wav", "audio/fold10/100795-9-1-0.wav"]
    matched = [name for name in kept + excluded if any(fnmatchcase(name, pattern) for pattern in patterns)]
    assert matched == excluded


def test_audio_that_vanishes_stops_with_its_name(make_config, corpus, tmp_path: Path) -> None:
    root = tmp_path / "speech"
    root.mkdir()
    for index in range(8):
        soundfile.write(root / f"{index}.wav", np.random.default_rng(index).normal(0, 0.1, 8000), 16000)

    class Remove(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            for path in root.iterdir():
                path.unlink()

    config = make_config(tmp_path / "run", f"data.speech={root}", "trainer.max_steps=60", "optim.schedule_steps=60")
    with pytest.raises(ValueError, match=r"cannot read .*speech/\d\.wav \(utterance speech/\d\.wav\)"):
        distill(config, callbacks=[Remove()])


def test_last_hidden_state_and_other_terms_train(make_config, tmp_path: Path) -> None:
    options = ("objectives.enhancement.input=last_hidden", "objectives.enhancement.loss=l2")
    distill(make_config(tmp_path, *options, "objectives.feature_penalty=0.1", "trainer.max_steps=2"))
    line = read_history(tmp_path / "history.csv")[-1]
    expected = line["l1"] + line["cosine"] + 2 * line["enhancement"] + 0.1 * line["feature_penalty"]
    assert line["loss"] == pytest.approx(expected, rel=1e-4) and line["feature_penalty"] > 0
