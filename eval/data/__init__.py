"""Preparing the data of SUPERB's tasks: what was expected and found, and the files that s3prl's users make by hand.

`look` says what is there and what is missing, before anything long starts; `run` makes the rest: length tables, Kaldi
folders, lists, conversions. Nothing is ever written into the corpora.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from pkgutil import resolve_name

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval.data.build import run
from robustdistiller.eval.data.plan import Finding, NotThere, Plan, PrepareError, Recipe, Roots
from robustdistiller.eval.tasks import Task

__all__ = ["Finding", "Plan", "PrepareError", "check_names", "look", "recipe_of", "run"]


def recipe_of(task: Task) -> Recipe:
    """What must lie on disk for a task, and what is made of it."""
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
        PrepareError: as of :func:`check_names`; the first input is not given, or a file is not what its name says.
    """
    recipe = recipe_of(task)
    check_names(task, roots)
    first, what = next(iter(recipe.inputs.items()))
    if not roots.get(first):
        raise PrepareError(f"{task.code} needs ROOT ({what}); type the folder after the task")
    plan = Plan(task, out)
    with contextlib.suppress(NotThere):
        recipe.plan(plan, roots)
    return plan


def check_names(task: Task, roots: Roots) -> None:
    """Refuse inputs that a task does not have, or has one of, before anything is fetched or looked at.

    Raises:
        PrepareError: an unknown input, or several paths for one.
    """
    inputs = recipe_of(task).inputs
    lists = {root.key.rpartition(".")[2] for root in task.roots if root.is_list}
    for name in roots:
        if name not in inputs:
            raise PrepareError(f"{task.code} has no root {name!r}{did_you_mean(name, inputs)}")
        if len(roots[name]) > 1 and name not in lists:
            found = ", ".join(map(str, roots[name]))
            raise PrepareError(f"{task.code} takes one {name}, found {len(roots[name])}: {found}; type one of them")
