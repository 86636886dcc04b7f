"""The equal error rate: known cases, and a brute-force ROC curve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq

from robustdistiller.pretrain.multitask.scores import cosine_scores, equal_error_rate


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


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([1.0, 2.0], [True, True], "found 2 trials of one speaker and 0 of two"),
        ([1.0, 2.0], [True], r"shape \(2,\) and labels \(1,\)"),
        ([1.0, float("nan")], [True, False], "1 of 2 scores are NaN"),
    ],
)
def test_what_cannot_be_scored_is_refused(scores, same, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equal_error_rate(scores, same)


def test_cosine_scores() -> None:
    generator = np.random.default_rng(7)
    first, second = generator.normal(size=(2, 9, 4))
    expected = [a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for a, b in zip(first, second)]
    np.testing.assert_allclose(cosine_scores(first, 5 * second), expected)
