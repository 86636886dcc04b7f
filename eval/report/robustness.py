"""How a system bears noise and rooms: summaries over the conditions of one task.

Let m(c) be the metric under condition c, d(c) = m(clean) - m(c) where higher is better and m(c) - m(clean) where lower
is better: positive is worse.

- mean: the plain mean of m(c) over the corrupted conditions (clean speech is a column of its own).
- difference: the mean of d(c), in the metric's unit. For word errors this is Speech Robust Bench's WERD.
- loss %: 100 mean d(c) / m(clean). It flatters systems that are poor on clean speech: never rank by it alone. Undefined
  where m(clean) is 0, and for metrics without a true zero (dB, PESQ, STOI).
- % of R's: 100 mean over c of d(c) / d_R(c), R being a reference system, so that hard conditions do not weigh more than
  easy ones; in the manner of mCE (Hendrycks and Dietterich 2019) and of Speech Robust Bench's NWERD, which divides by
  predicted speech quality instead. Conditions under which the reference loses nothing are left out.
- worst: the condition with the largest d(c), or with the poorest m(c) where there is no clean score.
- area: the area under m against SNR in dB by the trapezoid rule, divided by the range of SNRs, whatever the grid;
  one for each set of conditions that differ in SNR only.
- sd: the standard deviation of m(c) over draws of one condition (other sources or corruption seeds), and over seeds of
  the heads, each averaged over the conditions that have several.

Where a condition was drawn more than once, m(c) is the mean over its draws. Conditions are those that all compared
systems have, and seeds those that a system has under all of them, so that rows of one table are about the same.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy

from robustdistiller.eval.report.cells import (
    Cell,
    Column,
    condition_weights,
    draws_of,
    parsed_condition,
    shared_seeds,
    stack,
)
from robustdistiller.eval.report.significance import Estimate, crossed_test
from robustdistiller.eval.results.identity import CLEAN

#: What names of summaries begin with, in the order of tables, and what they mean.
_MEANINGS = {
    "mean": "over these conditions",
    "difference": "lost from clean speech, in the metric's unit",
    "loss %": "the same relative to clean speech",
    "% of": "lost under a condition by what the reference loses there",
    "worst": "the condition under which most is lost",
    "area": "under metric against SNR, by its range",
    "sd, draws": "standard deviation over draws of one condition",
    "sd, seeds": "standard deviation over seeds of the heads",
}
Summaries = Mapping[str, Estimate | str]


def summary_names(found: Iterable[Summaries]) -> dict[str, str]:
    """The summaries that any of some systems has, in the order of tables: name to meaning."""
    names = list(dict.fromkeys(name for one in found for name in one))
    return {name: meaning for start, meaning in _MEANINGS.items() for name in names if name.startswith(start)}


def curves(conditions: Sequence[str]) -> dict[str, list[tuple[float, str]]]:
    """Conditions, in one-line forms, that differ in SNR only, as curves of at least two points.

    Returns:
        Name of a curve (its condition without SNR) to its ``(snr_db, condition)`` by rising SNR.
    """
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for condition in dict.fromkeys(conditions):
        parsed = parsed_condition(condition)
        snr_db = parsed and parsed.get("snr_db")
        if snr_db and snr_db.is_single:  # a range is no point of a curve
            found[parsed.spelled(without=["snr_db"])].append((snr_db.low, condition))
    return {name: sorted(points) for name, points in found.items() if len(points) > 1}


def area_under_curve(snrs_db: Sequence[float], values: np.ndarray) -> np.ndarray:
    """Trapezoid area under values against SNR, divided by the range of SNRs.

    Args:
        snrs_db: at least two, rising.
        values: (..., points).
    """
    if len(snrs_db) < 2 or any(later <= earlier for earlier, later in itertools.pairwise(snrs_db)):
        raise ValueError(f"an area under a curve needs two or more rising SNRs, found {snrs_db}")
    return scipy.integrate.trapezoid(values, snrs_db, axis=-1) / (snrs_db[-1] - snrs_db[0])


def has_true_zero(column: Column) -> bool:
    """Whether a percentage of its metric makes sense: zero means none of what is counted."""
    return column.metric == "mtwv" or (column.unit == "%" and column.metric != "stoi")


def shared_columns(systems: Sequence[Mapping[Column, Cell]]) -> list[Column]:
    """The corrupted columns that all systems have that have any; all of one task, metric and test set."""
    having = [{c for c in cells if c.condition != CLEAN} for cells in systems]
    having = [columns for columns in having if columns]
    return sorted(set.intersection(*having), key=lambda column: column.order) if having else []


def summarise(
    cells: Mapping[Column, Cell],
    columns: Sequence[Column],
    reference: Mapping[Column, Cell] | None = None,
    reference_name: str = "reference",
) -> Summaries | None:
    """All summaries of one system on one task, those that are defined for the conditions at hand.

    Args:
        cells: the system's; those that are neither clean nor of `columns` are passed over.
        columns: corrupted columns to summarise over.
        reference: cells of the reference system.
        reference_name: its name.

    Returns:
        Name to estimate, with an interval where all cells have results of the same items; of ``worst`` the condition.
        None where the system lacks one of the columns, or there are none.
    """
    if not columns or any(column not in cells for column in columns):
        return None
    clean = next((cells[c] for c in cells if c.condition == CLEAN), None)
    used = [cells[column] for column in columns] + ([clean] if clean else [])
    seeds = shared_seeds(used)
    numbers = np.array([np.mean([c.values[s] for s in seeds]) if seeds else c.value for c in used])
    stacked = stack(used, seeds)
    draws = draws_of(columns)
    weights = np.zeros((len(draws), len(used)))  # of each condition over the cells
    weights[:, : len(columns)] = condition_weights(columns)

    def weighted(weight: np.ndarray, constant: float = 0.0) -> Estimate:
        """An estimate of a weighted sum of cells; `constant` is added to it."""
        if stacked is None:
            return Estimate(float(weight @ numbers) + constant, seeds=max(len(seeds), 1))
        return crossed_test([np.tensordot(weight, stacked, 1) + constant])

    first, sign = columns[0], 1.0 if columns[0].higher_is_better else -1.0
    mean = weights.mean(axis=0)
    lost = -sign * (weights @ numbers)  # under each condition, from 0 or from clean
    found: dict[str, Estimate | str] = {"mean": first.bounded(weighted(mean))}
    if clean:
        only_clean = np.eye(len(used))[-1]
        found["difference"] = first.bounded_difference(weighted(sign * (only_clean - mean)))
        at_clean, at_mean = numbers[-1], mean @ numbers
        lost = lost + sign * at_clean
        if has_true_zero(first) and at_clean > 0:
            # First-order expansion of the ratio: its value is exact, its spread is the delta method's.
            slope = 100 * sign * (at_mean / at_clean**2 * only_clean - mean / at_clean)
            value = 100 * sign * (at_clean - at_mean) / at_clean
            found["loss %"] = weighted(slope, float(value - slope @ numbers))
        theirs = _lost_by(reference or {}, list(draws), sign)
        if (hard := theirs > 0).any():
            found[f"% of {reference_name}'s"] = Estimate(float(100 * np.mean(lost[hard] / theirs[hard])))
    worst = list(draws.values())[int(np.argmax(lost))][0]
    found["worst"] = columns[worst].title.partition(" [")[0]
    for name, points in curves(list(draws)).items():
        places = [list(draws).index(condition) for _, condition in points]
        area = area_under_curve([snr_db for snr_db, _ in points], weights[places].T)
        found[f"area, {name}"] = first.bounded(weighted(area))
    if several := [numbers[places] for places in draws.values() if len(places) > 1]:
        found["sd, draws"] = Estimate(float(np.mean([np.std(one, ddof=1) for one in several])))
    if len(seeds) > 1:
        by_seed = [[cell.values[seed] for seed in seeds] for cell in used[: len(columns)]]
        found["sd, seeds"] = Estimate(float(np.std(by_seed, axis=1, ddof=1).mean()))
    return found


def _lost_by(reference: Mapping[Column, Cell], conditions: Sequence[str], sign: float) -> np.ndarray:
    """What the reference loses under each condition; 0 where that is not known."""
    values: dict[str, list[float]] = defaultdict(list)
    for column, cell in reference.items():
        values[column.condition].append(cell.value)
    if not {CLEAN, *conditions} <= set(values):
        return np.zeros(len(conditions))
    return np.array([sign * (values[CLEAN][0] - np.mean(values[condition])) for condition in conditions])
