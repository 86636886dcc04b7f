"""Jobs of a sweep: a folder with what is to be done, its log and its outcome; run in whatever process."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from robustdistiller.common.files import write_text
from robustdistiller.eval.run.launcher import launch
from robustdistiller.upstream.contract import check_upstream, require

logger = logging.getLogger(__name__)

JOB_FILE, LOG_FILE, OUTCOME_FILE, RESUMED_FILE = "job.json", "log.txt", "outcome.json", "resumed.json"

#: Set when this process has to leave and the job will be begun again elsewhere: it has no outcome then.
LEAVING = threading.Event()


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Attributes:
        kind: ``contract``, ``train`` or ``evaluate``.
        title: for people.
        folder: of its files; two jobs never share one.
        work: what is to be done, plain data; see `perform`.
        fresh: begin anew even where there is something to go on from.
    """

    kind: str
    title: str
    folder: Path
    work: dict[str, Any] = field(default_factory=dict)
    fresh: bool = False

    def write(self) -> None:
        """Put it into its folder, without an outcome; the log of an earlier attempt is kept beside."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / OUTCOME_FILE).unlink(missing_ok=True)
        log = self.folder / LOG_FILE
        if log.exists():
            log.replace(log.with_suffix(".previous.txt"))
        write_json(self.folder / JOB_FILE, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The job of a folder."""
        data = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
        return cls(**{**data, "folder": folder})

    @property
    def log(self) -> Path:
        """Its log."""
        return self.folder / LOG_FILE

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs, or when its process died."""
        return Outcome.read(self.folder)


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: ``done`` or ``failed``.
        reason: of a failure, a sentence.
        wall_s: seconds it took.
        work_done: steps trained, for estimates.

    Example:
        >>> Outcome("done", wall_s=3.0).state
        'done'
    """

    state: str
    reason: str = ""
    wall_s: float = 0.0
    work_done: int = 0

    def write(self, folder: Path) -> None:
        """Put it into a job's folder, atomically."""
        write_json(folder / OUTCOME_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Outcome | None:
        """The outcome in a job's folder."""
        try:
            return cls(**json.loads((folder / OUTCOME_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def run_job(folder: Path) -> Outcome:
    """Do the work of a job's folder and leave its outcome there.

    Whatever goes wrong becomes the outcome, except an interruption, which leaves none.
    """
    job, started = Job.read(folder), time.monotonic()
    steps = 0
    try:
        steps = perform(job)
        outcome = Outcome("done", "", round(time.monotonic() - started, 3), steps)
    except (Exception, SystemExit) as error:
        if LEAVING.is_set():
            raise
        logger.exception("%s failed", job.title)
        said = str(error).strip() or "no message"
        reason = said if type(error).__module__.startswith("robustdistiller") else f"{type(error).__name__}: {said}"
        outcome = Outcome("failed", reason, round(time.monotonic() - started, 3), steps)
    outcome.write(folder)
    return outcome


def perform(job: Job) -> int:
    """Do a job's work in this process; returns the number of training steps.

    ``contract``: `name`, `checkpoint`, `options`, `device`. ``train``: `arguments` of the launcher for a new head,
    `options` for any, `config` of the head, its `folder`, `total_steps`. ``evaluate``: `calls`, each the launcher's
    arguments.
    """
    work = job.work
    if job.kind == "contract":
        findings = check_upstream(work["name"], work["checkpoint"], work["options"], work["device"])
        write_json(job.folder / "findings.json", [asdict(finding) for finding in findings])
        require(findings)
        return 0
    if job.kind == "train":
        return _train(job)
    errors = []
    for call in work["calls"]:
        try:
            launch(call)
        except Exception as error:
            logger.exception("%s failed", " ".join(call))
            errors.append(error)
    if errors:
        raise errors[0]
    return 0


def _train(job: Job) -> int:
    folder, total = Path(job.work["folder"]), job.work["total_steps"]
    found = None if job.fresh else newest_states(folder)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
        (job.folder / RESUMED_FILE).unlink(missing_ok=True)
        folder.mkdir(parents=True)
        config = folder / "head.yaml"
        config.write_text(yaml.safe_dump(job.work["config"], sort_keys=False), encoding="utf-8")
        launch(["-m", "train", *job.work["arguments"], *job.work["options"], "-c", str(config), "-p", str(folder)])
        return total
    path, step = found
    if step >= total:
        return 0
    resumed = resumed_at(job.folder)
    write_json(job.folder / RESUMED_FILE, [*resumed, step])
    logger.info("Going on from step %d of %d (%s)", step, total, path.name)
    moved = f"args.expdir={str(folder)!r}"
    launch(["-m", "train", "-e", str(path), *job.work["options"], "-o", moved])
    return total - step


def resumed_at(folder: Path) -> tuple[int, ...]:
    """Steps at which the training of a job's folder went on after it had been stopped."""
    path = folder / RESUMED_FILE
    return tuple(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else ()


def newest_states(folder: Path) -> tuple[Path, int] | None:
    """The checkpoint of a head that got furthest and can be read: a killed process may leave half a file.

    Returns:
        Its path and step; None when there is none.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> torch.save({"Step": 4}, folder / "states-4.ckpt")
        >>> _ = (folder / "states-6.ckpt").write_bytes(b"half a file")
        >>> newest_states(folder)[1]
        4
    """
    from robustdistiller.upstream.s3prl import bridge

    bridge.install()  # lets torch read the argument namespace that s3prl stores
    best = None
    for path in sorted(folder.glob("*.ckpt")):
        try:
            step = int(torch.load(path, map_location="cpu", weights_only=True)["Step"])
        except Exception as error:  # noqa: BLE001 - of whatever is wrong with half a file
            logger.warning("%s cannot be read and is left out: %s", path, str(error).splitlines()[0][:100])
            continue
        if best is None or step > best[1]:
            best = path, step
    return best


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


def write_json(path: Path, data: Any) -> None:
    """Write a file at once or not at all."""
    write_text(path, json.dumps(data, indent=1))
