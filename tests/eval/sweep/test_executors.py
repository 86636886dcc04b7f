"""The pool of processes: side by side, within bounds, and honest about those that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustdistiller.eval.sweep import PoolExecutor, SweepConfig, TaskEntry, UpstreamEntry, jobs
from robustdistiller.eval.sweep.config import ExecutorConfig
from robustdistiller.eval.sweep.executors import environment, free_memory_gb
from robustdistiller.eval.sweep.jobs import Job, Outcome, newest_states
from tests.waiting import wait_until

FOLDER = Path(jobs.__file__).parent  # the worker alone is imported from here, without what a job needs
FINISH = "open('outcome.json', 'w').write('{\"state\": \"done\", \"wall_s\": 1.0}')"


class Pool(PoolExecutor):
    """Runs a line of Python in the job's folder instead of a job."""

    def command(self, job: Job) -> list[str]:
        return [sys.executable, "-c", f"import os, time; os.chdir({str(job.folder)!r}); {job.work['code']}"]


def pool(tmp_path: Path, memory=lambda: 100.0, **settings) -> Pool:
    upstreams, tasks = [UpstreamEntry("fbank")], [TaskEntry("IC")]
    executor = ExecutorConfig(kind="pool", **settings)
    return Pool(SweepConfig(out=str(tmp_path), upstreams=upstreams, tasks=tasks, executor=executor), memory)


def job(tmp_path: Path, name: str, code: str) -> Job:
    return Job("train", name, tmp_path / name, {"code": code})


def wait(executor: PoolExecutor, count: int) -> dict[str, Outcome]:
    ended: dict[str, Outcome] = {}

    def all_ended() -> bool:
        ended.update({one.title: outcome for one, outcome in executor.poll()})
        return len(ended) >= count

    wait_until(all_ended)
    return ended


def test_done_dead_and_unfinished_processes(tmp_path):
    executor = pool(tmp_path, workers=3)
    executor.submit(
        [
            job(tmp_path, "good", FINISH),
            job(tmp_path, "killed", "print('half way', flush=True); os.kill(os.getpid(), 9)"),
            job(tmp_path, "left", "raise SystemExit(3)"),
        ]
    )
    assert executor.room() == 0
    ended = wait(executor, 3)
    assert ended["good"].state == "done"
    assert ended["killed"].reason == (
        "its process was killed by signal 9, SIGKILL (out of memory?); the last line of its log: half way"
    )
    assert ended["left"].reason == "its process ended with status 3 before its work was done"
    assert Outcome.read(tmp_path / "killed") == ended["killed"], "the next start of the sweep knows it too"
    assert executor.room() == 1


def test_memory_and_devices_bound_the_pool(tmp_path):
    free = [9.0]
    executor = pool(tmp_path, lambda: free[0], devices=["cuda:0", "cuda:1"], per_device=2, memory_gb=1e-9)
    assert executor.slots <= 4
    assert pool(tmp_path, lambda: 9.0, workers=8, devices=["cuda:0", "cuda:1"]).slots == 2
    assert pool(tmp_path, lambda: 9.0, workers=8).slots == 8
    executor = pool(tmp_path, lambda: free[0], workers=2, memory_gb=4.0)
    free[0] = 1.0
    assert executor.room() == 1, "something always runs"
    executor.submit([job(tmp_path, "one", "time.sleep(900)")])
    assert executor.room() == 0
    free[0] = 5.0
    assert executor.room() == 1
    executor.stop()


def test_processes_are_spread_over_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    executor = pool(tmp_path, workers=2, devices=["cuda:0", "cuda:1"])
    show = "print('GPU', os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(0.3); " + FINISH
    executor.submit([job(tmp_path, "a", show), job(tmp_path, "b", show)])
    wait(executor, 2)
    assert [(tmp_path / name / "log.txt").read_text() for name in "ab"] == ["GPU 4\n", "GPU 7\n"]
    assert (
        environment("cuda", 1).get("CUDA_VISIBLE_DEVICES") is None
        and environment("cpu", 1)["CUDA_VISIBLE_DEVICES"] == ""
    )


def test_stop_ends_processes(tmp_path):
    executor = pool(tmp_path, workers=1)
    executor.submit([job(tmp_path, "long", "open('pid', 'w').write(str(os.getpid())); time.sleep(900)")])
    pid_file = tmp_path / "long" / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text())
    executor.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_worker_ends_when_its_sweep_was_killed(tmp_path):
    # The worker's own watching thread, with a job that would go on for a minute.
    worker = (
        f"import sys, threading, time; sys.path.insert(0, {str(FOLDER)!r}); import worker; print('up', flush=True); "
        "threading.Thread(target=worker._end_with_parent, daemon=True).start(); time.sleep(900)"
    )
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]], "
            "stdin=subprocess.PIPE, start_new_session=True); print(p.pid, flush=True); time.sleep(900)",
            worker,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    pid, up = int(parent.stdout.readline()), parent.stdout.readline()
    assert up == "up\n"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: _gone(pid) == "sleep no more")


def _gone(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "sleep no more"
    return "sleep no more" if state == "Z" else "running"


def test_half_a_checkpoint_is_left_out(tmp_path):
    for step in (4, 6):
        torch.save({"Step": step}, tmp_path / f"states-{step}.ckpt")
    assert newest_states(tmp_path) == (tmp_path / "states-6.ckpt", 6)
    whole = (tmp_path / "states-6.ckpt").read_bytes()
    (tmp_path / "states-6.ckpt").write_bytes(whole[: len(whole) // 2])
    assert newest_states(tmp_path) == (tmp_path / "states-4.ckpt", 4)
    (tmp_path / "states-4.ckpt").unlink()
    assert newest_states(tmp_path) is None


def test_free_memory_of_machine_and_container(tmp_path):
    proc = tmp_path / "meminfo"
    proc.write_text("MemTotal: 9 kB\nMemAvailable:    8000000 kB\n")
    assert free_memory_gb(proc, tmp_path) == pytest.approx(8.192)
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    assert free_memory_gb(proc, tmp_path) == 2.0
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_gb(proc, tmp_path) == pytest.approx(8.192)
    assert free_memory_gb(tmp_path / "none", tmp_path / "none") == float("inf")
