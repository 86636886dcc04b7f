"""All tasks: SUPERB's, one file each, those of installed packages, and those of the user's own.

A package brings tasks by an entry point of the group ``robustdistiller.tasks`` that names a :class:`Task`, several of
them, or a function that returns either.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval.tasks import asr, asv, er, ic, ks, pr, qbe, sd, se, sf, sid, ss, st
from robustdistiller.eval.tasks.base import Task
from robustdistiller.eval.tasks.csv_task import DOWNSTREAM, csv_task, is_same_table, task_of_config
from robustdistiller.eval.tasks.parts import lookup

ENTRY_POINTS = "robustdistiller.tasks"

logger = logging.getLogger(__name__)


class Registry(Mapping[str, Task]):
    """Code to task, in the order of SUPERB's tables; packages are asked for theirs when the first task is looked up.

    Example:
        >>> "IC" in TASKS, list(TASKS)[:3]
        (True, ['PR', 'SID', 'KS'])
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._tasks = {task.code: task for task in tasks}
        self._asked = False

    def __getitem__(self, code: str) -> Task:
        return self._all()[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def register(self, task: Task) -> Task:
        """Add a task: its code works from then on wherever a task is named, and so do conditions, records and tables.

        Args:
            task: the task; an equal one may be there already, or what a CSV file held before it was changed.

        Returns:
            The same task.

        Raises:
            ValueError: another task has this code.

        Example:
            >>> from robustdistiller.eval.tasks import Metric
            >>> accuracy = Metric("accuracy", "acc", higher_is_better=True)
            >>> register(Task("IC", "my intents", "my_intents", (accuracy,), config={}))
            Traceback (most recent call last):
            ValueError: there is a task IC already (intent classification, Fluent Speech Commands); give 'my inten...
        """
        known = {code.lower(): other for code, other in self._all().items()}.get(task.code.lower())
        if known is not None and known != task and not is_same_table(known, task):
            raise ValueError(f"there is a task {known.code} already ({known.title}); give {task.title!r} another code")
        self._tasks[task.code] = task
        return task

    def _all(self) -> dict[str, Task]:
        if not self._asked:
            self._asked = True
            for point in entry_points(group=ENTRY_POINTS):
                try:
                    found = point.load()
                    found = found() if callable(found) else found
                    for task in [found] if isinstance(found, Task) else found:
                        self.register(task)
                except Exception as error:  # noqa: BLE001 - a package of somebody else's may fail in any way
                    logger.warning("task %s of %s cannot be used: %s", point.name, point.value, error)
        return self._tasks


TASKS = Registry(
    [
        *(pr.TASK, sid.TASK, ks.TASK, qbe.TASK, ic.TASK, asr.ASR, asv.TASK, er.TASK, sd.TASK, sf.TASK),
        *(asr.ASR_LM, st.TASK, se.SE, se.SE2, ss.SS, ss.SS2),
    ]
)
register = TASKS.register


def get(name: str) -> Task:
    """The task called ``name``: a code in any case (``ic``) or s3prl's downstream name (``fluent_commands``).

    The name of a CSV file stands for the task of its labels, see :func:`csv_task`.

    Raises:
        ValueError: the name is unknown (the nearest ones are given) or shared by several tasks.

    Example:
        >>> get("fluent_commands").code, get("asr-lm").code
        ('IC', 'ASR-LM')
    """
    if name.lower().endswith(".csv"):
        return csv_task(name)
    by_code = {task.code.lower(): task for task in TASKS.values()}
    if name.lower() in by_code:
        return by_code[name.lower()]
    matches = [task for task in TASKS.values() if task.downstream == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        codes = " or ".join(f"-d {task.code}" for task in matches)
        raise ValueError(f"s3prl's downstream {name!r} serves several tasks: say {codes}, or give a config with -c.")
    known = [*TASKS, *sorted({task.downstream for task in TASKS.values()})]
    raise ValueError(f"unknown task {name!r}{did_you_mean(name, known, most=3)}")


def official_split(code: str) -> str:
    """The split whose number a task's benchmark reports; ``test`` for a task that is not known here."""
    return TASKS[code].splits[0] if code in TASKS else "test"


def short_name(metric: str) -> str:
    """How a metric is called where space is short, as in published tables."""
    known = (m.short for task in TASKS.values() for m in task.metrics if m.name == metric and m.short)
    return next(known, metric)


def identify(downstream: str, config: Mapping[str, Any]) -> Task | None:
    """The task that a finished s3prl configuration runs, or None if it is none that is known."""
    same = [task for task in TASKS.values() if task.downstream == downstream]
    told = [task for task in same if task.told_by and str(lookup(config, task.told_by[0])).lower() == task.told_by[1]]
    known = next(iter(told or [task for task in same if task.told_by is None]), None)
    return task_of_config(config) if known is None and downstream == DOWNSTREAM else known
