"""Cuts of speech: one rate, windows of long recordings, and what identifies a set of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from lhotse.cut import Cut

SAMPLE_RATE_HZ = 16_000


def at_16_khz(cut: Cut) -> Cut:
    """The cut, resampled when it is read if need be."""
    return cut if cut.sampling_rate == SAMPLE_RATE_HZ else cut.resample(SAMPLE_RATE_HZ)


def windows(cut: Cut, num_samples: int, min_samples: int) -> list[Cut]:
    """Consecutive pieces of at most `num_samples`; a last one shorter than `min_samples` is left out.

    >>> from lhotse.testing.dummies import dummy_cut
    >>> [(piece.id, piece.num_samples) for piece in windows(dummy_cut(0, duration=1.0), 7000, 1600)]
    [('dummy-mono-cut-0000@0', 7000), ('dummy-mono-cut-0000@7000', 7000), ('dummy-mono-cut-0000@14000', 2000)]
    """
    starts = range(0, cut.num_samples, num_samples)
    if len(starts) == 1:
        return [cut]
    lengths = [min(num_samples, cut.num_samples - start) for start in starts]
    return [
        cut.truncate(offset=start / SAMPLE_RATE_HZ, duration=length / SAMPLE_RATE_HZ, preserve_id=True).with_id(
            f"{cut.id}@{start}"
        )
        for start, length in zip(starts, lengths)
        if length >= min_samples
    ]


def window_lengths(lengths: np.ndarray, num_samples: int, min_samples: int) -> np.ndarray:
    """Lengths of the pieces that `windows` makes of recordings of these lengths, in another order.

    >>> window_lengths(np.array([16000, 3000]), 7000, 1600).tolist()
    [7000, 7000, 2000, 3000]
    """
    rest = lengths % num_samples
    rest = rest[(rest > 0) & ((lengths <= num_samples) | (rest >= min_samples))]
    return np.concatenate([np.full((lengths // num_samples).sum(), num_samples, lengths.dtype), rest])


def id_digest(cuts: Iterable[Cut]) -> str:
    """SHA-256 of ids and lengths, in hexadecimal."""
    digest = hashlib.sha256()
    for cut in cuts:
        digest.update(f"{cut.id}\t{cut.num_samples}\n".encode())
    return digest.hexdigest()
