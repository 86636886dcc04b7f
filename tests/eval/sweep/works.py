"""What jobs do in tests: values that any process can unpickle, found by their name like the real ones."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from robustdistiller.eval.sweep.engine import Job


@dataclass(frozen=True)
class Code:
    """Runs lines of Python in the job's folder; `result` is what they put there."""

    text: str

    def __call__(self, folder: Path) -> dict:
        os.chdir(folder)
        names = {"folder": folder, "os": os, "time": time, "result": {}}
        exec(self.text, names)
        return names["result"]


def prepare() -> None:
    """Import something that nothing else does."""
    import colorsys  # noqa: F401


def job(folder: Path, name: str, text: str = "") -> Job:
    return Job(name, folder / name, Code(text))
