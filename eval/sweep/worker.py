"""A process that does one job: ``python -m robustdistiller.eval.sweep.worker FOLDER``.

It ends when its standard input does, that is when the process that started it has died: nobody would see its result,
and the next start would run the job a second time beside it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path


def main(folder: str) -> int:
    """Do the job of a folder; returns the exit status."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="[%(name)s] %(message)s")
    from robustdistiller.eval.sweep.engine import do_job

    return 0 if do_job(Path(folder)).state == "done" else 1


def _end_with_parent() -> None:
    while os.read(0, 1):  # not through sys.stdin, whose lock a thread must not hold when the interpreter ends
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)  # data loader processes too


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
