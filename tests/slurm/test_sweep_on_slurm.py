"""A sweep on a real SLURM of one node: job arrays, a killed sweep, a preempted job. `pytest -m slow tests/slurm`."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from robustdistiller.eval.check import toy_corpora
from robustdistiller.eval.results.files import read_records

pytestmark = pytest.mark.slow

STEPS = 400


def module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


one_node = module(Path(__file__).with_name("one_node.py"))


@pytest.fixture
def slurm():
    if reason := one_node.why_not():
        pytest.skip(reason)
    with one_node.one_node() as environment:
        yield {**environment, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    override = toy_corpora.build("IC", tmp_path / "corpus")
    data = {"file_path": override.pop("config.downstream_expert.datarc.file_path")}
    override |= {f"runner.{name}": 20 for name in ("eval_step", "save_step", "log_step")}
    settings = {
        "out": str(tmp_path / "out"),
        "upstreams": ["fbank"],
        "tasks": [{"task": "IC", "data": data, "override": {**override, "runner.total_steps": STEPS}}],
        "conditions": ["clean", "noise:noise=white,snr_db=5"],
        "learning_rates": [1e-2, 1e-3],
        "executor": {"kind": "slurm", "partition": "short", "time_limit_min": 60, "memory_gb": 0.5},
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def start(file: Path, environment: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "robustdistiller.cli", "sweep", str(file)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(what: Callable[[], object], seconds: float = 900.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.5)
    raise AssertionError("nothing happened in time")


def test_arrays_a_killed_sweep_and_a_preempted_job(slurm, sweep, tmp_path):
    out = tmp_path / "out"
    first = start(sweep, slurm)
    # Both heads are one array; wait until one of them has something to go on from, then kill the sweep.
    states = wait_for(lambda: sorted(out.glob("heads/*/*/*/states-*.ckpt")) or first.poll() is not None)
    assert states is not True, first.communicate()[0]
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    notes = {p.parent: json.loads(p.read_text())["job_id"] for p in out.glob("jobs/*/*/lr-*/slurm.json")}
    assert len(notes) == 2 and len({job_id.split("_")[0] for job_id in notes.values()}) == 1, notes

    # Preempt that head's job: it is put back into the queue and goes on from its last checkpoint.
    head = states[0].parent
    (job_id,) = [job_id for folder, job_id in notes.items() if folder.name == head.name]
    subprocess.run(["scancel", "--signal=USR2", job_id], env=slurm, check=True)

    second = start(sweep, slurm)
    said = second.communicate(timeout=900)[0]
    assert second.returncode == 0, said
    # The jobs of the killed sweep were followed, not submitted again: a look at the upstream, trainings, evaluation.
    submitted = {path.name.split("_")[0] for path in out.glob("jobs/slurm/*_submitted.pkl")}
    assert len(submitted) == 3 and {job_id.split("_")[0] for job_id in notes.values()} <= submitted
    records = read_records(out)
    assert sorted(record.condition for record in records) == ["clean", "noise:snr_db=5,noise=white"]
    assert all(record.status == "ok" for record in records)
    tried = {one["learning_rate"]: one for one in records[0].selection["tried"]}
    assert set(tried) == {1e-2, 1e-3} and all(one["dev_score"] is not None for one in tried.values())
    (resumed,) = tried[float(head.name.removeprefix("lr-"))]["resumed_at"]
    assert 0 < resumed < STEPS

    third = start(sweep, slurm)
    said = third.communicate(timeout=300)[0]
    assert third.returncode == 0 and "0 cells to run, 2 not; 0 heads to train" in said
