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

from robustdistiller.eval.tasks.parts import Metric
from robustdistiller.eval.tasks.registry import TASKS

PAPER_TASKS = ("PR", "SID", "KS", "QbE", "IC", "ASR", "ASV", "ER", "SD", "SF")

Values = Mapping[tuple[str, str], float]


class ScoreError(ValueError):
    """A score over tasks was asked for and cannot be had."""


def points_of(task: str) -> dict[str, tuple[float, float]]:
    """The metrics of a task that SUPERB scores, with the values that count 0 and 1000 points; none for other tasks.

    Rates are in per cent, MTWV is a fraction (the site: x 100).
    """
    metrics = TASKS[task].metrics if task in TASKS else ()
    return {metric.name: metric.points for metric in metrics if metric.points is not None}


def task_points(task: str, values: Values) -> float:
    """Points of a task: the mean over its metrics, each 0 at FBANK and 1000 at the reference, not limited to that."""
    points = [1000.0 * (values[task, name] - low) / (high - low) for name, (low, high) in points_of(task).items()]
    return sum(points) / len(points)


def _missing(values: Values) -> list[tuple[str, str]]:
    """Task and metric of each value that the scores need and that is not there."""
    wanted = [(task, metric) for task in PAPER_TASKS for metric in points_of(task)]
    return [key for key in wanted if math.isnan(values.get(key, math.nan))]


def missing_tasks(values: Values) -> list[str]:
    """Those of `PAPER_TASKS` that lack one of their metrics."""
    return list(dict.fromkeys(task for task, _ in _missing(values)))


def superb_score(values: Values) -> float:
    """``superb_s`` over the ten tasks that papers report.

    Raises:
        ScoreError: naming the tasks that are missing: a mean over other tasks is another score.
    """
    missing = missing_tasks(values)
    if missing:
        raise ScoreError(f"superb_s is the mean over {', '.join(PAPER_TASKS)}; missing: {', '.join(missing)}")
    return sum(task_points(task, values) for task in PAPER_TASKS) / len(PAPER_TASKS)


def overall_mean(values: Values) -> float:
    """ "Overall" of the ARMHuBERT and STaR tables: plain mean of the eleven metrics of the ten tasks.

    Accuracies and F1 as they are, MTWV times 100, error rates as 100 minus the rate. A plain mean of numbers that
    spread very differently: use it to compare with those tables only.

    Raises:
        ScoreError: a metric is missing.
    """
    missing = [f"{task} {metric}" for task, metric in _missing(values)]
    if missing:
        raise ScoreError(f"the overall mean is over eleven metrics; missing: {', '.join(missing)}")
    scored = [(task, metric) for task in PAPER_TASKS for metric in TASKS[task].metrics if metric.points is not None]
    return sum(_out_of_100(metric, values[task, metric.name]) for task, metric in scored) / len(scored)


def _out_of_100(metric: Metric, value: float) -> float:
    value = value if metric.unit == "%" else 100.0 * value
    return value if metric.higher_is_better else 100.0 - value
