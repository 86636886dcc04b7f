"""A process that does one job: ``python -m robustdistiller.eval.sweep.worker FOLDER``, or what submitit starts.

The first ends when its standard input does, that is when the process that started it has died: nobody would see its
result, and the next start would run the job a second time beside it. Nothing heavy is imported before the work is.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from robustdistiller.eval.sweep import engine


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


def main(folder: str) -> int:
    """Do the job of a folder; returns the exit status."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="[%(name)s] %(message)s")
    return 0 if engine.do_job(Path(folder)).state == "done" else 1


def _end_with_parent() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock a thread must not hold when the interpreter ends
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)  # data loader processes too


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
