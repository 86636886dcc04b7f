"""Real sweeps with s3prl on toy corpora: killed, gone on with, reused, on a SLURM of scripts, and as a function."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.sweep import Sweep, load, sweep
from robustdistiller.eval.sweep.view import summary
from tests.leftovers import leave_temporary_file
from tests.slurm.fake import FakeSlurm
from tests.waiting import HANG_S, wait_until

NOISE = "noise:snr_db=5,noise=white"


@pytest.fixture
def sweep_file(tmp_path, toy_corpora, toy_student):
    """Makes a file: two conditions, two learning rates, a few steps."""

    def make(task: str = "IC", steps: int = 4, every: int = 2, out: str = "out", **settings) -> Path:
        override = toy_corpora.build(task, tmp_path / f"corpus-{task}")
        override |= {"runner.total_steps": steps}
        override |= {f"runner.{name}": every for name in ("eval_step", "save_step", "log_step")}
        student = {"name": "robustdistiller_local", "checkpoint": str(toy_student), "label": "student"}
        data = {
            "out": str(tmp_path / out),
            "upstreams": ["fbank", student],
            "tasks": [{"task": task, "override": override}],
            "conditions": ["clean", NOISE],
            "learning_rates": ["1e-2", "1e-3"],
            "device": "cpu",
        }
        path = tmp_path / f"{out}.yaml"
        path.write_text(yaml.safe_dump({**data, **settings}))
        return path

    return make


def start(file: Path, *options: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "robustdistiller.cli", "sweep", str(file), *options]
    env = {**os.environ, **environment}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def numbers(out: Path) -> dict[tuple, tuple]:
    """By cell: what was measured, and with which head."""
    return {
        (r.label, r.condition): (r.main_metric.value, r.head_digest, r.learning_rate, r.step, r.layer_weights)
        for r in read_records(out)
    }


def test_killed_twice_and_gone_on_with(sweep_file, tmp_path):
    out, file = tmp_path / "out", sweep_file()
    first = start(file)
    wait_until(lambda: list(out.glob("jobs/*/*/lr-*/outcome.json")), first)
    os.kill(first.pid, signal.SIGKILL)  # at least one head is trained, another may be half trained
    said = first.communicate()[0]
    assert first.returncode == -signal.SIGKILL, said
    trained = {path: path.stat().st_mtime_ns for path in out.glob("jobs/*/*/lr-*/outcome.json")}
    assert trained and not list(out.glob("records/**/*.json"))

    left = leave_temporary_file(out / "jobs")
    second = Sweep(load(file))
    assert f"4 cells to run, 0 not; {4 - len(trained)} heads to train" in summary(second)
    assert second.run().failures == []
    assert {path: path.stat().st_mtime_ns for path in trained} == trained, "finished heads are not trained again"
    assert not left.exists()
    records = read_records(out)
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

    third = Sweep(load(file))
    assert sum("reused: accuracy" in line for line in third.lines()) == 4
    assert summary(third) == "0 cells to run, 4 not; 0 heads to train. Time: nothing to run."


def test_a_sweep_that_was_killed_ends_with_the_numbers_of_one_that_never_was(sweep_file, tmp_path):
    """And those of processes are those of this process, whose CPU threads are others."""
    few = {"steps": 60, "every": 2, "learning_rates": [1e-2], "upstreams": ["fbank"], "check_upstreams": False}
    before = torch.get_num_threads()
    torch.set_num_threads(before + 2)
    sweep(sweep_file("SID", out="whole", **few))
    assert torch.get_num_threads() == before + 2
    torch.set_num_threads(before)
    few["executor"] = {"kind": "pool", "workers": 1, "memory_gb": 0}
    killed = sweep_file("SID", out="killed", **few)
    first = start(killed)
    wait_until(lambda: list((tmp_path / "killed").glob("heads/*/*/*/states-*.ckpt")), first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    (log,) = (tmp_path / "killed").glob("jobs/*/*/lr-0.01/log.txt")
    wait_until(lambda: not working(log.parent))
    assert not (log.parent / "outcome.json").exists(), "it was killed while it trained"
    again = sweep(killed)
    assert again.failures == []
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


def working(folder: Path) -> bool:
    """Whether a process still writes the log of a job."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(file.path == str(folder / "log.txt") for file in process.open_files()):
                return True
    return False


def test_a_sweep_on_slurm_goes_on_without_the_one_who_started_it(sweep_file, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install -e '.[slurm]'")
    cluster = FakeSlurm(tmp_path / "cluster")
    executor = {"kind": "slurm", "partition": "short", "time_limit_min": 60, "memory_gb": 0.5}
    file, out = sweep_file(upstreams=["fbank"], executor=executor, check_upstreams=False), tmp_path / "out"
    try:
        cluster.set("hold", 1)
        first = start(file, PATH=cluster.path)
        wait_until(lambda: len(list(out.glob("jobs/*/*/lr-*/slurm.json"))) == 2, first)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        cluster.set("silent", 2)
        cluster.set("hold", None)
        second = start(file, PATH=cluster.path)
        said = second.communicate(timeout=HANG_S)[0]
        assert second.returncode == 0, said
        assert len(cluster.calls("sbatch")) == 2, "one array of trainings, followed, and one evaluation"
    finally:
        cluster.close()
    assert [(r.condition, r.status) for r in read_records(out)] == [("clean", "ok"), (NOISE, "ok")]


def test_a_quick_look_has_a_label_of_its_own(sweep_file):
    found = sweep(sweep_file(upstreams=["fbank"], conditions=["clean"], quick={"share": 0.5, "steps": 3}))
    assert found.failures == []
    (record,) = found.records
    assert record.quick == "quick: 50 % of items, 3 steps" and record.items_scored < 3
    full = sweep(sweep_file(upstreams=["fbank"], conditions=["clean"]))
    assert [one.quick for one in full.records] == [""] and full.records[0].items_scored == 3
