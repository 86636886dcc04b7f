"""Who does the work: this process, or a pool of processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from robustdistiller.common.logs import tail
from robustdistiller.eval.sweep.config import SweepConfig
from robustdistiller.eval.sweep.jobs import Job, Outcome, captured, run_job

_GRACE_S = 10.0


class Executor(Protocol):
    """Runs jobs. All methods are called from one thread.

    Attributes:
        slots: jobs that run side by side, for estimates.
        poll_s: seconds to wait between looks.
    """

    slots: int
    poll_s: float

    def room(self) -> int:
        """How many jobs it would take now."""

    def submit(self, jobs: Sequence[Job]) -> None:
        """Begin jobs, at most `room` of them."""

    def poll(self) -> list[tuple[Job, Outcome]]:
        """Jobs that ended since the last look."""

    def adopt(self, job: Job) -> bool:
        """Whether the job still runs from an earlier start of the sweep, and is now watched."""

    def stop(self) -> str:
        """End what runs, or say what goes on without us."""


class LocalExecutor:
    """One job after the other in this process, its output in the job's log."""

    slots, poll_s = 1, 0.0

    def __init__(self) -> None:
        self._ended: list[tuple[Job, Outcome]] = []

    def room(self) -> int:
        return 0 if self._ended else 1

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.write()
            with captured(job.log):
                outcome = run_job(job.folder)
            self._ended.append((job, outcome))

    def poll(self) -> list[tuple[Job, Outcome]]:
        ended, self._ended = self._ended, []
        return ended

    def adopt(self, job: Job) -> bool:
        return False

    def stop(self) -> str:
        return ""


class PoolExecutor:
    """Processes on this machine, as many as devices and memory allow.

    A process that dies without an outcome becomes a failure in one sentence. When this process dies, the others notice
    that their standard input is closed, and end.

    Args:
        sweep: for its executor's settings.
        memory: gives the memory that is free now, in GB.
    """

    poll_s = 0.2

    def __init__(self, sweep: SweepConfig, memory=None) -> None:
        settings = sweep.executor
        self._devices = settings.devices or [sweep.device]
        self._memory_gb, self._free = settings.memory_gb, memory or free_memory_gb
        cores = usable_cores()
        by_device = len(self._devices) * settings.per_device
        if settings.workers:
            only_cpu = all(device == "cpu" for device in self._devices)
            self.slots = settings.workers if only_cpu else min(settings.workers, by_device)
        else:
            fitting = int(self._free() // self._memory_gb) if self._memory_gb else by_device
            self.slots = max(1, min(by_device, fitting, cores))
        self._threads = settings.threads or max(1, cores // self.slots)
        self._running: dict[Path, tuple[Job, subprocess.Popen, str]] = {}

    def command(self, job: Job) -> list[str]:
        """What a process runs."""
        return [sys.executable, "-m", "robustdistiller.eval.sweep.worker", str(job.folder)]

    def room(self) -> int:
        if len(self._running) >= self.slots:
            return 0
        if self._running and self._memory_gb and self._free() < self._memory_gb:
            return 0  # something always runs, however little memory there is
        return 1  # one at a time, so that memory is looked at between two starts

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.write()
            busy = [device for _, _, device in self._running.values()]
            device = min(self._devices, key=busy.count)
            with job.log.open("w", encoding="utf-8") as stream:
                process = subprocess.Popen(
                    self.command(job),
                    stdin=subprocess.PIPE,  # its end tells the process that we are gone
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches this process only
                    env={**os.environ, **environment(device, self._threads)},
                )
            self._running[job.folder] = job, process, device

    def poll(self) -> list[tuple[Job, Outcome]]:
        ended = []
        for folder, (job, process, _) in list(self._running.items()):
            if process.poll() is not None:
                del self._running[folder]
                process.stdin.close()
                ended.append((job, job.outcome or lost(job, died_of(process.returncode))))
        return ended

    def adopt(self, job: Job) -> bool:
        return False

    def stop(self) -> str:
        processes = [process for _, process, _ in self._running.values()]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in processes:
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
            deadline = time.monotonic() + _GRACE_S
            while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
                time.sleep(0.05)
        self._running.clear()
        return ""


def lost(job: Job, how: str) -> Outcome:
    """The outcome of a job whose process left none; written into its folder.

    Args:
        job: the job.
        how: e.g. ``was killed by signal 9``.
    """
    said = tail(job.log)
    outcome = Outcome("failed", f"its process {how}" + (f"; the last line of its log: {said[-1]}" if said else ""))
    outcome.write(job.folder)
    return outcome


def died_of(status: int) -> str:
    """What an exit status without an outcome means.

    Example:
        >>> died_of(-9)
        'was killed by signal 9, SIGKILL (out of memory?)'
        >>> died_of(3)
        'ended with status 3 before its work was done'
    """
    if status < 0:
        try:
            name = f", {signal.Signals(-status).name}"
        except ValueError:
            name = ""
        return f"was killed by signal {-status}{name}" + (" (out of memory?)" if status == -signal.SIGKILL else "")
    return f"ended with status {status} before its work was done"


def environment(device: str, threads: int) -> dict[str, str]:
    """Environment of a process that works on one device: ``cuda:1`` is the only GPU it sees.

    Example:
        >>> environment("cpu", 2)["OMP_NUM_THREADS"], environment("cpu", 2)["CUDA_VISIBLE_DEVICES"]
        ('2', '')
    """
    found = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        return {**found, "CUDA_VISIBLE_DEVICES": ""}
    if ":" in device:
        index, visible = int(device.split(":")[1]), os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name for name in visible.split(",") if name]
        found["CUDA_VISIBLE_DEVICES"] = names[index] if index < len(names) else str(index)
    return found


def usable_cores() -> int:
    """CPU cores this process may use.

    Example:
        >>> usable_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_gb(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that can be had now, in GB: the machine's, and a container's limit where there is one.

    Where neither is known, infinity.

    Example:
        >>> free_memory_gb() > 0
        True
    """
    free = float("inf")
    with contextlib.suppress(OSError, StopIteration, ValueError):
        line = next(line for line in proc.read_text().splitlines() if line.startswith("MemAvailable:"))
        free = int(line.split()[1]) * 1024 / 1e9
    with contextlib.suppress(OSError, ValueError):  # ValueError: no limit, "max"
        limit = int((cgroup / "memory.max").read_text())
        free = min(free, (limit - int((cgroup / "memory.current").read_text())) / 1e9)
    return free
