"""The equal error rate: known cases, and a brute-force ROC curve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq

from robustdistiller.pretrain.multitask.evaluation import equal_error_rate


def eer_by_roc(scores: np.ndarray, same: np.ndarray) -> float:
    """Both error rates at every threshold, one by one, and a root finder on the interpolated curve."""
    thresholds = [np.inf, *sorted(set(scores), reverse=True)]
    accepts = np.array([np.mean(scores[~same] >= one) for one in thresholds])
    hits = np.array([np.mean(scores[same] >= one) for one in thresholds])
    place = np.arange(len(thresholds))
    accept, hit = interp1d(place, accepts), interp1d(place, hits)
    return float(accept(brentq(lambda x: accept(x) - (1 - hit(x)), 0, place[-1], xtol=1e-14)))


@pytest.mark.parametrize(
    ("scores", "same", "expected"),
    [
        ([3, 2, 1, 0], [1, 1, 0, 0], 0.0),
        ([3, 2, 1, 0], [0, 0, 1, 1], 1.0),
        ([3, 2, 1, 0], [1, 0, 1, 0], 0.5),
        ([5, 5, 5, 5], [1, 0, 1, 0], 0.5),  # nothing told apart: the straight line
        ([5, 5, 5, 5, 5], [1, 0, 0, 0, 0], 0.5),
        ([4, 3, 2, 1, 0, -1], [1, 1, 0, 1, 0, 0], 1 / 3),
        ([4, 3, 2, 1, 0], [1, 0, 1, 0, 0], 1 / 3),
        ([2, 1], [1, 0], 0.0),
    ],
)
def test_known_cases(scores, same, expected: float) -> None:
    assert equal_error_rate(scores, np.array(same, bool)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_equals_a_brute_force_roc_curve(ties: bool) -> None:
    generator = np.random.default_rng(5)
    for _ in range(50):
        same = generator.random(generator.integers(5, 80)) < generator.uniform(0.1, 0.9)
        same[:2] = [True, False]
        scores = generator.normal(size=len(same)) + same * generator.uniform(-1, 3)
        scores = scores.round(0 if ties else 9)
        assert equal_error_rate(scores, same) == pytest.approx(eer_by_roc(scores, same), abs=1e-9)


def test_order_and_scale_do_not_matter_but_the_sign_does() -> None:
    generator = np.random.default_rng(6)
    same = generator.random(200) < 0.4
    scores = generator.normal(size=200) + same
    order = generator.permutation(200)
    rate = equal_error_rate(scores, same)
    assert 0.2 < rate < 0.4
    assert equal_error_rate(7 * scores[order] - 3, same[order]) == rate
    assert equal_error_rate(-scores, same) == pytest.approx(1 - rate)


def test_what_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        equal_error_rate([1.0, float("nan")], [True, False])
