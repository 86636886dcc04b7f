"""Preparing the data of SUPERB's tasks: what was expected and found, and the files that s3prl's users make by hand.

`look` says what is there and what is missing, before anything long starts; `run` makes the rest: length tables, Kaldi
folders, lists, conversions. Nothing is ever written into the corpora.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from pkgutil import resolve_name

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval.data.build import run, state_of
from robustdistiller.eval.data.plan import OK, Finding, Plan, PrepareError, Recipe, Roots
from robustdistiller.eval.tasks import Task

__all__ = ["Finding", "Plan", "PrepareError", "look", "recipe_of", "run"]


def recipe_of(task: Task) -> Recipe:
    """What must lie on disk for a task, and what is made of it.

    Raises:
        PrepareError: the task says nothing of its data.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> [one.name for one in recipe_of(tasks.get("IC")).inputs]
        ['file_path']
    """
    if not task.data:
        raise PrepareError(f"{task.code} ({task.title}) says nothing of its data; give its folders to the run itself")
    return resolve_name(task.data)


def look(task: Task, roots: Roots, out: Path) -> Plan:
    """Look at the data of a task; nothing is written.

    Args:
        task: the registry entry.
        roots: name of an input (see :func:`recipe_of`) to the paths given for it.
        out: folder of what would be made.

    Raises:
        PrepareError: an unknown input, the first input is not given, or a file is not what its name says.

    Example:
        >>> from robustdistiller.eval import tasks
        >>> look(tasks.get("IC"), {"file_path": [Path("nowhere")]}, Path("out")).ok
        False
        >>> look(tasks.get("IC"), {"file_pat": [Path("nowhere")]}, Path("out"))
        Traceback (most recent call last):
        robustdistiller.eval.data.plan.PrepareError: IC has no root 'file_pat'; did you mean 'file_path'?
    """
    recipe = recipe_of(task)
    first, known = recipe.inputs[0], [one.name for one in recipe.inputs]
    for name in roots:
        if name not in known:
            raise PrepareError(f"{task.code} has no root {name!r}{did_you_mean(name, known)}")
    if not roots.get(first.name):
        raise PrepareError(f"{task.code} needs ROOT ({first.what}); type the folder after the task")
    plan = Plan(task, out)
    recipe.plan(plan, roots)
    before = {step.target: state_of(step, out) for step in plan.steps}
    plan.findings = [_with_state(finding, before.get(finding.target, "")) for finding in plan.findings]
    return plan


def _with_state(finding: Finding, state: str) -> Finding:
    """A finding about something that is made, with what an earlier run left of it."""
    if state == "made":
        return dataclasses.replace(finding, found="made before", state=OK)
    return dataclasses.replace(finding, found="begun before") if state == "begun" else finding
