"""Jobs and who does them: a folder with what is to be done, its log and how it ended; done in whatever process.

A job is done by this process (:class:`InProcess`), by a pool of processes (:mod:`pool`) or by SLURM (:mod:`slurm`);
the latter two are given the job's folder and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import cloudpickle

from robustdistiller.common.files import write_bytes, write_text

logger = logging.getLogger(__name__)

WORK_FILE, LOG_FILE, OUTCOME_FILE = "work.pkl", "log.txt", "outcome.json"
#: Made by work that tells its first attempt from one that was put back into a queue.
BEGUN_FILE = "begun"

#: Set when this process has to leave and the job will be begun again elsewhere: it has no outcome then.
LEAVING = threading.Event()


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: ``done`` or ``failed``.
        reason: of a failure, a sentence.
        wall_s: seconds it took.
        result: what the work returned, plain data.
    """

    state: str
    reason: str = ""
    wall_s: float = 0.0
    result: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Outcome:
        """Put it into a job's folder, at once or not at all."""
        write_text(folder / OUTCOME_FILE, json.dumps(asdict(self), indent=1))
        return self

    @classmethod
    def read(cls, folder: Path) -> Outcome | None:
        """The outcome in a job's folder; None where there is none that can be read."""
        try:
            return cls(**json.loads((folder / OUTCOME_FILE).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):  # TypeError: written by an older version
            return None


@dataclass(frozen=True, eq=False)
class Job:
    """A piece of work.

    Attributes:
        title: one line for the user.
        folder: of its files; two jobs never share one.
        work: called with the folder in the process that does the job; what it returns is JSON-able. It is pickled.
    """

    title: str
    folder: Path
    work: Callable[[Path], Mapping[str, Any] | None]

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder / LOG_FILE

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs, or when its process died."""
        return Outcome.read(self.folder)

    def clear(self) -> None:
        """Make its folder, without an outcome; the log of an earlier attempt is kept beside."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (OUTCOME_FILE, BEGUN_FILE):
            (self.folder / name).unlink(missing_ok=True)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.txt"))

    def write(self) -> None:
        """Put it into its folder, for another process to do."""
        self.clear()
        write_bytes(self.folder / WORK_FILE, cloudpickle.dumps(self.work))  # tasks may hold functions of the user's


class Engine(Protocol):
    """Does jobs. All methods are called from one thread.

    Attributes:
        slots: jobs that may run side by side, for estimates.
        poll_s: seconds to wait between looks.
        running: jobs that were begun and have not ended.
    """

    slots: int
    poll_s: float

    @property
    def running(self) -> Collection[Job]: ...

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """Begin some of these jobs, those first for which there is room, or find them running; returns those."""

    def poll(self) -> list[tuple[Job, Outcome]]:
        """Jobs that ended since the last look."""

    def stop(self) -> str:
        """End what runs, or say what goes on without us."""


def run_jobs(
    engine: Engine,
    jobs: Iterable[Job],
    ended: Callable[[Job, Outcome], Iterable[Job]] = lambda job, outcome: (),
    changed: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Do jobs, and those that their ends make possible.

    Args:
        engine: who does them.
        jobs: in the order in which they are begun.
        ended: called with each job that ended and how; returns further jobs.
        changed: called whenever something may have changed, several times a second.
        say: called with what goes on when this process is interrupted.

    Raises:
        KeyboardInterrupt: stopped; what ran was stopped too, or is named by `say`.
    """
    waiting = list(jobs)
    try:
        while waiting or engine.running:
            begun = engine.start(waiting) if waiting else []
            waiting = [job for job in waiting if job not in begun]
            changed()
            finished = engine.poll()
            for job, outcome in finished:
                waiting += ended(job, outcome)
            changed()
            if not begun and not finished:
                time.sleep(engine.poll_s)
    finally:
        if left := engine.stop():
            say(left)


def do_job(folder: Path) -> Outcome:
    """Do the work that lies in a job's folder and leave its outcome there."""
    return do_work(lambda _: pickle.loads((folder / WORK_FILE).read_bytes())(folder), folder)


def do_work(work: Callable[[Path], Mapping[str, Any] | None], folder: Path) -> Outcome:
    """Do work and leave its outcome in the job's folder.

    Whatever goes wrong becomes the outcome, except an interruption, which leaves none.
    """
    started_s = time.monotonic()
    try:
        result = dict(work(folder) or {})
        outcome = Outcome("done", result=result)
    except (Exception, SystemExit) as error:
        if LEAVING.is_set():
            raise
        logger.exception("%s failed", folder.name)
        said = str(error).strip() or "no message"
        ours = type(error).__module__.startswith("robustdistiller")
        outcome = Outcome("failed", said if ours else f"{type(error).__name__}: {said}")
    return replace(outcome, wall_s=round(time.monotonic() - started_s, 3)).write(folder)


class InProcess:
    """One job after the other in this process, its output in the job's log.

    Args:
        say: called with a line when a job begins.
    """

    slots, poll_s = 1, 0.0

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self._say = say
        self._ended: list[tuple[Job, Outcome]] = []

    @property
    def running(self) -> list[Job]:
        """Jobs whose end was not asked for yet."""
        return [job for job, _ in self._ended]

    def start(self, jobs: Sequence[Job]) -> list[Job]:
        """Do the first of these jobs."""
        job = jobs[0]
        job.clear()
        self._say(f"{job.title}: begun, its log is {job.log}")
        with captured(job.log):
            self._ended.append((job, do_work(job.work, job.folder)))
        return [job]

    def poll(self) -> list[tuple[Job, Outcome]]:
        """The job that was just done."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> str:
        """Nothing is left to stop."""
        return ""


@contextlib.contextmanager
def captured(log: Path) -> Iterator[None]:
    """Standard output, error and logging of this process go to the end of a log within the block."""
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    with log.open("a", encoding="utf-8", buffering=1) as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("[%(name)s] %(message)s"))
        root.handlers[:] = [handler]
        root.setLevel(logging.INFO)
        try:
            with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                yield
        finally:
            root.handlers[:] = before
            root.setLevel(level)
