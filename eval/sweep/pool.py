"""Jobs in processes of this machine, as many as devices and memory allow.

submitit's local executor does not fit here: it starts two interpreters for a job (three empty jobs take it 5 s, this
pool half a second), all jobs at once, and they are meant to outlive the process that started them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from robustdistiller.common.process import tail, usable_cores
from robustdistiller.eval.sweep.engine import Job, Outcome
from robustdistiller.eval.sweep.forks import Forks

_CGROUP = Path("/sys/fs/cgroup")


class Pool:
    """Processes on this machine.

    A process that dies without an outcome becomes a failure in one sentence. When this process dies, the others do too.

    Args:
        devices, workers, per_device, memory_gb, threads: see `config.ExecutorConfig`.
        free_memory_gb: gives the memory that is free now.
        grace_s: seconds that a process has to end itself when it is stopped.
        prepare: imports what most jobs need, once for all that run on the CPU, see `worker`.
    """

    poll_s = 0.2

    def __init__(
        self,
        devices: Sequence[str] = ("cpu",),
        workers: int = 0,
        per_device: int = 1,
        memory_gb: float = 0.0,
        threads: int = 1,
        free_memory_gb: Callable[[], float] | None = None,
        grace_s: float = 60.0,
        prepare: str = "",
    ) -> None:
        self._devices, self._memory_gb, self._grace_s = list(devices), memory_gb, grace_s
        self._free_gb = free_memory_gb or available_memory_gb
        cores = usable_cores()
        only_cpu = all(device == "cpu" for device in devices)
        most = workers or max(1, cores // threads)
        self.slots = most if only_cpu else min(most, len(devices) * per_device)
        if not workers and memory_gb:
            self.slots = max(1, min(self.slots, int(self._free_gb() // memory_gb)))
        self._threads = threads
        # A process that has met a GPU must not be forked, and s3prl looks for one as it is imported.
        self._forks = Forks(prepare if only_cpu else "", environment_of("cpu" if only_cpu else "", threads))
        self._running: dict[str, tuple[Job, str]] = {}

    @property
    def running(self) -> list[Job]:
        """Jobs whose processes have not ended."""
        return [job for job, _ in self._running.values()]

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """Begin jobs while there is a place and memory for them."""
        begun: list[Job] = []
        while len(begun) < len(jobs) and len(self._running) < self.slots and self._fits():
            self._begin(jobs[len(begun)])
            begun.append(jobs[len(begun)])
        return begun

    def _fits(self) -> bool:
        """Whether one more process fits, once those that run have grown to what they are expected to need."""
        if not self._running or not self._memory_gb:
            return True  # something always runs, however little memory there is
        held = (_memory_of(self._forks.pid_of(job)) for job in self.running)
        to_come = sum(max(0.0, self._memory_gb - one) for one in held)
        return self._free_gb() - to_come >= self._memory_gb

    def _begin(self, job: Job) -> None:
        job.write()
        job.log.touch()
        busy = [device for _, device in self._running.values()]
        device = min(self._devices, key=busy.count)
        self._running[str(job.folder)] = job, device
        self._forks.begin(job, environment_of(device, self._threads))

    def poll(self) -> list[tuple[Job, Outcome]]:
        """Jobs whose processes ended."""
        ended = []
        for folder, status in self._forks.ended().items():
            job, _ = self._running.pop(folder)
            ended.append((job, job.outcome or lost(job, died_of(status))))
        return ended

    def stop(self) -> str:
        """Ask all processes to end, and end those that do not; what has not begun yet does not begin."""
        self._forget(self._forks.ended())
        begun = [str(job.folder) for job in self.running if self._forks.pid_of(job)]
        self._forks.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._grace_s
        while any(folder in self._running for folder in begun) and time.monotonic() < deadline:
            time.sleep(0.05)
            self._forget(self._forks.ended())
        self._forks.signal(signal.SIGKILL)
        self._forks.close()
        self._running.clear()
        return ""

    def _forget(self, folders: Iterable[str]) -> None:
        for folder in folders:
            self._running.pop(folder, None)


def lost(job: Job, how: str) -> Outcome:
    """The outcome of a job whose process left none, in its folder too; `how` is e.g. ``was killed by signal 9``."""
    said = tail(job.log)
    last = f"; the last line of its log: {said[-1]}" if said else ""
    return Outcome("failed", f"its process {how}{last}").write(job.folder)


def died_of(status: int) -> str:
    """What an exit status without an outcome means."""
    if status < 0:
        known = {one.value: f", {one.name}" for one in signal.Signals}
        memory = " (out of memory?)" if status == -signal.SIGKILL else ""
        return f"was killed by signal {-status}{known.get(-status, '')}{memory}"
    return f"ended with status {status} before its work was done"


def environment_of(device: str, threads: int) -> dict[str, str]:
    """Environment of a process that works on one device: ``cuda:1`` is the only GPU it sees."""
    found = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        return {**found, "CUDA_VISIBLE_DEVICES": ""}
    if ":" in device:
        index, visible = int(device.split(":")[1]), os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name for name in visible.split(",") if name]
        found["CUDA_VISIBLE_DEVICES"] = names[index] if index < len(names) else str(index)
    return found


def available_memory_gb(cgroup: Path = _CGROUP) -> float:
    """Memory that can be had now, in GB: the machine's, and a container's limit where there is one."""
    free = psutil.virtual_memory().available / 1e9
    with contextlib.suppress(OSError, ValueError):  # ValueError: no limit, "max"
        limit, used = (int((cgroup / f"memory.{name}").read_text()) for name in ("max", "current"))
        counts = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        free = min(free, (limit - used + int(counts["inactive_file"])) / 1e9)  # the files' part can be given up
    return free


def _memory_of(pid: int | None) -> float:
    """What a process and its children hold, in GB; 0 of one that has not begun."""
    if pid is None:
        return 0.0
    held = 0
    with contextlib.suppress(psutil.Error):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                held += process.memory_info().rss
    return held / 1e9
