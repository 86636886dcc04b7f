"""The side of a pool that talks to `worker`: begins jobs there, hears of their ends, signals them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from robustdistiller.common.process import signals_deferred
from robustdistiller.eval.sweep.engine import LOG_FILE, Job


class Forks:
    """Processes for jobs, forked from one that is started with the first of them.

    Args:
        prepare: what is called there before, see `worker`.
        environment: variables set there, beside those of this process.
    """

    def __init__(self, prepare: str, environment: Mapping[str, str]) -> None:
        self._prepare, self._environment = prepare, environment
        self._pids: dict[str, int | None] = {}
        self._server: subprocess.Popen | None = None
        self._printed: IO[bytes]
        self._life: IO[bytes]
        self._unread = b""

    def begin(self, job: Job, environment: Mapping[str, str]) -> None:
        """Ask for a process that does a job, which lies in its folder, with some variables set."""
        asked: dict[str, Any] = {"folder": str(job.folder), "log": str(job.log), "cwd": str(Path.cwd())}
        asked["environment"] = dict(environment)
        server = self._server or self._start()
        self._pids[asked["folder"]] = None
        with contextlib.suppress(BrokenPipeError):  # it has died, which `ended` will find
            os.write(server.stdin.fileno(), json.dumps(asked).encode() + b"\n")

    def _start(self) -> subprocess.Popen:
        end, life = os.pipe()
        self._printed, self._life, self._unread = tempfile.TemporaryFile(), os.fdopen(life, "wb"), b""  # noqa: SIM115
        with signals_deferred():
            self._server = subprocess.Popen(
                [sys.executable, "-m", "robustdistiller.eval.sweep.worker", str(end), self._prepare],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._printed,
                pass_fds=[end],
                start_new_session=True,  # Ctrl-C reaches this process only
                env={**os.environ, **self._environment},
            )
        os.close(end)
        os.set_blocking(self._server.stdout.fileno(), False)
        return self._server

    def pid_of(self, job: Job) -> int | None:
        """The process of a job; None as long as it is not known."""
        return self._pids.get(str(job.folder))

    def ended(self) -> dict[str, int]:
        """Exit statuses of the processes that ended since the last call, by the folders of their jobs."""
        found: dict[str, int] = {}
        with signals_deferred():  # what was read is noted
            for said in self._answers():
                if "status" in said:
                    found[said["folder"]] = said["status"]
                else:
                    self._pids[said["folder"]] = said["pid"]
            died = self._server is not None and self._server.returncode is not None
            if died:  # nobody tells any more how its jobs end
                found |= dict.fromkeys(self._pids, self._server.returncode)
                self._tell_its_last_words()
            for folder in found:
                _signal(self._pids.pop(folder), signal.SIGKILL)  # what it started and left behind
            if died:
                self.close()
        return found

    def _answers(self) -> Iterator[dict[str, Any]]:
        while self._server is not None:
            try:
                part = os.read(self._server.stdout.fileno(), 1 << 16)
            except BlockingIOError:
                return
            if not part:
                self._server.wait()
                return
            *lines, self._unread = (self._unread + part).split(b"\n")
            yield from map(json.loads, lines)

    def signal(self, number: int) -> None:
        """Send a signal to all jobs' processes and what they started."""
        for pid in self._pids.values():
            _signal(pid, number)

    def close(self) -> None:
        """End the process that forks the others, and with it all of them."""
        if self._server is not None:
            self._life.close()
            self._server.kill()
            self._server.wait()
            for stream in (self._server.stdin, self._server.stdout, self._printed):
                stream.close()
            self._server = None
        self._pids.clear()

    def _tell_its_last_words(self) -> None:
        self._printed.seek(0)
        words = self._printed.read()
        for folder in self._pids:
            with Path(folder, LOG_FILE).open("ab") as log:
                log.write(words)


def _signal(pid: int | None, number: int) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
