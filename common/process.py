"""Functions called in processes of their own, where what they import, hold or die of stays. Standard library only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
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
        lines = [line for line in printed.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise ProcessDied(f"{lines[-1].strip() if lines else 'no message'} (exit status {status})")


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


def _answer(function: str, question: str, answer: str) -> None:
    """The other side of :func:`call_apart`."""
    module, _, name = function.partition(":")
    found = getattr(import_module(module), name)(*json.loads(Path(question).read_text(encoding="utf-8")))
    partial = Path(f"{answer}.part")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.rename(answer)
