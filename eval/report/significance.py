"""Confidence intervals and tests that count the choice of test items, of their speakers and of seeds as chance.

One estimator serves single scores, summaries over conditions and differences of two systems. A score that is a ratio
of sums over items (WER: errors by words) is taken apart into one contribution of each item, whose mean is the score
and whose spread is that of the score (the delta method). Contributions of items of one speaker are added up first,
because utterances of a speaker are hard together. Then :func:`crossed_test` adds the variances of items and seeds.
Compared with a bootstrap this needs no draws, so that p-values can be as small as the data say, and it does not take
three seeds for many: few seeds mean few degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from robustdistiller.eval.results.item_scores import ItemScores

CONFIDENCE = 0.95
#: With fewer speakers their spread is not known well enough; items count one by one then.
FEWEST_SPEAKERS = 5
# Of intervals on the logit or log scale; the exponential of more than 700 is no number.
_WIDEST = 300.0
# Spreads below this share of the numbers are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
        value: the number, in the unit of the scores.
        standard_error: over items and seeds; None where there are no results of single items.
        degrees: of freedom of the t distribution.
        seeds: how many it is the mean of.
        limit: of a rate, which lies between 0 and this (100, or infinity); None for differences and other numbers.
        most: the largest size that a difference can have.
    """

    value: float
    standard_error: float | None = None
    degrees: float = float("inf")
    seeds: int = 1
    limit: float | None = None
    most: float = float("inf")

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval, of rates on the logit or log scale; None where nothing is known of the spread.

        That is without results of single items, and where a number is the same for all items and seeds, as where two
        systems give the same answers. Where that is 0 or 100 %, the interval is that of as many right or wrong answers
        (Clopper and Pearson 1934).
        """
        if self.standard_error is None or self._has_no_spread:
            return None
        if self.limit is not None and self.standard_error == 0:
            furthest = float(self.limit * ((1 - CONFIDENCE) / 2) ** (1 / (self.degrees + 1)))
            return (furthest, self.limit) if self.value > self.limit / 2 else (0.0, self.limit - furthest)
        half = stats.t.ppf((1 + CONFIDENCE) / 2, self.degrees) * self.standard_error if self.standard_error else 0.0
        if self.limit is None:
            return max(float(self.value - half), -self.most), min(float(self.value + half), self.most)
        if not 0 < self.value < self.limit:
            return max(float(self.value - half), 0.0), min(float(self.value + half), self.limit)
        odds = self.value / (1 - self.value / self.limit)  # the value itself where there is no limit
        width = half / (self.value * (1 - self.value / self.limit))
        factor = np.exp(min(width, _WIDEST))
        if np.isinf(self.limit):
            return float(odds / factor), float(odds * factor)
        low, high = (self.limit / (1 + self.limit / one) for one in (odds / factor, odds * factor))
        return float(low), float(high)

    @property
    def p(self) -> float | None:
        """Two-sided p-value of the number being zero; None where nothing is known of the spread, as of `interval`."""
        if self.standard_error is None:
            return None
        if self.standard_error == 0:
            return 1.0 if self.value == 0 else None
        return float(2 * stats.t.sf(abs(self.value) / self.standard_error, self.degrees))

    @property
    def _has_no_spread(self) -> bool:
        """Whether it is the same everywhere, so that no chance can be told from it; but for 0 and 100 %.

        There are no bounds of an error rate of 0: nobody knows how many errors an utterance can have.
        """
        if self.standard_error != 0 or self.limit is None:
            return self.standard_error == 0
        within = min(self.value, self.limit - self.value) > _ROUNDING * self.limit
        return within or np.isinf(self.limit)


def contributions(scores: ItemScores, speakers: Sequence[str] | None = None) -> np.ndarray:
    """What each item, or each speaker, contributes to a score: the mean of all is the score.

    Args:
        scores: of single items.
        speakers: (items,) the speaker of each; None, or fewer than `FEWEST_SPEAKERS` different ones: items count alone.

    Returns:
        (units,) in the unit of the score; speakers are in sorted order.
    """
    bottoms = scores.denominator.astype(np.float64)
    ratio = scores.numerator.sum(dtype=np.float64) / bottoms.sum()
    shares = scores.scale * (scores.numerator - ratio * bottoms) / bottoms.sum()
    if speakers is not None and len(names := np.unique(np.asarray(speakers))) >= FEWEST_SPEAKERS:
        shares = np.bincount(np.searchsorted(names, speakers), weights=shares)
    return scores.scale * ratio + len(shares) * shares


def crossed_test(blocks: Sequence[np.ndarray]) -> Estimate:
    """A mean, and whether it is zero, when both items and seeds are drawn at random.

    Every item is scored by every seed, so values are `mean + seed + item + rest`, with variances s, i and r. The
    variance of the mean over S seeds and N items, s/S + i/N + r/(SN), is estimated as the variance of the seed means
    over S, plus that of the item means over N, minus that of the rest over SN, which both contain. The degrees of
    freedom are Satterthwaite's, but not fewer than those of the smallest part: what is taken away can bring them near
    0, where an interval has no bounds. This is the quasi-F test of Clark (1973) for one contrast. A negative estimate
    of the seed part counts as zero, which leaves the paired t-test over items; with one seed, seeds cannot be counted
    at all.

    Args:
        blocks: one (seeds, items) array of contributions, or of paired differences of them, per task; several are
            averaged with equal weight, the seeds being the same students in all of them.

    Raises:
        ValueError: no blocks, different numbers of seeds, or fewer than two items.
    """
    if not blocks or any(block.ndim != 2 or block.shape[1] < 2 for block in blocks):
        raise ValueError("expected (seeds, items) arrays with at least two items each")
    seeds = blocks[0].shape[0]
    if any(block.shape[0] != seeds for block in blocks):
        raise ValueError(f"blocks have different numbers of seeds: {[block.shape[0] for block in blocks]}")
    share = 1 / len(blocks)
    mean = share * sum(block.mean() for block in blocks)
    by_item = share**2 * sum(block.mean(0).var(ddof=1) / block.shape[1] for block in blocks)
    items_left = sum(block.shape[1] - 1 for block in blocks)
    variance, degrees = by_item, float(items_left)
    if seeds > 1:
        seed_means = share * sum(block.mean(1) for block in blocks)
        by_seed = seed_means.var(ddof=1) / seeds
        rest = 0.0
        for block in blocks:
            residual = block - block.mean(0) - block.mean(1, keepdims=True) + block.mean()
            mean_square = (residual**2).sum() / ((seeds - 1) * (block.shape[1] - 1))
            rest += share**2 * mean_square / block.size
        if by_seed > rest:
            variance = by_item + by_seed - rest
            degrees = variance**2 / (
                by_seed**2 / (seeds - 1) + by_item**2 / items_left + rest**2 / ((seeds - 1) * items_left)
            )
            degrees = max(degrees, min(seeds - 1, items_left))
    error = float(np.sqrt(max(variance, 0.0)))
    if error <= _ROUNDING * max(float(np.abs(block).max()) for block in blocks):
        error = 0.0
    return Estimate(float(mean), error, float(degrees), seeds)


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p-value of McNemar's test (1947)."""
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second, 0.5).pvalue)


def adjust(p_values: Sequence[float]) -> np.ndarray:
    """p-values of a family of tests, corrected for there being several.

    Below 0.05, the chance of any false verdict in the family is at most 5 % (Holm 1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
