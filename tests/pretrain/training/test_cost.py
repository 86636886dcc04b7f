"""What a run says its encoders cost, and how much of its time goes into waiting for data."""

from __future__ import annotations

import json
import time
from pathlib import Path

import typer
from typer.testing import CliRunner

from robustdistiller.cli.distill import distill as distill_command
from robustdistiller.pretrain import distill
from robustdistiller.pretrain.data.dataset import SpeechBatches
from robustdistiller.pretrain.training.log import read_history

from ..conftest import run_overrides


def test_size_and_work_are_said_and_written(make_config, tmp_path: Path, caplog) -> None:
    with caplog.at_level("INFO"):
        distill(make_config(tmp_path, "trainer.max_steps=1"))
    report = json.loads((tmp_path / "cost.json").read_text())
    assert report["student"]["parameters_used"] == 14_896
    said = [record.getMessage().split() for record in caplog.records]
    smaller = [line[0] for line in said if line[:1] in (["encoder"], ["student"]) and line[-2:-1] == ["52%"]]
    assert smaller == ["student"]


def test_waiting_for_data_is_told(make_config, tmp_path: Path, monkeypatch) -> None:
    read = SpeechBatches.__getitem__

    def slow(self, request):
        time.sleep(0.5)
        return read(self, request)

    distill(make_config(tmp_path / "fast", "trainer.max_steps=4", "trainer.log_every_steps=4"))
    monkeypatch.setattr(SpeechBatches, "__getitem__", slow)
    distill(make_config(tmp_path / "slow", "trainer.max_steps=4", "trainer.log_every_steps=4"))
    fast, slow = (read_history(tmp_path / name / "history.csv")[0]["data_wait"] for name in ("fast", "slow"))
    assert 0 <= fast < slow <= 1 and slow > 0.5


def test_command_prints_the_cost_without_training(corpus, teacher_path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(distill_command)
    arguments = ["robustdistiller", *run_overrides(corpus, teacher_path, tmp_path / "run"), "--cost"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines[:3]] == ["encoder", "teacher", "student"] and lines[2][-2] == "52%"
    assert not (tmp_path / "run").exists()
