"""How well a system bears noise and rooms: three summaries over the conditions of one task.

They are this project's definitions, so their formulas are here in full. Let m(c) be the metric under condition c.

- mean: the plain mean of m(c) over all corrupted conditions (clean speech is a column of its own).
- degradation: 100 (m(clean) - mean) / m(clean) per cent where higher is better, 100 (mean - m(clean)) / m(clean) where
  lower is better. Positive is worse. Undefined where m(clean) is 0, and for metrics without a true zero (dB, PESQ).
- area: the area under m against SNR in dB by the trapezoid rule, divided by the range of SNRs: the mean of the metric
  over the range, whatever the grid. Conditions that differ in SNR only belong to one curve; there is one area for each.

Intervals are percentile bootstrap over utterances, the same utterances drawn under all conditions.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy

from robustdistiller.acoustics import Condition
from robustdistiller.eval.report.significance import DRAWS, Estimate, interval, resample
from robustdistiller.eval.results.item_scores import ItemScores

CLEAN = "clean"
#: Metrics of which a percentage makes sense: zero means none of what is counted.
_WITH_ZERO = ("accuracy", "wer", "cer", "per", "der", "frame_der", "eer", "mtwv", "slot_type_f1", "slot_value_cer")


@dataclass(frozen=True)
class Measured:
    """A metric under one condition.

    Attributes:
        value: the score.
        items: results of single items, None where there are none.

    Example:
        >>> Measured(75.0).items is None
        True
    """

    value: float
    items: ItemScores | None = None


@dataclass(frozen=True)
class Robustness:
    """Summaries of one system on one task; None where they are not defined for the conditions at hand.

    Attributes:
        mean: over corrupted conditions, in the metric's unit.
        degradation: relative to clean, per cent, positive is worse.
        areas: name of a curve (its condition without SNR) to the area under it, in the metric's unit.
        conditions: the corrupted conditions that `mean` and `degradation` are over.

    Example:
        >>> cells = {"clean": Measured(80.0), "noise:snr_db=0": Measured(40.0), "noise:snr_db=10": Measured(60.0)}
        >>> found = summarise(cells, "accuracy", higher_is_better=True)
        >>> found.mean.value, found.degradation.value, found.areas["noise"].value
        (50.0, 37.5, 50.0)
    """

    mean: Estimate | None
    degradation: Estimate | None
    areas: Mapping[str, Estimate] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()


def curves(conditions: list[str]) -> dict[str, list[tuple[float, str]]]:
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
    for condition in conditions:
        try:
            parsed = Condition.parse(condition)
        except ValueError:  # in the words of a paper, or of a later release
            continue
        snr_db = parsed.get("snr_db")
        if snr_db is None or not snr_db.is_single:  # a range is no point of a curve
            continue
        found[parsed.spelled(without=["snr_db"])].append((snr_db.low, condition))
    return {name: sorted(points) for name, points in found.items() if len(points) > 1}


def area_under_curve(snrs_db: list[float], values: np.ndarray) -> np.ndarray:
    """Trapezoid area under values against SNR, divided by the range of SNRs.

    Args:
        snrs_db: at least two, rising.
        values: (..., points).

    Returns:
        (...) in the unit of the values.

    Raises:
        ValueError: fewer than two SNRs, or they do not rise.

    Example:
        >>> float(area_under_curve([0, 10, 20], np.array([0.0, 50.0, 100.0])))
        50.0
    """
    if len(snrs_db) < 2 or any(later <= earlier for earlier, later in itertools.pairwise(snrs_db)):
        raise ValueError(f"an area under a curve needs two or more rising SNRs, found {snrs_db}")
    return scipy.integrate.trapezoid(values, snrs_db, axis=-1) / (snrs_db[-1] - snrs_db[0])


def summarise(
    cells: Mapping[str, Measured], metric: str, higher_is_better: bool, draws: int = DRAWS, seed: int = 0
) -> Robustness:
    """All summaries of one system on one task.

    Args:
        cells: condition to score; results of single items must be of the same items in the same order.
        metric: name of the metric.
        higher_is_better: its direction.
        draws: bootstrap samples.
        seed: of the bootstrap.

    Returns:
        Summaries, with intervals where all conditions they need have results of single items.
    """
    corrupted = tuple(c for c in cells if c != CLEAN)
    names = list(cells)
    values = np.array([cells[c].value for c in names])
    items = [cells[c].items for c in names]
    samples = None
    if names and all(i is not None for i in items) and len({len(i.numerator) for i in items}) == 1:
        samples = resample(items, draws, seed)  # (draws, conditions)

    def estimate(summary: Callable[[np.ndarray], np.ndarray]) -> Estimate | None:
        value = float(summary(values))
        if not math.isfinite(value):
            return None
        return Estimate(value) if samples is None else Estimate(value, *interval(summary(samples)))

    at = {name: i for i, name in enumerate(names)}
    noisy = [at[c] for c in corrupted]
    mean = estimate(lambda v: v[..., noisy].mean(axis=-1)) if noisy else None
    degradation = None
    if noisy and CLEAN in cells and metric in _WITH_ZERO and cells[CLEAN].value > 0:
        sign = 1.0 if higher_is_better else -1.0

        def relative(v: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore", divide="ignore"):
                clean = v[..., at[CLEAN]]
                lost = (
                    100.0 * sign * (clean[..., None] - v[..., noisy]).mean(axis=-1) / clean
                )  # equal scores: 0 exactly
            return np.where(np.isfinite(lost), lost, np.nan)

        degradation = estimate(relative)
    areas = {}
    for name, points in curves(list(corrupted)).items():
        columns, snrs = [at[c] for _, c in points], [snr for snr, _ in points]
        found = estimate(lambda v, columns=columns, snrs=snrs: area_under_curve(snrs, v[..., columns]))
        if found is not None:
            areas[name] = found
    return Robustness(mean, degradation, areas, corrupted)
