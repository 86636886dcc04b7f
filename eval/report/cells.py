"""What a leaderboard is made of: columns of numbers that may be compared, and cells, one of each system in a column."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from robustdistiller.acoustics import Condition
from robustdistiller.eval import tasks
from robustdistiller.eval.report.significance import Estimate, crossed_test
from robustdistiller.eval.results.record import digits_of
from robustdistiller.eval.tasks.superb import points_of

_KINDS = ("clean", "noise", "reverb", "noise+reverb")


@dataclass(frozen=True)
class Column:
    """Cells that may be compared with each other.

    Attributes:
        task: code, as in SUPERB's table.
        split: evaluated split.
        metric: name.
        unit: ``%``, ``dB`` or empty.
        higher_is_better: direction.
        condition: one-line form, or a source's words.
        test: in what it differs from the benchmark's test, such as ``346 items`` or ``fold1``; empty where it does not.
        tag: tells apart conditions of one form whose noise was drawn otherwise; empty where there is one only.
    """

    task: str
    split: str
    metric: str
    unit: str
    higher_is_better: bool
    condition: str
    test: str = ""
    tag: str = ""

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What the columns of one task, metric and test set have in common."""
        return self.task, self.split, self.metric, self.test

    @property
    def is_official(self) -> bool:
        """Whether it is SUPERB's test set, so that published numbers may stand in the column."""
        return not self.test and self.split == tasks.official_split(self.task)

    @property
    def task_title(self) -> str:
        """Task, with its split and test set where they are not the official ones."""
        split = "" if self.split == tasks.official_split(self.task) else self.split
        details = ", ".join(part for part in (split, self.test) if part)
        return self.task + (f" ({details})" if details else "")

    @property
    def title(self) -> str:
        """Short form of the condition."""
        return condition_title(self.condition) + (f" [{self.tag}]" if self.tag else "")

    @property
    def metric_title(self) -> str:
        """Metric with its unit and direction."""
        unit = f" {self.unit}" if self.unit else ""
        return f"{tasks.short_name(self.metric)}{unit} {'↑' if self.higher_is_better else '↓'}"

    @property
    def digits(self) -> int:
        """Digits behind the point of its numbers."""
        return digits_of(self.metric)

    def bounded(self, estimate: Estimate) -> Estimate:
        """An estimate of its metric, so that the interval of a rate stays within what a rate can be."""
        if self.unit != "%":
            return estimate
        return dataclasses.replace(estimate, limit=100.0 if self.higher_is_better else math.inf)

    def bounded_difference(self, estimate: Estimate) -> Estimate:
        """A difference of two values of its metric, so that its interval stays within what it can be."""
        return dataclasses.replace(estimate, most=100.0) if self.unit == "%" and self.higher_is_better else estimate

    @property
    def order(self) -> tuple:
        """Sort key: SUPERB's order of tasks and metrics, official test sets first, conditions from clean on."""
        order, metrics = list(tasks.TASKS), list(points_of(self.task))
        task = order.index(self.task) if self.task in order else len(order)
        metric = metrics.index(self.metric) if self.metric in metrics else len(metrics)
        return (
            *(task, self.task, self.split, self.test != "", self.test),
            *(metric, self.metric, condition_order(self.condition), self.tag),
        )


@dataclass(frozen=True)
class Cell:
    """One system in one column.

    Attributes:
        values: seed to value; of a published number, None to its value.
        parts: seed to the (units,) contributions of items or speakers (see `significance.contributions`); empty where
            the records keep no results of single items.
        units: the items or speakers, in the order of `parts`; systems with the same can be paired.
        rules: what the task's rules fix, as these runs have it; cells with other rules are not ranked.
        non_standard: in what the runs differ from the benchmark's rules, one phrase each.
        remarks: what else a reader must know, one phrase each.
        source: key of the source of a published number.
        record: file of a measured number's newest record.
    """

    values: Mapping[int | None, float]
    parts: Mapping[int, np.ndarray] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    rules: str = ""
    non_standard: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    source: str = ""
    record: str = ""

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return sum(self.values.values()) / len(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None with one seed."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else None

    @cached_property
    def estimate(self) -> Estimate:
        """The value with its uncertainty."""
        stacked = stack([self], sorted(self.values, key=str))
        return Estimate(self.value, seeds=len(self.values)) if stacked is None else crossed_test([stacked[0]])

    @property
    def remark(self) -> str:
        """Everything a reader must know, in one line."""
        marks = [f"not a standard run: {'; '.join(self.non_standard)}"] if self.non_standard else []
        return "; ".join([*marks, *self.remarks])


def stack(cells: Sequence[Cell], seeds: Sequence[int]) -> np.ndarray | None:
    """Contributions of the same items in several cells.

    Returns:
        (cells, seeds, units), or None where one lacks results of single items, or where the items are others.
    """
    if not seeds or len({cell.units for cell in cells}) != 1 or len(cells[0].units) < 2:
        return None
    if any(seed not in cell.parts for cell in cells for seed in seeds):
        return None
    return np.array([[cell.parts[seed] for seed in seeds] for cell in cells])


def shared_seeds(cells: Sequence[Cell]) -> list[int]:
    """Seeds that all of some measured cells have, in order."""
    return sorted(set.intersection(*(set(cell.values) for cell in cells)) - {None}) if cells else []


def draws_of(columns: Sequence[Column]) -> dict[str, list[int]]:
    """Condition to the places of its columns, which are several where it was drawn more than once."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, column in enumerate(columns):
        places[column.condition].append(place)
    return dict(places)


def condition_weights(columns: Sequence[Column]) -> np.ndarray:
    """(conditions, columns): what each column counts in the number of a condition, the mean over its draws."""
    draws = draws_of(columns).values()
    weights = np.zeros((len(draws), len(columns)))
    for row, places in enumerate(draws):
        weights[row, places] = 1 / len(places)
    return weights


def condition_title(condition: str) -> str:
    """Short human form of a condition's one-line form: ``noise 10 dB + reverb 0.6 s``."""
    parsed = parsed_condition(condition)
    return condition if parsed is None else parsed.title


def condition_order(condition: str) -> tuple:
    """Sort key: clean, noise from high to low SNR, reverberation from short to long, both, anything else."""
    parsed = parsed_condition(condition)
    if parsed is None:
        return len(_KINDS), 0.0, 0.0, condition
    kind = _KINDS.index(parsed.kind) if parsed.kind in _KINDS else len(_KINDS)
    snr_db, rt60_s = (parsed.get(key) for key in ("snr_db", "rt60_s"))
    return kind, -snr_db.low if snr_db else 0.0, rt60_s.low if rt60_s else 0.0, condition


def parsed_condition(condition: str) -> Condition | None:
    """A condition's one-line form, read; None where it is the words of a paper, or of another release."""
    try:
        return Condition.parse(condition)
    except ValueError:
        return None
