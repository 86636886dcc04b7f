"""Are two upstreams different? A test that counts both the choice of test items and the seeds as chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """A mean difference with its uncertainty.

    Attributes:
        mean: treatment minus reference, in the unit of the scores.
        standard_error: over items and seeds.
        degrees: of freedom of the t distribution.
        p: two-sided.
        seeds: how many there were.
    """

    mean: float
    standard_error: float
    degrees: float
    p: float
    seeds: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval."""
        half = stats.t.ppf(0.975, self.degrees) * self.standard_error if self.standard_error else 0.0
        return self.mean - half, self.mean + half


def crossed_test(blocks: Sequence[np.ndarray]) -> Difference:
    """Tests whether a paired difference is zero when both items and seeds are drawn at random.

    Every item is scored by every seed, so differences are `mean + seed + item + rest`, with variances s, i and r. The
    variance of the mean over S seeds and N items, s/S + i/N + r/(SN), is estimated as the variance of the seed means
    over S, plus that of the item means over N, minus that of the rest over SN, which both contain. The degrees of
    freedom are Satterthwaite's. This is the quasi-F test of Clark (1973) for one contrast. A negative estimate of the
    seed part counts as zero, which leaves the paired t-test over items; with one seed, seeds cannot be counted at all.

    Args:
        blocks: one (seeds, items) array of paired differences per task; several are averaged with equal weight, the
            seeds being the same students in all of them.

    Raises:
        ValueError: no blocks, different numbers of seeds, or fewer than two items.

    >>> rounded = lambda d: (round(d.mean, 2), round(d.standard_error, 3), round(d.p, 3))
    >>> rounded(crossed_test([np.array([[1.0, 0.0, 1.0, 1.0]])]))  # one seed: the paired t-test
    (0.75, 0.25, 0.058)
    >>> rounded(crossed_test([np.array([[1.0, 0.0, 1.0, 1.0], [-1.0, 0.0, -1.0, 0.0]])]))  # the seeds disagree
    (0.12, 0.591, 0.874)
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
    error = float(np.sqrt(max(variance, 0.0)))
    if error == 0:
        return Difference(float(mean), 0.0, degrees, 1.0 if mean == 0 else 0.0, seeds)
    p = 2 * stats.t.sf(abs(mean) / error, degrees)
    return Difference(float(mean), error, float(degrees), float(p), seeds)


def adjust(p_values: Sequence[float]) -> np.ndarray:
    """Benjamini and Hochberg's adjusted p-values: those below 0.05 hold at most 5 % false discoveries on average.

    >>> adjust([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    return stats.false_discovery_control(p_values, method="bh") if len(p_values) else np.array([])
