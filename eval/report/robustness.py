"""How a system bears noise and rooms: summaries over the conditions of one task.

Their formulas are here in full. Let m(c) be the metric under condition c, d(c) = m(clean) - m(c) where higher is
better and m(c) - m(clean) where lower is better: positive is worse.

- mean: the plain mean of m(c) over the corrupted conditions (clean speech is a column of its own).
- difference: the mean of d(c), in the metric's unit. For word errors this is Speech Robust Bench's WERD.
- loss: 100 mean d(c) / m(clean), in per cent. It flatters systems that are poor on clean speech: never rank by it
  alone. Undefined where m(clean) is 0, and for metrics without a true zero (dB, PESQ).
- normalised: 100 mean over c of d(c) / d_R(c), R being a reference system under the same condition, so that hard
  conditions do not weigh more than easy ones; 100 is the reference. In the manner of mCE (Hendrycks and Dietterich
  2019) and of Speech Robust Bench's NWERD, which divides by predicted speech quality instead. Conditions under which
  the reference loses nothing are left out.
- worst: the condition with the largest d(c), or with the poorest m(c) where there is no clean score.
- area: the area under m against SNR in dB by the trapezoid rule, divided by the range of SNRs: the mean of the metric
  over the range, whatever the grid. Conditions that differ in SNR only belong to one curve; there is one area for each.
- stability: the standard deviation of m(c) over draws of one condition (other sources or corruption seeds), and over
  seeds of the heads, each averaged over the conditions that have several.

Where a condition was drawn more than once, m(c) is the mean over its draws. Conditions are those that all compared
systems have, and seeds those that a system has under all of them, so that rows of one table are about the same.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy

from robustdistiller.acoustics import Condition
from robustdistiller.eval.report.cells import Cell, Column, shared_seeds, stack
from robustdistiller.eval.report.significance import Estimate, crossed_test
from robustdistiller.eval.results.identity import CLEAN

#: Metrics of which a percentage makes sense: zero means none of what is counted.
_WITH_ZERO = ("accuracy", "wer", "cer", "per", "der", "frame_der", "eer", "mtwv", "slot_type_f1", "slot_value_cer")


@dataclass(frozen=True)
class Robustness:
    """Summaries of one system on one task; None where they are not defined for the conditions at hand.

    Attributes:
        mean: over corrupted conditions, in the metric's unit.
        difference: to clean, in the metric's unit, positive is worse.
        loss: relative to clean, per cent, positive is worse.
        normalised: difference in per cent of the reference's, without interval.
        worst: the worst condition.
        areas: name of a curve (its condition without SNR) to the area under it, in the metric's unit.
        over_draws, over_seeds: standard deviations, in the metric's unit.
        seeds: how many all of this is over.
    """

    mean: Estimate
    difference: Estimate | None = None
    loss: Estimate | None = None
    normalised: Estimate | None = None
    worst: str = ""
    areas: Mapping[str, Estimate] = field(default_factory=dict)
    over_draws: float | None = None
    over_seeds: float | None = None
    seeds: int = 1


def summary_columns(found: Sequence[Robustness], reference: str) -> list[tuple[str, str, Callable[[Robustness], Any]]]:
    """The summaries that any of some systems has: name, meaning, and how it is read."""
    areas = dict.fromkeys(name for one in found for name in one.areas)
    kinds = [
        ("mean", "over these conditions", lambda one: one.mean),
        ("difference", "lost from clean speech, in the metric's unit", lambda one: one.difference),
        ("loss %", "the same relative to clean speech", lambda one: one.loss),
        (f"% of {reference}'s", f"lost under a condition by what {reference} loses there", lambda one: one.normalised),
        ("worst", "the condition under which most is lost", lambda one: one.worst),
        *((f"area, {n}", "under metric against SNR, by its range", lambda one, n=n: one.areas.get(n)) for n in areas),
        ("sd, draws", "standard deviation over draws of one condition", lambda one: one.over_draws),
        ("sd, seeds", "standard deviation over seeds of the heads", lambda one: one.over_seeds),
    ]
    return [kind for kind in kinds if any(kind[2](one) not in (None, "") for one in found)]


def curves(conditions: Sequence[str]) -> dict[str, list[tuple[float, str]]]:
    """Conditions that differ in SNR only, as curves.

    Args:
        conditions: one-line forms.

    Returns:
        Name of a curve to its ``(snr_db, condition)`` by rising SNR; only curves of at least two points.

    Example:
        >>> curves(["clean", "noise:snr_db=5", "noise:snr_db=0", "reverb", "noise+reverb:snr_db=0"])
        {'noise': [(0.0, 'noise:snr_db=0'), (5.0, 'noise:snr_db=5')]}
    """
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for condition in dict.fromkeys(conditions):
        try:
            parsed = Condition.parse(condition)
        except ValueError:  # in the words of a paper, or of a later release
            continue
        snr_db = parsed.get("snr_db")
        if snr_db is None or not snr_db.is_single:  # a range is no point of a curve
            continue
        found[parsed.spelled(without=["snr_db"])].append((snr_db.low, condition))
    return {name: sorted(points) for name, points in found.items() if len(points) > 1}


def area_under_curve(snrs_db: Sequence[float], values: np.ndarray) -> np.ndarray:
    """Trapezoid area under values against SNR, divided by the range of SNRs.

    Args:
        snrs_db: at least two, rising.
        values: (..., points).

    Returns:
        (...) in the unit of the values.

    Raises:
        ValueError: fewer than two SNRs, or they do not rise.
    """
    if len(snrs_db) < 2 or any(later <= earlier for earlier, later in itertools.pairwise(snrs_db)):
        raise ValueError(f"an area under a curve needs two or more rising SNRs, found {snrs_db}")
    return scipy.integrate.trapezoid(values, snrs_db, axis=-1) / (snrs_db[-1] - snrs_db[0])


def shared_columns(systems: Sequence[Mapping[Column, Cell]]) -> list[Column]:
    """The corrupted columns that all systems have that have any; all of one task, metric and test set."""
    having = [{c for c in cells if c.condition != CLEAN} for cells in systems]
    having = [columns for columns in having if columns]
    return sorted(set.intersection(*having), key=lambda column: column.order) if having else []


def summarise(
    cells: Mapping[Column, Cell], columns: Sequence[Column], reference: Mapping[Column, Cell] | None = None
) -> Robustness | None:
    """All summaries of one system on one task.

    Args:
        cells: the system's; those that are neither clean nor of `columns` are passed over.
        columns: corrupted columns to summarise over.
        reference: cells of the reference system.

    Returns:
        Summaries with intervals, where all cells have results of the same items; None where the system lacks one of the
        columns, or there are none.
    """
    if not columns or any(column not in cells for column in columns):
        return None
    clean = next((cells[c] for c in cells if c.condition == CLEAN), None)
    used = [cells[column] for column in columns] + ([clean] if clean else [])
    seeds = shared_seeds(used)
    numbers = np.array([np.mean([c.values[s] for s in seeds]) if seeds else c.value for c in used])
    stacked = stack(used, seeds)
    draws: dict[str, list[int]] = defaultdict(list)  # condition to the places of its draws
    for place, column in enumerate(columns):
        draws[column.condition].append(place)
    weights = np.zeros((len(draws), len(used)))  # of each condition over the cells
    for row, places in enumerate(draws.values()):
        weights[row, places] = 1 / len(places)

    def weighted(weight: np.ndarray, constant: float = 0.0) -> Estimate:
        """An estimate of a weighted sum of cells; `constant` is added to it."""
        if stacked is None:
            return Estimate(float(weight @ numbers) + constant, seeds=max(len(seeds), 1))
        return crossed_test([np.tensordot(weight, stacked, 1) + constant])

    sign = 1.0 if columns[0].higher_is_better else -1.0
    mean = weights.mean(axis=0)
    by_condition = sign * -(weights @ numbers)  # the larger the worse
    difference = loss = normalised = None
    if clean:
        only_clean = np.eye(len(used))[-1]
        difference = weighted(sign * (only_clean - mean))
        at_clean, at_mean = numbers[-1], mean @ numbers
        if columns[0].metric in _WITH_ZERO and at_clean > 0:
            # First-order expansion of the ratio: its value is exact, its spread is the delta method's.
            slope = 100 * sign * (at_mean / at_clean**2 * only_clean - mean / at_clean)
            value = 100 * sign * (at_clean - at_mean) / at_clean
            loss = weighted(slope, float(value - slope @ numbers))
        normalised = _normalised(sign * numbers[-1] + by_condition, list(draws), reference, sign)
    areas = {
        name: columns[0].bounded(
            weighted(area_under_curve([snr for snr, _ in points], weights[[list(draws).index(c) for _, c in points]].T))
        )
        for name, points in curves(list(draws)).items()
    }
    return Robustness(
        *(columns[0].bounded(weighted(mean)), difference, loss, normalised),
        columns[draws[list(draws)[int(np.argmax(by_condition))]][0]].title.partition(" [")[0],
        areas,
        _mean([np.std(numbers[places], ddof=1) for places in draws.values() if len(places) > 1]),
        _mean([np.std([cell.values[s] for s in seeds], ddof=1) for cell in used[: len(columns)] if len(seeds) > 1]),
        max(len(seeds), 1),
    )


def _normalised(
    lost: np.ndarray, conditions: Sequence[str], reference: Mapping[Column, Cell] | None, sign: float
) -> Estimate | None:
    """Mean of what is lost under each condition, in per cent of what the reference loses there."""
    by_condition: dict[str, list[float]] = defaultdict(list)
    for column, cell in (reference or {}).items():
        by_condition[column.condition].append(cell.value)
    if CLEAN not in by_condition or any(condition not in by_condition for condition in conditions):
        return None
    theirs = np.array([sign * (by_condition[CLEAN][0] - np.mean(by_condition[c])) for c in conditions])
    hard = theirs > 0
    return Estimate(float(100 * np.mean(lost[hard] / theirs[hard]))) if hard.any() else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
