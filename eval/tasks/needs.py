"""What a SUPERB task needs beside its data: packages and system tools."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from robustdistiller.common.installation import InstallationError
from robustdistiller.eval.tasks.base import Task
from robustdistiller.upstream.s3prl.bridge import INSTALL_SOX, sox_path


class Needs(NamedTuple):
    """What is missing for a task here.

    Attributes:
        missing: packages, by their name on the index, and tools.
        commands: that get it, one for each way of installing.
    """

    missing: tuple[str, ...]
    commands: tuple[str, ...]


def look_at(task: Task) -> Needs:
    """Whether the packages and tools of ``task`` are here. Nothing is imported."""
    packages = tuple(name for module, name in task.packages.items() if not _is_installed(module))
    commands = (f"pip install {' '.join(packages)}",) if packages else ()
    if task.needs_sox and sox_path() is None:
        return Needs((*packages, "sox"), (*commands, INSTALL_SOX))
    return Needs(packages, commands)


def require(task: Task) -> None:
    """Refuse to start ``task`` without its packages and tools.

    Raises:
        InstallationError: names everything that is missing and the commands to type.
    """
    needs = look_at(task)
    if needs.missing:
        problem = f"{task.code} ({task.title}) needs {', '.join(needs.missing)}, not found here"
        raise InstallationError(problem, " && ".join(needs.commands))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of a dotted name
        return False
