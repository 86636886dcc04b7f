"""Runs the stages of a job: side by side where they may, each in its own process with its own log, resumable.

A stage is a command, what it needs and what it leaves behind. What is finished is noted in a file beside the log, with
a signature of the command and of everything it was made from: started again, only what is missing or was made
differently is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from robustdistiller.common.files import remove_leftovers, write_text
from robustdistiller.common.locks import Busy, locked
from robustdistiller.common.logs import signals_deferred, tail, terminate_like_interrupt

_POLL_S = 0.25
_GRACE_S = 60.0


class StageFailed(RuntimeError):
    """A stage ended with an error; the message says which, why, and where its log is."""


class JobLocked(RuntimeError):
    """The job's folder is in use by another process."""


@dataclass(frozen=True)
class Stage:
    """One step of a job.

    Attributes:
        name: shown to the user, and the log's file name.
        command: what to run.
        products: called after the command; the files it left. None of them may be missing or the stage has failed.
        needs: names of stages that have to be finished before.
        inputs: anything else that the products depend on, e.g. digests.
        folder: the stage's own folder; emptied when it was filled by a different command. None: it has none.
        resumable: the command continues what it finds in `folder`; otherwise a broken-off stage starts afresh.
    """

    name: str
    command: tuple[str, ...]
    products: Callable[[], Sequence[Path]]
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    folder: Path | None = None
    resumable: bool = False

    @property
    def file_name(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


@dataclass
class Progress:
    """State of a stage, for display.

    Attributes:
        state: ``waiting``, ``running``, ``done``, ``reused``, ``failed`` or ``stopped``.
        seconds: running time so far, or of the run that finished it.
        last_line: last line of its log.
    """

    state: str = "waiting"
    seconds: float = 0.0
    last_line: str = ""


@dataclass
class Job:
    """Stages in one folder.

    Args:
        stages: in the order in which they are started when nothing else decides.
        root: folder that holds everything; part of no signature, so it may be moved between runs.
        workers: stages to run at the same time.
        threads: CPU threads for each of them.
        environment: added to the environment of the commands.
    """

    stages: Sequence[Stage]
    root: Path
    workers: int = 1
    threads: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    progress: dict[str, Progress] = field(init=False)

    def __post_init__(self) -> None:
        self.root = Path(self.root)
        self.progress = {stage.name: Progress() for stage in self.stages}
        self._signatures: dict[str, str] = {}
        for stage in self.stages:
            made_from = [self._signatures[name] for name in stage.needs]
            command = [part.replace(str(self.root), "ROOT") for part in stage.command if part != sys.executable]
            text = json.dumps([command, stage.inputs, made_from])
            self._signatures[stage.name] = hashlib.sha256(text.encode()).hexdigest()

    def log_path(self, stage: Stage) -> Path:
        """Where a stage's output goes."""
        return self.root / "logs" / f"{stage.file_name}.log"

    def is_finished(self, stage: Stage) -> bool:
        """Whether the stage ran to its end with this very command and inputs, and its products are still there."""
        note = self._read_note(stage)
        return (
            note.get("state") == "done"
            and note.get("signature") == self._signatures[stage.name]
            and bool(note["products"])
            and all((self.root / product).exists() for product in note["products"])
        )

    def run(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Run what is not finished. Ctrl-C and SIGTERM stop the running stages and leave a state to continue from.

        Args:
            on_change: called whenever `progress` may have changed, several times a second.

        Raises:
            StageFailed: a stage failed; those that ran beside it were allowed to finish.
            JobLocked: another process works in the folder.
            KeyboardInterrupt: stopped by a signal, after the running stages have ended.
        """
        with self._locked() as lock, terminate_like_interrupt():
            remove_leftovers(self.root)  # of a run that was killed
            running: dict[str, tuple[Stage, subprocess.Popen, float]] = {}
            finished, failed = set(), []
            waiting = list(self.stages)
            try:
                while waiting or running:
                    for stage in list(waiting):
                        if not set(stage.needs) <= finished:
                            continue
                        if self.is_finished(stage):
                            waiting.remove(stage)
                            finished.add(stage.name)
                            self.progress[stage.name] = Progress("reused", self._read_note(stage).get("seconds", 0.0))
                        elif len(running) < self.workers and not failed:
                            waiting.remove(stage)
                            with signals_deferred():  # a process that is not in `running` would not be stopped
                                running[stage.name] = (stage, self._start(stage, lock), time.monotonic())
                    for name, (stage, process, started) in list(running.items()):
                        progress = self.progress[name]
                        progress.seconds, progress.last_line = (
                            time.monotonic() - started,
                            last_line(self.log_path(stage)),
                        )
                        if process.poll() is not None:
                            del running[name]
                            if self._finish(stage, process.returncode, progress):
                                finished.add(name)
                            else:
                                failed.append(stage)
                    on_change()
                    if failed and not running:
                        raise StageFailed(self._report(failed[0]))
                    time.sleep(_POLL_S if running else 0.0)
            except BaseException:
                self._stop([process for _, process, _ in running.values()])
                for name in running:
                    self.progress[name].state = "stopped"
                on_change()
                raise

    def _start(self, stage: Stage, lock: int) -> subprocess.Popen:
        note = self._read_note(stage)
        same = note.get("signature") == self._signatures[stage.name]
        if stage.folder is not None and stage.folder.exists() and not (same and stage.resumable):
            shutil.rmtree(stage.folder)
        log = self.log_path(stage)
        log.parent.mkdir(parents=True, exist_ok=True)
        self._write_note(stage, {"state": "started"})
        self.progress[stage.name].state = "running"
        threads = str(self.threads)
        with log.open("a" if same and stage.resumable else "w", encoding="utf-8") as stream:
            stream.write(f"$ {readable(stage.command)}\n")
            stream.flush()
            return subprocess.Popen(
                stage.command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches this process only, which then stops the stages in order.
                start_new_session=True,
                # A stage that outlives this process (kill -9) still holds the lock, so nobody works beside it.
                pass_fds=(lock,),
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": threads,
                    "MKL_NUM_THREADS": threads,
                    "PYTHONUNBUFFERED": "1",
                    **self.environment,
                },
            )

    def _finish(self, stage: Stage, status: int, progress: Progress) -> bool:
        products = list(stage.products()) if status == 0 else []
        if status != 0 or not products or not all(path.exists() for path in products):
            progress.state = "failed"
            return False
        progress.state = "done"
        relative = [os.path.relpath(path, self.root) for path in products]
        self._write_note(stage, {"state": "done", "products": relative, "seconds": round(progress.seconds, 1)})
        return True

    def _report(self, stage: Stage) -> str:
        log = self.log_path(stage)
        lines = "\n".join(f"    {line}" for line in tail(log, 12))
        return f"stage '{stage.name}' failed; the end of its log:\n{lines}\n  The whole log: {log}"

    def _stop(self, processes: list[subprocess.Popen]) -> None:
        """Ask with SIGINT, which lets distillation save its state; insist after a minute."""
        for number in (signal.SIGINT, signal.SIGKILL):
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, number)
            deadline = time.monotonic() + _GRACE_S
            while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        for process in processes:  # what a stage has started and left behind would keep the next run out
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _note_path(self, stage: Stage) -> Path:
        return self.root / "logs" / f"{stage.file_name}.json"

    def _read_note(self, stage: Stage) -> dict:
        try:
            return json.loads(self._note_path(stage).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _write_note(self, stage: Stage, values: dict) -> None:
        write_text(self._note_path(stage), json.dumps({**values, "signature": self._signatures[stage.name]}))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            with locked(self.root / ".lock", wait=False) as descriptor:
                yield descriptor
        except Busy as error:
            raise JobLocked(
                f"{self.root} is in use by another run, or by a stage of one that was killed and is still working; "
                "wait for it or stop it"
            ) from error


def readable(command: Sequence[str]) -> str:
    """A command as one would type it.

    >>> readable(["/usr/bin/python3", "-m", "robustdistiller.eval.run.launcher", "-m", "train", "-o", "a='b'"])
    'run_downstream.py -m train -o "a=\\'b\\'"'
    """
    names = {"robustdistiller.eval.run.launcher": "run_downstream.py", "robustdistiller.cli": "robustdistiller"}
    parts = list(command)
    if len(parts) > 2 and parts[1] == "-m" and parts[2] in names:
        parts[:3] = [names[parts[2]]]
    return " ".join(f'"{part}"' if re.search(r"[\s'\[\]*]", part) else part for part in parts)


def last_line(path: Path) -> str:
    """The last line of a log, or an empty string."""
    return "".join(tail(path, 1))
