"""Emotion recognition: a sweep trains and scores one head for each fold."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.report.tables import clean_grid
from robustdistiller.eval.results.files import read_records


@pytest.mark.usefixtures("bridge")
def test_a_sweep_runs_all_folds(tmp_path, toy_corpora):
    override = toy_corpora.build("ER", tmp_path / "corpus")
    data = {name: override.pop(f"config.downstream_expert.datarc.{name}") for name in ("root", "meta_data")}
    override |= {f"runner.{name}": 1 for name in ("total_steps", "eval_step", "save_step", "log_step")}
    settings = {
        "out": str(tmp_path / "out"),
        "upstreams": ["fbank"],
        "tasks": [{"task": "ER", "data": data, "override": override}],
        "learning_rates": ["1e-3"],
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(app, ["sweep", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "5 cells to run, 0 not; 5 heads to train" in result.output
    records = read_records(tmp_path / "out" / "records")
    assert sorted(record.fold for record in records) == [f"fold{n}" for n in range(1, 6)]
    assert len({record.rules_digest for record in records}) == 1, "folds share their configuration"
    tested = {record.fold: list((tmp_path / "out").rglob(f"test_{record.fold}_predict.txt")) for record in records}
    for fold, (predictions,) in tested.items():
        lines = predictions.read_text().split()
        assert lines and all(f"Session{fold[-1]}" in name or f"Ses0{fold[-1]}" in name for name in lines[::2])
    grid = clean_grid(leaderboard([tmp_path / "out"], published=False))
    mean = sum(record.main_metric.value for record in records) / 5
    items = sum(record.items_scored for record in records)
    assert grid.rows[0][3].split() == [f"{mean:.2f}", "‡"] and grid.header[3] == f"ER ({items} items)"
    assert any(f"the test set has {items} items, not 5531" in note for note in grid.notes)
    assert not any("items" in phrase for record in records for phrase in record.non_standard), "a fold is no test set"
    again = CliRunner().invoke(app, ["sweep", str(file), "--dry-run"], catch_exceptions=False)
    assert "0 cells to run, 5 not" in again.output
