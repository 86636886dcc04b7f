"""What a SUPERB task needs beside its data: packages and system tools."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from robustdistiller.common.installation import InstallationError
from robustdistiller.eval.tasks.base import Task
from robustdistiller.upstream.s3prl.bridge import INSTALL_SOX, sox_path


@dataclass(frozen=True)
class TaskNeeds:
    """What is missing for a task here, and the commands that get it.

    Attributes:
        code: the task's short name.
        title: what the task is.
        missing: packages, by their name on the index, and tools.
        commands: one for each way of installing.
    """

    code: str
    title: str
    missing: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing is missing."""
        return not self.missing


def look_at(task: Task) -> TaskNeeds:
    """Whether the packages and tools of ``task`` are here. Nothing is imported."""
    packages = tuple(name for module, name in task.packages.items() if not _is_installed(module))
    tools = tuple(tool for tool in task.tools if tool == "sox" and sox_path() is None)
    commands = (f"pip install {' '.join(packages)}",) if packages else ()
    return TaskNeeds(task.code, task.title, (*packages, *tools), (*commands, *(INSTALL_SOX for _ in tools)))


def require(task: Task) -> None:
    """Refuse to start ``task`` without its packages and tools.

    Raises:
        InstallationError: names everything that is missing and the commands to type.
    """
    needs = look_at(task)
    if not needs.ok:
        problem = f"{task.code} ({task.title}) needs {', '.join(needs.missing)}, not found here"
        raise InstallationError(problem, " && ".join(needs.commands))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of a dotted name
        return False
