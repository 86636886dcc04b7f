"""Locks between processes, which a killed process cannot leave behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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


@contextmanager
def sole_user(folder: Path, say: Callable[[str], None], wait: bool = False) -> Iterator[None]:
    """Hold a folder's lock (``.lock`` in it) within the block, as the only process, where its file system has locks.

    Args:
        folder: it is made.
        say: is told, in one sentence, that there are no locks.
        wait: wait for a process that holds it, instead of raising.

    Raises:
        Busy: ``wait`` is false and another process holds it.
        OSError: nothing can be written to it.

    Example:
        >>> with sole_user(Path("run"), print):
        ...     with sole_user(Path("run"), print):
        ...         pass
        Traceback (most recent call last):
        robustdistiller.common.locks.Busy: run/.lock is held by another process
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / ".lock", wait))
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            say(f"The file system of {folder} has no locks: make sure that nothing else is at work in this folder")
        yield


def _lock(descriptor: int, path: str | Path, wait: bool) -> bool:
    try:
        return lock_descriptor(descriptor, blocking=wait)
    except OSError as error:  # as of some network file systems
        problem = f"its file system does not lock files ({error.strerror}); choose a folder on another one"
        raise OSError(error.errno, problem, str(path)) from error
