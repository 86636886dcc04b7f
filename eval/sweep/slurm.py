"""SLURM as an executor: job arrays through submitit; jobs go on when the sweep that submitted them does not."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustdistiller.eval.sweep import jobs as jobs_module
from robustdistiller.eval.sweep.config import SweepConfig
from robustdistiller.eval.sweep.errors import SweepError
from robustdistiller.eval.sweep.executors import lost
from robustdistiller.eval.sweep.jobs import Job, Outcome, captured, run_job

_NOTE = "slurm.json"
# A job that left the queue may be ahead of its files on a shared disk.
_LATE_S = 15.0


class SlurmTask:
    """What runs on a node; submitit calls `checkpoint` when the job's time is up or it is preempted.

    Args:
        folder: of the job.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self) -> str:
        folder = Path(self.folder)
        with captured(folder / jobs_module.LOG_FILE):
            return run_job(folder).state

    def checkpoint(self) -> Any:
        """The same job again: a head goes on from its last checkpoint, an evaluation with its next condition."""
        from submitit.helpers import DelayedSubmission

        jobs_module.LEAVING.set()
        folder = Path(self.folder)
        job = Job.read(folder)
        if job.fresh:  # begun anew already
            jobs_module.write_json(folder / jobs_module.JOB_FILE, {**job.to_dict(), "fresh": False})
        return DelayedSubmission(SlurmTask(self.folder))


class SlurmExecutor:
    """Submits what is ready as one job array, and watches the queue.

    Args:
        sweep: for its executor's settings.

    Raises:
        SweepError: submitit or SLURM's commands are missing, or an option is none of sbatch's.
    """

    poll_s = 2.0

    def __init__(self, sweep: SweepConfig) -> None:
        settings = sweep.executor
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise SweepError("executor slurm needs submitit: pip install submitit") from error
        missing = [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]
        if missing:
            raise SweepError(
                f"executor slurm needs SLURM's commands, and {', '.join(missing)} cannot be found here; "
                "start the sweep on a login node, or use executor kind pool"
            )
        self.slots = settings.array_parallelism
        folder = sweep.root / "jobs" / "slurm"
        folder.mkdir(parents=True, exist_ok=True)
        self._submitit = submitit.AutoExecutor(
            folder=str(folder), cluster="slurm", slurm_max_num_timeout=settings.max_requeues
        )
        threads = settings.threads or 1
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
        self._gone: dict[Path, float] = {}

    def room(self) -> int:
        return 1_000_000

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.write()
        try:
            with self._submitit.batch():
                submitted = [self._submitit.submit(SlurmTask(str(job.folder))) for job in jobs]
        except Exception as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines()
            raise SweepError(f"sbatch refused the jobs: {said[-1] if said else type(error).__name__}") from error
        for job, one in zip(jobs, submitted):
            jobs_module.write_json(job.folder / _NOTE, {"job_id": one.job_id})
            self._running[job.folder] = job, one.job_id

    def poll(self) -> list[tuple[Job, Outcome]]:
        ended = []
        queued = queue() if self._running else {}
        for folder, (job, job_id) in list(self._running.items()):
            outcome = job.outcome
            if outcome is None and queued is not None and job_id not in queued:
                first = self._gone.setdefault(folder, time.monotonic())
                if time.monotonic() - first > _LATE_S:
                    outcome = job.outcome or lost(job, f"left SLURM's queue (job {job_id}{state_of(job_id)})")
            elif outcome is None:
                self._gone.pop(folder, None)
            if outcome is not None:
                del self._running[folder]
                ended.append((job, outcome))
        return ended

    def adopt(self, job: Job) -> bool:
        note = job.folder / _NOTE
        if not note.is_file() or job.outcome is not None:
            return False
        job_id = json.loads(note.read_text(encoding="utf-8"))["job_id"]
        if job_id not in (queue() or {}):
            return False
        self._running[job.folder] = job, job_id
        return True

    def stop(self) -> str:
        if not self._running:
            return ""
        numbers = sorted({job_id.split("_")[0] for _, job_id in self._running.values()}, key=int)
        return (
            f"{len(self._running)} jobs stay in SLURM's queue: the same command again follows them, "
            f"`scancel {' '.join(numbers)}` ends them"
        )


def queue() -> dict[str, str] | None:
    """State of each of the user's jobs in the queue, by job id; None when SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())


def state_of(job_id: str) -> str:
    """How SLURM says a job ended, e.g. ``, OUT_OF_MEMORY``; empty when it has forgotten."""
    command = ["scontrol", "--oneliner", "show", "job", job_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = dict(word.split("=", 1) for word in done.stdout.split() if "=" in word)
    return f", {words['JobState']}" if "JobState" in words else ""
