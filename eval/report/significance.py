"""Confidence intervals and paired tests over the items of a test set.

All resampling is of whole items (utterances), and the same items are drawn for everything that is compared, so that
what makes an utterance hard for everybody cancels (Bisani and Ney 2004, "Bootstrap estimates for confidence intervals
in ASR performance evaluation"; McNemar 1947 for right-or-wrong answers).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from robustdistiller.eval.results.item_scores import ItemScores

CONFIDENCE = 0.95
DRAWS = 2000
_CHUNK = 100


@dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    Attributes:
        value: of all items.
        low, high: bounds of the interval; None where there are no results of single items.

    Example:
        >>> print(Estimate(3.0, 1.0, 5.0)), print(Estimate(3.0))
        +3.00 [+1.00, +5.00]
        +3.00
        (None, None)
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = f" [{self.low:+.2f}, {self.high:+.2f}]" if self.low is not None else ""
        return f"{self.value:+.2f}{interval}"


def resample(cells: Sequence[ItemScores], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Scores of several cells over the same randomly drawn items.

    Args:
        cells: scores of the same items in the same order.
        draws: number of bootstrap samples.
        seed: of the private generator.

    Returns:
        (draws, cells) scores.

    Raises:
        ValueError: there are no cells, or they differ in their number of items.

    Example:
        >>> right = ItemScores(np.array([1, 0, 1, 1]), np.ones(4))
        >>> resample([right, right], draws=3).shape
        (3, 2)
    """
    if not cells or len({len(cell.numerator) for cell in cells}) != 1:
        raise ValueError(f"resampling needs cells of the same items, found {[len(c.numerator) for c in cells]} items")
    items = len(cells[0].numerator)
    tops = np.stack([cell.numerator for cell in cells], axis=1).astype(np.float64)  # (items, cells)
    bottoms = np.stack([cell.denominator for cell in cells], axis=1).astype(np.float64)
    scales = np.array([cell.scale for cell in cells])
    counts = _counts(items, draws, seed)
    drawn = []
    for first in range(0, draws, _CHUNK):  # in pieces, so that counts are never all floats at once
        chunk = counts[first : first + _CHUNK].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append(scales * (chunk @ tops) / (chunk @ bottoms))
    return np.concatenate(drawn)


@functools.lru_cache(maxsize=4)
def _counts(items: int, draws: int, seed: int) -> np.ndarray:
    """(draws, items): how often each item is drawn. Kept, since all cells of a test set share them."""
    generator = np.random.default_rng(seed)
    counts = np.empty((draws, items), np.uint16)
    for draw in range(draws):
        counts[draw] = np.bincount(generator.integers(0, items, items), minlength=items)
    return counts


def interval(samples: np.ndarray, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Percentile interval of bootstrap samples; samples that could not be computed are left out.

    Example:
        >>> interval(np.arange(101.0), 0.5)
        (25.0, 75.0)
    """
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap(cell: ItemScores, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """A score with its bootstrap interval.

    Example:
        >>> found = bootstrap(ItemScores(np.array([1, 0] * 50), np.ones(100)))
        >>> found.value, round(found.low) in range(38, 43), round(found.high) in range(57, 63)
        (50.0, True, True)
    """
    return Estimate(cell.value, *interval(resample([cell], draws, seed)[:, 0]))


@dataclass(frozen=True)
class Comparison:
    """One system against another over the same items.

    Attributes:
        difference: of the first minus the second, in the metric's unit.
        p_value: two-sided, of there being no difference; None where there are no results of single items.
        test: ``McNemar``, ``paired bootstrap`` or empty.

    Example:
        >>> Comparison(Estimate(1.0)).test
        ''
    """

    difference: Estimate
    p_value: float | None = None
    test: str = ""


def compare(first: ItemScores, second: ItemScores, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Paired difference of two systems: bootstrap interval, and a test.

    McNemar's exact test where every item is right or wrong, otherwise the two-sided paired bootstrap.

    Raises:
        ValueError: the systems were not scored on the same number of items.

    Example:
        >>> a, b = np.array([1] * 30 + [0] * 10), np.array([1] * 15 + [0] * 25)
        >>> found = compare(ItemScores(a, np.ones(40)), ItemScores(b, np.ones(40)))
        >>> found.difference.value, found.test, f"{found.p_value:.0e}"
        (37.5, 'McNemar', '6e-05')
    """
    samples = resample([first, second], draws, seed)
    differences = samples[:, 0] - samples[:, 1]
    difference = Estimate(first.value - second.value, *interval(differences))
    if first.is_yes_or_no and second.is_yes_or_no:
        return Comparison(difference, mcnemar(first.numerator == 1, second.numerator == 1), "McNemar")
    below, above = int(np.sum(differences <= 0)), int(np.sum(differences >= 0))
    return Comparison(difference, min(1.0, 2 * (min(below, above) + 1) / (draws + 1)), "paired bootstrap")


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p-value of McNemar's test.

    Args:
        first: (items,) bool, right answers of one system.
        second: (items,) of the other.

    Example:
        >>> mcnemar(np.array([True, True, False]), np.array([True, False, True]))
        1.0
    """
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    if only_first + only_second == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def significant(p_values: Sequence[float | None], rate: float = 0.05) -> list[bool]:
    """Which of several tests stand when no more than `rate` of those that do may be false (Benjamini and Hochberg).

    Example:
        >>> significant([0.001, 0.04, None, 0.9])
        [True, False, False, False]
    """
    known = [p for p in p_values if p is not None]
    adjusted = iter(scipy.stats.false_discovery_control(known)) if known else iter(())
    return [p is not None and bool(next(adjusted) <= rate) for p in p_values]
