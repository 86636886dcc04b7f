"""Processes of our own: calling a function in one, what one said last, signals that ask to stop.

Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from robustdistiller.common.errors import RunFailed

# Without the current folder, where a file of the user's may have the name of a package.
_PROGRAM = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; "
    "from robustdistiller.common.process import _answer; _answer(*sys.argv[1:])"
)


class ProcessDied(RunFailed):
    """A process ended without an answer; the message holds its last words."""


def call_apart(
    function: str,
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    log: Path | None = None,
) -> Any:
    """Call a function in a process of its own.

    Args:
        function: such as ``"package.module:function"``.
        arguments: JSON-able; what the function returns is, too.
        environment: variables to set, beside those of this process.
        timeout_s: seconds after which the process is ended.
        log: file for what it prints; default: none is kept.

    Raises:
        ProcessDied: it ended without an answer, or was ended.

    Example:
        >>> call_apart("math:hypot", 3, 4)
        5.0
        >>> call_apart("math:sqrt", -1)
        Traceback (most recent call last):
        robustdistiller.common.process.ProcessDied: ValueError: ... (exit status 1)
    """
    with tempfile.TemporaryDirectory(prefix="robustdistiller-") as folder:
        question, answer = Path(folder, "question.json"), Path(folder, "answer.json")
        question.write_text(json.dumps(arguments), encoding="utf-8")
        command = [sys.executable, "-c", _PROGRAM, function, str(question), str(answer)]
        printed = log or Path(folder, "log.txt")
        with printed.open("wb") as stream:
            try:
                status = subprocess.run(
                    command,
                    env={**os.environ, **(environment or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    timeout=timeout_s,
                ).returncode
            except subprocess.TimeoutExpired as error:
                raise ProcessDied(f"no answer after {timeout_s:.0f} s") from error
        if answer.is_file():
            return json.loads(answer.read_text(encoding="utf-8"))
        raise ProcessDied(f"{(tail(printed) or ['no message'])[0]} (exit status {status})")


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPU cores that this process may use: its affinity, and a container's limit where there is one.

    >>> usable_cores() >= 1
    True
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return allowed
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


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

    if threading.current_thread() is not threading.main_thread():  # to which alone signals are delivered
        yield
        return

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
    if threading.current_thread() is not threading.main_thread():  # to which alone signals are delivered
        yield
        return
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


def _answer(function: str, question: str, answer: str) -> None:
    """The other side of :func:`call_apart`."""
    module, _, name = function.partition(":")
    found = getattr(import_module(module), name)(*json.loads(Path(question).read_text(encoding="utf-8")))
    partial = Path(f"{answer}.part")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.rename(answer)
