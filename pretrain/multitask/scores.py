"""What the two tasks are measured by."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def equal_error_rate(scores: ArrayLike, same: ArrayLike) -> float:
    """The error rate at which as many impostors are accepted as same-speaker trials are refused.

    Every distinct score is tried as the threshold; trials of equal score are accepted together. Between the two
    thresholds where the curves of the two error rates cross, both are taken as straight lines: the exact crossing of
    the ROC polygon with its anti-diagonal.

    Args:
        scores: (trials,) higher means more alike.
        same: (trials,) true for trials of one speaker.

    Returns:
        0 to 1.

    Raises:
        ValueError: shapes differ, a score is not finite, or there are no trials of one of the two kinds.

    >>> equal_error_rate([0.9, 0.8, 0.7, 0.1], [True, False, True, False])
    0.5
    >>> equal_error_rate([0.9, 0.8, 0.2, 0.1], [True, True, False, False])
    0.0
    """
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(f"scores have shape {scores.shape} and labels {same.shape}; expected (trials,) for both")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} scores are NaN or infinite")
    num_same, num_other = int(same.sum()), int((~same).sum())
    if not num_same or not num_other:
        raise ValueError(
            f"found {num_same} trials of one speaker and {num_other} of two; an equal error rate needs both"
        )
    order = np.argsort(-scores, kind="stable")
    last_of_its_score = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    accepted = np.concatenate([[0], last_of_its_score + 1])
    hits = np.concatenate([[0], np.cumsum(same[order])])[accepted]
    false_accepts = (accepted - hits) / num_other
    false_rejects = 1 - hits / num_same
    gap = false_accepts - false_rejects  # from -1 to 1, never falling
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(false_accepts[after - 1] + share * (false_accepts[after] - false_accepts[after - 1]))


def cosine_scores(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Cosine similarity, row by row: (trials, D) and (trials, D) to (trials,).

    >>> cosine_scores([[1.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [1.0, -1.0]])
    array([1., 0.])
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(lengths, 1e-12)
