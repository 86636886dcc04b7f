"""Watching long work: the end of a log, and signals that ask to stop it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def tail(path: Path, count: int = 1) -> list[str]:
    """The last lines of a log; of a progress bar, its latest state.

    >>> import tempfile
    >>> log = Path(tempfile.mkdtemp()) / "a.log"
    >>> _ = log.write_text("start\\n 10%\\r 90%\\r\\nend\\n")
    >>> tail(log, 2)
    ['90%', 'end']
    """
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 400 * (count + 8)))
            text = stream.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    lines = [line.rstrip("\r").rsplit("\r", 1)[-1].strip() for line in text.split("\n")]
    return [line for line in lines if line][-count:]


@contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that is closed, raise KeyboardInterrupt within the block, as SIGINT does.

    A SIGHUP that is ignored (nohup) stays ignored.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    asking = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        asking.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in asking}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP that arrive within the block are delivered at its end.

    A process started within the block is noted before anything can interrupt, and can itself be interrupted even where
    this process ignores SIGINT (nohup, a script's ``&``): an ignored signal is inherited, one with a handler is not.
    """
    arrived: list[int] = []
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)
