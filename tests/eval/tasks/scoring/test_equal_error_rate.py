"""The equal error rate of s3prl, which the benchmark's website shares, against one computed from its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("bridge")


def equal_error_rate(labels: np.ndarray, scores: np.ndarray) -> float:
    """Where the line through the operating points (one per threshold) crosses false alarms = misses."""
    points = [(0.0, 1.0)]
    for threshold in sorted(set(scores), reverse=True):
        accepted = scores >= threshold
        points.append((float(np.mean(accepted[labels == 0])), float(np.mean(~accepted[labels == 1]))))
    for (a0, m0), (a1, m1) in itertools.pairwise(points):
        if m0 - a0 >= 0 >= m1 - a1:
            share = (m0 - a0) / ((m0 - a0) - (m1 - a1)) if m0 - a0 > m1 - a1 else 0.0
            return a0 + share * (a1 - a0)
    raise AssertionError("the line from (0, 1) to (1, 0) crosses the diagonal")


@pytest.mark.parametrize("seed", range(10))
def test_s3prl_computes_the_equal_error_rate(seed):
    from s3prl.downstream.sv_voxceleb1.utils import EER

    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(60) % (2 + seed % 3) == 0).astype(int)
    scores = np.round(rng.normal(labels * rng.uniform(0, 2), 1.0), 1 if seed % 2 else 6)  # with and without ties
    assert EER(labels, scores)[0] == pytest.approx(equal_error_rate(labels, scores), abs=1e-9)


def test_counted_by_hand():
    from s3prl.downstream.sv_voxceleb1.utils import EER

    labels, scores = np.array([1, 1, 1, 1, 0, 0, 0, 0]), np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.3, 0.15, 0.1])
    assert EER(labels, scores)[0] == pytest.approx(0.25) == equal_error_rate(labels, scores)
