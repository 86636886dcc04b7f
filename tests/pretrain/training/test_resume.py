"""Continuing a run: bit for bit the same as not having stopped, and never as a different run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from robustdistiller.cli.distill import distill as distill_command
from robustdistiller.pretrain import RunInterrupted, SettingsError, distill
from robustdistiller.pretrain.data.sampler import Position
from robustdistiller.pretrain.teacher.groups.find import LayerGroups
from robustdistiller.pretrain.teacher.units import TeacherUnits
from robustdistiller.pretrain.training import loop, stages
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import (
    CheckpointError,
    SpeechEncoder,
    checkpoint_digest,
    load_encoder,
    read_checkpoint,
    save_checkpoint,
)
from tests.waiting import HANG_S, wait_until

from ..conftest import assert_equal_states, last_checkpoint, run_overrides

APP = typer.Typer()
APP.command()(distill_command)


def assert_same_run(found: Path, expected: Path) -> None:
    """Student, heads, optimizer, scheduler, and the place in the data."""
    one, other = last_checkpoint(found), last_checkpoint(expected)
    for part in ("model", "optimizer", "progress"):
        assert_equal_states(one[part], other[part], part)
    names = set(one["model"])
    assert any(name.startswith("student.heads.") for name in names)
    assert any(name.startswith("heads.enhancement.lstm.") for name in names)
    assert not any("teacher" in name for name in names)
    students = [read_checkpoint(path / "student.ckpt").state_dict for path in (found, expected)]
    assert_equal_states(*students)


class Fail:
    """Breaks the run in the middle of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_before_optimizer_step(self, distiller, step) -> None:
        if step == self.step:
            raise OSError("the power went out")


class Signal:
    """Sends a signal to this process during a step."""

    def __init__(self, step: int, number: int = signal.SIGINT):
        self.step, self.number = step, number

    def on_before_optimizer_step(self, distiller, step) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.number)


def test_three_steps_and_three_more_equal_six(make_config, straight: Path, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=3"))
    assert last_checkpoint(tmp_path)["progress"]["step"] == 3
    distill(make_config(tmp_path))
    assert_same_run(tmp_path, straight)


def test_a_run_that_breaks_inside_a_step_resumes_exactly(make_config, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="power"):
        distill(make_config(tmp_path, "trainer.save_every_steps=2"), callbacks=[Fail(step=4)])
    assert last_checkpoint(tmp_path)["progress"]["step"] == 2
    distill(make_config(tmp_path, "data.num_workers=1"))
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_resumes_exactly(make_config, straight, tmp_path: Path, number) -> None:
    before = signal.getsignal(number)
    with pytest.raises(
        RunInterrupted, match=rf"stopped by {number.name} at step 2 of 6 of stage distil.*same command"
    ) as stop:
        distill(make_config(tmp_path), callbacks=[Signal(2, number)])
    assert stop.value.exit_code == 130 and signal.getsignal(number) is before
    assert not (tmp_path / "student.ckpt").exists()
    distill(make_config(tmp_path))
    assert_same_run(tmp_path, straight)


def test_time_limit_saves_and_stops(make_config, tmp_path: Path) -> None:
    with pytest.raises(RunInterrupted, match=r"stopped by trainer\.max_hours=1e-09 at step 1") as stop:
        distill(make_config(tmp_path, "trainer.max_hours=1e-9"))
    assert stop.value.exit_code == 0 and last_checkpoint(tmp_path)["progress"]["step"] == 1


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
        original = loop.seed_of
        monkeypatch.setattr(loop, "seed_of", lambda seed, batches: original(seed + 1, batches))
    elif lost == "place in the data":
        original = stages.progress_of
        monkeypatch.setattr(stages, "progress_of", lambda state: replace(original(state), position=Position()))
    else:
        path = next((tmp_path / "checkpoints").iterdir())
        saved = torch.load(path, weights_only=True)
        for state in saved["optimizer"]["state"].values():
            state["exp_avg"].zero_()
        torch.save(saved, path)
    distill(make_config(tmp_path))
    with pytest.raises(AssertionError, match="model"):
        assert_same_run(tmp_path, straight)


def test_command_line_run_killed_and_continued(corpus, teacher_path, straight, tmp_path: Path, caplog) -> None:
    arguments = ["robustdistiller", *run_overrides(corpus, teacher_path, tmp_path)]
    program = "import typer; from robustdistiller.cli.distill import distill; typer.run(distill)"
    command = [sys.executable, "-c", program, *arguments, "trainer.save_every_steps=1"]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list(tmp_path.glob("checkpoints/distil-*2.ckpt")), killed)
    killed.kill()
    _, console = killed.communicate()
    for line in ("26 files", "3 files", "student with prediction heads", "distil: step 2 of 6: loss"):
        assert line in console
    assert "GPU available" not in console and "Warning" not in console, console

    with caplog.at_level("INFO"):
        continued = CliRunner().invoke(APP, arguments)
    assert continued.exit_code == 0, continued.output
    assert continued.stdout.strip() == str(tmp_path / "student.ckpt")
    assert any(record.getMessage().startswith("continuing ") for record in caplog.records)
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)])
def test_a_signal_to_all_processes_of_a_job_saves(corpus, teacher_path, tmp_path: Path, number: int) -> None:
    """What schedulers do at the end of the time, loader processes included."""
    program = "import typer; from robustdistiller.cli.distill import distill; typer.run(distill)"
    steps = ["trainer.max_steps=100000", "optim.schedule_steps=100000", "data.num_workers=2", "trainer.batch_size=1"]
    command = [sys.executable, "-c", program, "robustdistiller", *run_overrides(corpus, teacher_path, tmp_path), *steps]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: len(read_history(tmp_path / "history.csv")) > 2, job)
    os.killpg(job.pid, number)
    _, console = job.communicate(timeout=HANG_S)
    assert job.returncode == 130 and f"stopped by {signal.Signals(number).name} at step" in console, console
    assert last_checkpoint(tmp_path)["progress"]["step"] > 4


def test_history_holds_each_step_once_after_a_resume(make_config, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="power"):
        distill(make_config(tmp_path, "trainer.save_every_steps=2"), callbacks=[Fail(step=6)])
    with (tmp_path / "history.csv").open("a") as file:
        file.write("6,0,cut off")
    distill(make_config(tmp_path))
    assert [line["step"] for line in read_history(tmp_path / "history.csv")] == [2, 4, 6]


def test_a_finished_run_is_left_as_it_is(make_config, straight: Path) -> None:
    digest = checkpoint_digest(straight / "student.ckpt")
    assert distill(make_config(straight)) == straight / "student.ckpt"
    assert checkpoint_digest(straight / "student.ckpt") == digest


@pytest.mark.parametrize("size", [0, 30_000])
def test_a_damaged_checkpoint_is_named_and_can_be_removed(make_config, straight: Path, tmp_path: Path, size) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=4", "trainer.save_every_steps=2"))
    newest = tmp_path / "checkpoints" / "distil-00000004.ckpt"
    newest.write_bytes(newest.read_bytes()[:size])
    with pytest.raises(SettingsError, match=r"distil-00000004\.ckpt cannot be read as a checkpoint .*remove it"):
        distill(make_config(tmp_path))
    newest.unlink()
    distill(make_config(tmp_path))
    assert_same_run(tmp_path, straight)


@pytest.mark.parametrize("name", ["history.csv", "config.yaml", "run.json"])
def test_a_file_of_a_run_that_is_empty(make_config, straight: Path, tmp_path: Path, name: str) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=4", "trainer.save_every_steps=2"))
    (tmp_path / name).write_text("")
    if name == "history.csv":
        distill(make_config(tmp_path))
        assert [line["step"] for line in read_history(tmp_path / name)] == [6]
        return
    with pytest.raises(SettingsError, match=r"holds a run whose config\.yaml or run\.json is damaged"):
        distill(make_config(tmp_path))


def test_a_run_from_before_a_setting_was_added_goes_on(make_config, straight: Path, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=3"))
    config = (tmp_path / "config.yaml").read_text()
    assert "  expand_by: linear\n" in config
    (tmp_path / "config.yaml").write_text(config.replace("  expand_by: linear\n", ""))
    distill(make_config(tmp_path))
    assert_same_run(tmp_path, straight)


def test_a_log_mel_run_from_before_its_norm_was_changed_is_refused(make_config, tmp_path: Path) -> None:
    settings = "student.conv_layers=log_mel", "student.init=random", "trainer.max_steps=1"
    distill(make_config(tmp_path, *settings))
    distill(make_config(tmp_path, *settings, "trainer.max_steps=2"))
    identity = json.loads((tmp_path / "run.json").read_text())
    del identity["log-mel norm"]
    (tmp_path / "run.json").write_text(json.dumps(identity))
    with pytest.raises(SettingsError, match="log-mel norm: None there, half_group now"):
        distill(make_config(tmp_path, *settings, "trainer.max_steps=3"))


def test_the_folder_and_the_states_of_a_run_are_no_models(straight: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"found a folder there; give {straight}/student\.ckpt$"):
        read_checkpoint(straight)
    with pytest.raises(CheckpointError, match=r"ckpt: it is a state of distill's training, .* expected the student"):
        read_checkpoint(next((straight / "checkpoints").glob("*.ckpt")))


def test_old_checkpoints_are_removed(make_config, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.save_every_steps=1", "trainer.keep_checkpoints=2"))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["distil-00000005.ckpt", "distil-00000006.ckpt"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["optim.lr=1e-3", "seed=3"],
            r"(?s)optim\.lr: 0\.0002 there, 0\.001 now.*seed: 0 there, 3 now.*another out_dir",
        ),
        (["corruption.tables=[{clean: 1}]"], r"corruption\.tables: \[\{'clean': 0\.25, .* there, \[\{'clean': 1"),
        (["student.num_layers=1"], r"student\.num_layers: 2 there, 1 now"),
        (["data.min_samples=4000"], r"(?s)data\.min_samples.*distil\.speech: "),
    ],
)
def test_another_run_in_the_same_folder_is_refused(make_config, straight, overrides, message) -> None:
    with pytest.raises(SettingsError, match=message):
        distill(make_config(straight, *overrides))


def test_another_teacher_is_refused(make_config, straight: Path, teacher_path: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "other.ckpt", load_encoder(teacher_path), {"name": "another"})
    with pytest.raises(SettingsError, match=r"teachers: .* there, .* now"):
        distill(make_config(straight, f"teacher.checkpoint={tmp_path / 'other.ckpt'}"))


def test_a_longer_schedule_must_be_asked_for(make_config, tmp_path: Path) -> None:
    distill(make_config(tmp_path, "trainer.max_steps=2", "optim.schedule_steps=null"))
    with pytest.raises(SettingsError, match=r"max_steps=4 goes beyond optim\.schedule_steps=2.*schedule_steps=4 too"):
        distill(make_config(tmp_path, "trainer.max_steps=4", "optim.schedule_steps=null"))
    distill(make_config(tmp_path, "trainer.max_steps=4", "optim.schedule_steps=4"))
    assert last_checkpoint(tmp_path)["progress"]["step"] == 4


def test_what_a_run_found_that_never_began_is_found_anew(make_config, teacher_path: Path, tmp_path: Path) -> None:
    """Groups and units may be those of other settings, or of another teacher."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        save_checkpoint(tmp_path / "other.ckpt", SpeechEncoder(read_checkpoint(teacher_path).config), {})

    def start(teacher: Path, count: int) -> tuple[int, torch.Tensor]:
        options = f"teacher.checkpoint={teacher}", "targets.layers=auto", f"targets.groups.count={count}"
        units = f"targets.units={{layer: 2, count: {count}, calibration_utterances: 4}}"
        with pytest.raises(OSError, match="power"):
            distill(make_config(tmp_path / "run", *options, units, "objectives.units=1"), callbacks=[Fail(1)])
        groups = LayerGroups.load(tmp_path / "run" / "groups.json").groups
        return len(groups), TeacherUnits.load(tmp_path / "run" / "units.npz").centroids

    first, second, other = start(teacher_path, 2), start(teacher_path, 3), start(tmp_path / "other.ckpt", 3)
    assert (first[0], len(first[1])) == (2, 2) and (second[0], len(second[1])) == (3, 3)
    assert not torch.equal(second[1], other[1])
