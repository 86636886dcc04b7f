"""A real sweep with s3prl on a toy corpus: killed, gone on with, and reused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.results.files import read_records
from tests.leftovers import leave_temporary_file
from tests.waiting import HANG_S, wait_until

NOISE = "noise:snr_db=5,noise=white"


@pytest.fixture
def sweep_file(tmp_path, toy_corpora, toy_student) -> Path:
    """Two upstreams, two conditions, two learning rates, four steps."""
    override = toy_corpora.build("IC", tmp_path / "corpus")
    data = {"file_path": override.pop("config.downstream_expert.datarc.file_path")}
    override |= {"runner.total_steps": 4, **{f"runner.{name}": 2 for name in ("eval_step", "save_step", "log_step")}}
    student = {"name": "robustdistiller_local", "checkpoint": str(toy_student), "label": "student"}
    settings = {
        "out": str(tmp_path / "out"),
        "upstreams": ["fbank", student],
        "tasks": [{"task": "IC", "data": data, "override": override}],
        "conditions": ["clean", NOISE],
        "learning_rates": ["1e-2", "1e-3"],
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def start(file: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "robustdistiller.cli", "sweep", str(file), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_killed_twice_and_gone_on_with(sweep_file, tmp_path):
    out = tmp_path / "out"
    first = start(sweep_file)
    wait_until(lambda: list(out.glob("jobs/*/*/lr-*/outcome.json")), first)
    os.kill(first.pid, signal.SIGKILL)  # at least one head is trained, another may be half trained
    said = first.communicate()[0]
    assert first.returncode == -signal.SIGKILL, said
    trained = {path: path.stat().st_mtime_ns for path in out.glob("jobs/*/*/lr-*/outcome.json")}
    assert trained and not list(out.glob("records/**/*.json"))

    left = leave_temporary_file(out / "jobs")
    second = start(sweep_file)
    said = second.communicate(timeout=HANG_S)[0]
    assert second.returncode == 0, said
    assert {path: path.stat().st_mtime_ns for path in trained} == trained, "finished heads are not trained again"
    assert not left.exists()
    assert f"4 cells to run, 0 not; {4 - len(trained)} heads to train" in said
    records = read_records(out / "records")
    assert sorted((r.label, r.condition) for r in records) == [
        (label, condition) for label in ("fbank", "student") for condition in ("clean", NOISE)
    ]
    for record in records:
        assert (record.status, record.items_scored, record.task) == ("ok", 3, "IC")
        assert [one["learning_rate"] for one in record.selection["tried"]] == [1e-2, 1e-3]
        assert all(one["dev_score"] is not None for one in record.selection["tried"])
        assert record.learning_rate == record.selection["learning_rate"]
    board = leaderboard([out], published=False)
    assert [row.name for row in board.rows] == ["student", "fbank"] and len(board.groups) == 1
    # Data and model are loaded once for all conditions of a head.
    (log,) = out.glob("jobs/fbank-none/*/evaluate/log.txt")
    assert log.read_text().count("downsample rate is 160") == 1

    third = start(sweep_file, "--dry-run")
    said = third.communicate(timeout=HANG_S)[0]
    assert third.returncode == 0 and said.count("reused: accuracy") == 4, said
    assert "0 cells to run, 4 not; 0 heads to train. Time: nothing to run." in said
