"""What a run says its encoders cost, and the measured parts of a step."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
import typer
from typer.testing import CliRunner

from robustdistiller.cli.distill import distill as distill_command
from robustdistiller.pretrain import distill
from robustdistiller.pretrain.training import stages as run
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.pretrain.training.step_time import CostReport, StepClock

from .conftest import assert_equal_states, last_checkpoint, run_overrides

PARTS = ["data wait", "teacher", "student", "objectives", "backward", "optimizer"]


def test_parts_of_a_step_are_measured_and_written(make_config, tmp_path: Path, caplog, monkeypatch) -> None:
    teach = Distiller.teach

    def slow(self, batch):
        time.sleep(0.1)
        return teach(self, batch)

    monkeypatch.setattr(Distiller, "teach", slow)
    with caplog.at_level("INFO"):
        distill(make_config(tmp_path, "trainer.max_steps=5", "trainer.accumulate=2"))
    report = json.loads((tmp_path / "cost.json").read_text())
    assert report["measured_steps"] == 2 and list(report["step_s"]) == PARTS
    assert report["step_s"]["teacher"] > 0.2 and all(value > 0 for value in report["step_s"].values())
    assert report["encoders"]["student"]["parameters_used"] == 14_896
    assert 1 < report["audio_s_per_step"] < 15
    lines = [record.getMessage() for record in caplog.records if "step_time" in record.name]
    assert sum(line.startswith("encoder ") for line in lines) == 1
    assert [line.split("  ")[0] for line in lines if line.split("  ")[0] in PARTS] == ["teacher", "student", *PARTS]


def test_measuring_changes_no_result(make_config, straight: Path, tmp_path: Path, monkeypatch) -> None:
    assert json.loads((straight / "cost.json").read_text())["measured_steps"] == 3
    monkeypatch.setattr(run, "CostReport", lambda *args: CostReport(*args, warm_up_steps=10**9))
    distill(make_config(tmp_path))
    assert "step_s" not in json.loads((tmp_path / "cost.json").read_text())
    one, other = last_checkpoint(tmp_path), last_checkpoint(straight)
    for part in ("model", "optimizer"):
        assert_equal_states(one[part], other[part], part)


def test_a_clock_waits_for_the_device_only_while_it_runs(monkeypatch) -> None:
    waits = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waits.append)
    clock = StepClock()
    clock.lap("teacher")
    clock.skip()
    assert not waits and not clock.seconds
    clock.start(torch.device("cuda", 0))
    clock.lap("teacher")
    assert len(waits) == 2
    clock.stop()
    clock.lap("teacher")
    assert len(waits) == 2


def test_command_prints_the_cost_without_training(corpus, teacher_path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(distill_command)
    arguments = ["robustdistiller", *run_overrides(corpus, teacher_path, tmp_path / "run"), "--cost"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[:3]] == ["encoder", "teacher", "student"] and lines[2][-1] == "52%"
    assert not (tmp_path / "run").exists()
