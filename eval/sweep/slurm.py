"""Jobs on SLURM: job arrays through submitit; they go on when the sweep that submitted them does not."""

from __future__ import annotations

import contextlib
import getpass
import io
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from robustdistiller.common.files import write_text
from robustdistiller.common.process import signals_deferred
from robustdistiller.eval.sweep.config import ExecutorConfig, SweepError
from robustdistiller.eval.sweep.engine import OUTCOME_FILE, Job, Outcome
from robustdistiller.eval.sweep.pool import lost
from robustdistiller.eval.sweep.worker import SlurmTask

#: In the folder of a job that SLURM has.
QUEUED_FILE = "slurm.json"
# What sbatch says where a user may have no more jobs in the queue for now, or no array of that size.
_LIMIT = re.compile(
    r"MaxSubmit|SubmitJobs?Limit|submit limit|MaxJobs|Invalid job array spec|temporarily", re.IGNORECASE
)


class Slurm:
    """Submits what is ready as job arrays, and watches the queue with one call of squeue at a time.

    Args:
        settings: of the sweep's file.
        folder: of submitit's files, seen by all nodes.
        say: called with one line when the cluster takes no more jobs for now, or does not answer.
        planned_s: `time.time` when the sweep looked at what there is; default: now.

    Raises:
        SweepError: submitit or SLURM's commands are missing, or an option is none of sbatch's.
    """

    poll_s = 2.0
    late_s = 15.0  # a job that left the queue may be ahead of its files on a shared disk
    retry_s = 60.0  # until a cluster that refused jobs is asked again, unless one of ours ends before

    def __init__(
        self,
        settings: ExecutorConfig,
        folder: Path,
        say: Callable[[str], None] = lambda line: None,
        planned_s: float | None = None,
    ) -> None:
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise SweepError("executor slurm needs submitit: pip install 'robustdistiller[slurm]'") from error
        missing = [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]
        if missing:
            raise SweepError(
                f"executor slurm needs SLURM's commands, and {', '.join(missing)} cannot be found here; "
                "start the sweep on a login node, or use executor kind pool"
            )
        self.slots, self._most, self._say = settings.array_parallelism, settings.max_queued, say
        folder.mkdir(parents=True, exist_ok=True)
        self._submitit = submitit.AutoExecutor(
            folder=str(folder), cluster="slurm", slurm_max_num_timeout=settings.max_requeues
        )
        threads = settings.threads
        options = {
            "slurm_partition": settings.partition,
            "slurm_account": settings.account,
            "slurm_qos": settings.qos,
            "slurm_constraint": settings.constraint,
            "mem_gb": settings.memory_gb or None,
            "gpus_per_node": settings.gpus or None,
        }
        self._submitit.update_parameters(
            name="robustdistiller",
            timeout_min=settings.time_limit_min,
            cpus_per_task=threads,
            slurm_array_parallelism=settings.array_parallelism,
            slurm_setup=[f"export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}", *settings.setup],
            slurm_additional_parameters={"requeue": True, **settings.slurm},
            **{name: value for name, value in options.items() if value is not None},
        )
        self._running: dict[Path, tuple[Job, str]] = {}
        self._ours: set[str] = set()  # in the queue at the last look; a job that is done may still be leaving
        self._gone_s: dict[Path, float] = {}
        self._planned_s = time.time() if planned_s is None else planned_s
        self._refused_s: float | None = None
        self._said: set[str] = set()

    @property
    def running(self) -> list[Job]:
        """Jobs that are in the queue or run."""
        return [job for job, _ in self._running.values()]

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """Follow those of the jobs that an earlier sweep submitted, and submit what the cluster takes of the others."""
        begun = []
        known = {job.folder: job_id for job in jobs if (job_id := _note(job)) is not None}
        if known:
            queued = self._queue()
            if queued is None:
                return []  # SLURM does not answer: to submit now could be to submit twice
            for job in jobs:
                if job.folder in known and (self._ended_meanwhile(job) or known[job.folder] in queued):
                    self._follow(job, known[job.folder])
                    begun.append(job)
        new = [job for job in jobs if job not in begun]
        new = new[: self._room(len(new))]
        return [*begun, *new[: self._submit(new)]]

    def _ended_meanwhile(self, job: Job) -> bool:
        """Whether a job of an earlier sweep ended after this one was planned, without knowing of it."""
        path = job.folder / OUTCOME_FILE
        return path.exists() and path.stat().st_mtime >= self._planned_s

    def _room(self, wanted: int) -> int:
        if self._refused_s is not None and time.monotonic() - self._refused_s < self.retry_s:
            return 0
        return max(0, min(wanted, self._most - len(self._ours))) if self._most else wanted

    def _submit(self, jobs: Sequence[Job]) -> int:
        """Submit jobs as one array, or fewer of them where the cluster takes no more; returns how many."""
        for job in jobs:
            job.write()
        count = len(jobs)
        with signals_deferred():  # what was submitted is noted, or the next start would submit it again
            submitted = []
            while count and not submitted:
                try:
                    with contextlib.redirect_stderr(io.StringIO()), self._submitit.batch():
                        submitted = [self._submitit.submit(SlurmTask(str(job.folder))) for job in jobs[:count]]
                except Exception as error:
                    said = str(error).strip().splitlines() or [type(error).__name__]
                    if not any(map(_LIMIT.search, said)):
                        raise SweepError(f"sbatch refused the jobs: {said[-1]}") from error
                    self._say_once(
                        f"The cluster takes no more jobs for now ({said[-1]}): the others are submitted later"
                    )
                    submitted, count = [], count // 2
            self._refused_s = None if count == len(jobs) else time.monotonic()
            for job, one in zip(jobs, submitted):
                write_text(job.folder / QUEUED_FILE, json.dumps({"job_id": one.job_id}))
                self._follow(job, one.job_id)
        return count

    def _follow(self, job: Job, job_id: str) -> None:
        self._running[job.folder] = job, job_id
        self._ours.add(job_id)

    def poll(self) -> list[tuple[Job, Outcome]]:
        """Jobs that left an outcome, or left the queue without one."""
        ended = []
        queued = self._queue() if self._ours else set()
        if queued is not None:
            self._ours &= queued | {job_id for _, job_id in self._running.values()}
        for folder, (job, job_id) in list(self._running.items()):
            outcome = job.outcome
            if outcome is None and queued is not None and job_id not in queued:
                first_s = self._gone_s.setdefault(folder, time.monotonic())
                if time.monotonic() - first_s > self.late_s:
                    outcome = job.outcome or lost(job, f"left SLURM's queue (job {job_id}{_state_of(job_id)})")
            elif outcome is None:
                self._gone_s.pop(folder, None)
            if outcome is not None:
                del self._running[folder]
                (folder / QUEUED_FILE).unlink(missing_ok=True)
                self._refused_s = None
                ended.append((job, outcome))
        return ended

    def stop(self) -> str:
        """Jobs stay where they are."""
        if not self._running:
            return ""
        numbers = sorted({job_id.split("_")[0] for _, job_id in self._running.values()}, key=int)
        return (
            f"{len(self._running)} jobs stay in SLURM's queue: the same command again follows them, "
            f"`scancel {' '.join(numbers)}` ends them"
        )

    def _queue(self) -> set[str] | None:
        """The user's jobs in the queue; None when SLURM does not answer."""
        command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"squeue ended with status {done.returncode}"])[-1]
            self._say_once(f"SLURM does not answer ({said}): asking again")
            return None
        return set(done.stdout.split())

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def _note(job: Job) -> str | None:
    """The number under which a job was submitted; None when it was not, or has ended."""
    try:
        return json.loads((job.folder / QUEUED_FILE).read_text(encoding="utf-8"))["job_id"]
    except FileNotFoundError:
        return None


def _state_of(job_id: str) -> str:
    """How SLURM says a job ended, e.g. ``, OUT_OF_MEMORY``; empty when it has forgotten."""
    command = ["scontrol", "--oneliner", "show", "job", job_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    return f", {words['JobState']}" if "JobState" in words else ""
