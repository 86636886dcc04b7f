"""Processes that do one job each, forked from one that has imported what all of them need.

``python -m robustdistiller.eval.sweep.worker FD MODULE:FUNCTION`` calls the function, which imports, and forks a
process for each job that it is asked for on its standard input: importing PyTorch and s3prl takes longer than many a
job. The function must not begin to compute, or find a GPU: neither threads nor a GPU come through a fork.

What it reads and writes are lines of JSON: ``{"folder", "log", "environment", "cwd"}`` is a job,
``{"folder", "pid"}`` the answer when it is begun, ``{"folder", "status"}`` when its process has ended.

The jobs' processes end when nobody holds the other end of the pipe FD any more, that is when the process that asked for
them has died: nobody would see their results, and the next start would run the jobs a second time beside them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from robustdistiller.eval.sweep import engine

_LOOK_S = 0.02


class SlurmTask:
    """What runs on a node of a cluster; submitit calls `checkpoint` when its time is up or it is preempted."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self) -> str:
        """Do the job."""
        folder = Path(self.folder)
        with engine.captured(folder / engine.LOG_FILE):
            return engine.do_job(folder).state

    def checkpoint(self) -> Any:
        """The same job again: a head goes on from its last checkpoint, an evaluation with its next condition."""
        from submitit.helpers import DelayedSubmission

        engine.LEAVING.set()
        return DelayedSubmission(SlurmTask(self.folder))


def main(life: str, prepare: str = "") -> int:
    """Fork, until standard input ends; returns the exit status, in the process of each job, too."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what modules print as they are imported is no answer
    if prepare:
        module, function = prepare.split(":")
        getattr(importlib.import_module(module), function)()
    begun: dict[int, str] = {}
    for job in _asked_for(begun, answers):
        pid = os.fork()
        if not pid:
            os.close(answers)
            return _do(job, int(life))
        os.setpgid(pid, pid)  # here and there: whoever is first
        begun[pid] = job["folder"]
        _answer(answers, {"folder": job["folder"], "pid": pid})
    return 0


def _asked_for(begun: dict[int, str], answers: int) -> Iterator[Mapping[str, Any]]:
    """The jobs as they are read; meanwhile the ends of others are told."""
    unread = b""
    while True:
        while begun:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            _answer(answers, {"folder": begun.pop(pid), "status": os.waitstatus_to_exitcode(status)})
        if not select.select([0], [], [], _LOOK_S if begun else None)[0]:
            continue
        part = os.read(0, 1 << 16)
        if not part:
            return
        *lines, unread = (unread + part).split(b"\n")
        yield from map(json.loads, lines)


def _answer(answers: int, said: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: standard input is about to end
        os.write(answers, json.dumps(said).encode() + b"\n")


def _do(job: Mapping[str, Any], life: int) -> int:
    """In a new process: a group of its own, whose output is the log and whose standard input ends with our user."""
    os.setpgid(0, 0)
    os.chdir(job["cwd"])
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for old, new in ((life, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    os.close(life)
    os.close(log)
    threading.Thread(target=_end_with_user, daemon=True).start()
    os.environ.update(job["environment"])
    logging.basicConfig(level=logging.INFO, format="[%(name)s] %(message)s")
    return 0 if engine.do_job(Path(job["folder"])).state == "done" else 1


def _end_with_user() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock a thread must not hold when the interpreter ends
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)  # data loader processes too


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
