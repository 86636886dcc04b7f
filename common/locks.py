"""Locks between processes, which a killed process cannot leave behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor


class Busy(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def locked(path: str | Path, wait: bool = True) -> Iterator[int]:
    """Hold the lock file ``path`` within the block. Its folder is made; the file stays.

    The system frees the lock when the last process that has the file open ends.

    Args:
        path: the lock file.
        wait: wait for a process that holds it, instead of raising.

    Yields:
        The file's descriptor: a child process that inherits it (``pass_fds``) holds the lock too, and keeps it should
        it outlive this process.

    Raises:
        Busy: ``wait`` is false and another process holds it.
        OSError: the file cannot be made, or its file system knows no locks.

    Example:
        >>> with locked("a.lock"):
        ...     with locked("a.lock", wait=False):
        ...         pass
        Traceback (most recent call last):
        robustdistiller.common.locks.Busy: a.lock is held by another process
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _lock(descriptor, path, wait):
            raise Busy(f"{path} is held by another process")
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str | Path, wait: bool) -> bool:
    try:
        return lock_descriptor(descriptor, blocking=wait)
    except OSError as error:  # as of some network file systems
        problem = f"its file system does not lock files ({error.strerror}); choose a folder on another one"
        raise OSError(error.errno, problem, str(path)) from error
