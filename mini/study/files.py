"""Files that are either complete or not there, and locks that a killed process cannot leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file under another name, then renames it, so that no reader meets half of it.

    >>> replace_file(Path("note.txt"), "done")
    >>> Path("note.txt").read_text()
    'done'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    partial.replace(path)


def save_arrays(path: Path, notes: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays and JSON-able notes as one compressed file, at once.

    >>> save_arrays(Path("a.npz"), {"seed": 3}, {"correct": np.array([True])})
    >>> load_arrays(Path("a.npz"))
    ({'seed': 3}, {'correct': array([ True])})
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez_compressed(partial, notes=np.frombuffer(json.dumps(notes).encode(), dtype=np.uint8), **arrays)
    partial.replace(path)


def load_arrays(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `save_arrays` wrote: the notes and the arrays."""
    with np.load(path, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    return json.loads(arrays.pop("notes").tobytes()), arrays


class Busy(RuntimeError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[int]:
    """Holds an exclusive lock on a file; the system releases it when the last process that has it open ends.

    Yields:
        the file descriptor; a child process that inherits it holds the lock too.

    Raises:
        Busy: `wait` is false and another process holds it.

    >>> with locked(Path("a.lock")):
    ...     with locked(Path("a.lock"), wait=False):
    ...         pass
    Traceback (most recent call last):
    robustdistiller.mini.study.files.Busy: a.lock is held by another process
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path} is held by another process") from None
        yield descriptor
    finally:
        os.close(descriptor)
