"""Scores over tasks: SUPERB's ``superb_s`` and the plain mean "Overall" of the ARMHuBERT and STaR tables.

``superb_s`` follows the public code of the SUPERB website (github.com/superbbenchmark/website-react at cacb90e,
``frontend/src/policy.js`` and ``Data.js``): each metric is put on a line that is 0 at FBANK and 1000 at the best
system of the first benchmark, metrics are averaged within a task, and tasks are averaged:

    p_m(u) = 1000 (m(u) - m_FBANK) / (m_SOTA - m_FBANK)
    p_t(u) = mean of p_m over the metrics of task t
    superb_s(u) = mean of p_t over the tasks

Error rates need no change of sign, since both references are error rates. There is no ``superb_r`` here: the site's
rank score depends on the systems that compete, and how it treats ties and gaps was not found in a source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from robustdistiller.eval.tasks.registry import TASKS

PAPER_TASKS = ("PR", "SID", "KS", "QbE", "IC", "ASR", "ASV", "ER", "SD", "SF")
PUBLIC_TASKS = ("PR", "SID", "QbE", "ASR", "ASV", "ER", "SD", "ST", "SE", "SS")

Values = Mapping[tuple[str, str], float]


class ScoreError(ValueError):
    """A score over tasks was asked for and cannot be had."""


@dataclass(frozen=True)
class SuperbScore:
    """``superb_s`` and what it is made of.

    Attributes:
        total: the score.
        tasks: points of each task.
    """

    total: float
    tasks: Mapping[str, float]


def points_of(task: str) -> dict[str, tuple[float, float]]:
    """The metrics of a task that SUPERB scores, with the values that count 0 and 1000 points; none for other tasks.

    Rates are in per cent, MTWV is a fraction (the site: x 100).
    """
    metrics = TASKS[task].metrics if task in TASKS else ()
    return {metric.name: metric.points for metric in metrics if metric.points is not None}


def metrics_of(task: str) -> tuple[str, ...]:
    """The metrics of a task that SUPERB scores.

    Raises:
        ScoreError: SUPERB has no such task.
    """
    found = tuple(points_of(task))
    if not found:
        known = ", ".join(code for code in TASKS if points_of(code))
        raise ScoreError(f"SUPERB scores no task {task!r}; it scores {known}")
    return found


def metric_points(task: str, metric: str, value: float) -> float:
    """Points of one metric: 0 at FBANK, 1000 at the reference system; not limited to that range.

    Raises:
        ScoreError: SUPERB does not score this metric.
    """
    if metric not in metrics_of(task):
        raise ScoreError(f"SUPERB scores {task} by {' and '.join(metrics_of(task))}, not by {metric!r}")
    nothing, best = points_of(task)[metric]
    return 1000.0 * (value - nothing) / (best - nothing)


def task_points(task: str, values: Values) -> float:
    """Points of a task: the mean over its metrics.

    Raises:
        ScoreError: a metric of the task is missing.
    """
    missing = [metric for metric in metrics_of(task) if math.isnan(values.get((task, metric), math.nan))]
    if missing:
        raise ScoreError(f"no {' and no '.join(missing)} of {task}, so there are no points for this task")
    points = [metric_points(task, metric, values[task, metric]) for metric in metrics_of(task)]
    return sum(points) / len(points)


def superb_score(values: Values, tasks: tuple[str, ...] = PAPER_TASKS) -> SuperbScore:
    """``superb_s`` over a set of tasks.

    Args:
        values: ``(task, metric)`` to value on the official test sets, rates in per cent, MTWV as a fraction.
        tasks: `PAPER_TASKS`, the ten that papers report, or `PUBLIC_TASKS`, those of the challenge.

    Raises:
        ScoreError: naming the tasks that are missing: a mean over other tasks is another score.

    Example:
        >>> superb_score({("KS", "accuracy"): 96.0})
        Traceback (most recent call last):
        robustdistiller.eval.tasks.superb.ScoreError: superb_s is the mean over PR, SID, KS, QbE, IC, ASR, ASV, ER, \
SD, SF; missing: PR, SID, QbE, IC, ASR, ASV, ER, SD, SF
    """
    missing = missing_tasks(values, tasks)
    if missing:
        raise ScoreError(f"superb_s is the mean over {', '.join(tasks)}; missing: {', '.join(missing)}")
    points = {task: task_points(task, values) for task in tasks}
    return SuperbScore(sum(points.values()) / len(points), points)


def missing_tasks(values: Values, tasks: tuple[str, ...] = PAPER_TASKS) -> list[str]:
    """Tasks that lack one of their metrics."""
    return [t for t in tasks if any(math.isnan(values.get((t, m), math.nan)) for m in metrics_of(t))]


def overall_mean(values: Values) -> float:
    """ "Overall" of the ARMHuBERT and STaR tables: plain mean of the eleven metrics of the ten tasks.

    Accuracies and F1 as they are, MTWV times 100, error rates as 100 minus the rate. A plain mean of numbers that
    spread very differently: use it to compare with those tables only.

    Raises:
        ScoreError: a metric is missing.
    """
    wanted = [(task, metric) for task in PAPER_TASKS for metric in metrics_of(task)]
    missing = [f"{task} {metric}" for task, metric in wanted if math.isnan(values.get((task, metric), math.nan))]
    if missing:
        raise ScoreError(f"the overall mean is over eleven metrics; missing: {', '.join(missing)}")
    return sum(_out_of_100(task, metric, values[task, metric]) for task, metric in wanted) / len(wanted)


def _out_of_100(task: str, name: str, value: float) -> float:
    metric = next(one for one in TASKS[task].metrics if one.name == name)
    value = value if metric.unit == "%" else 100.0 * value
    return value if metric.higher_is_better else 100.0 - value
