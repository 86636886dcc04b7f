"""Diarization: recordings are corrupted whole, before s3prl cuts them into parts.

How long the parts are depends on the upstream's frame rate (2000 frames are 20 s at 100 frames a second, 40 s at 50).
Noise that was drawn for each part would be another one for every frame rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from robustdistiller.eval.conditions.replay import ReplayedCorruptor


class CorruptedRecordings:
    """Stands in the place of ``load_wav`` of s3prl's ``KaldiData``: gives parts of recordings, each corrupted once.

    `part_samples` is the length of the parts, for manifests that were drawn for each part.
    """

    def __init__(self, stock: Callable, corrupt: Callable[[np.ndarray, str], np.ndarray], part_samples: int) -> None:
        self.stock, self.corrupt, self.part_samples = stock, corrupt, part_samples
        self._last: tuple[str, np.ndarray, int] | None = None

    def __call__(self, recording: str, start: int = 0, end: int | None = None) -> tuple[np.ndarray, int]:
        drawn = getattr(self.corrupt, "corruptor", None)
        part = f"{recording}-{start // self.part_samples:03d}"
        if isinstance(drawn, ReplayedCorruptor) and recording not in drawn and part in drawn:
            samples, rate_hz = self.stock(recording, start, end)
            return self.corrupt(samples, part), rate_hz
        if self._last is None or self._last[0] != recording:
            samples, rate_hz = self.stock(recording)
            self._last = recording, self.corrupt(samples, recording), rate_hz
        return self._last[1][start:end], self._last[2]


@contextmanager
def recordings_corrupted(dataset: Any, corrupt: Callable[[np.ndarray, str], np.ndarray]) -> Iterator[None]:
    """Within the block, a ``DiarizationDataset`` of s3prl gives parts of recordings that `corrupt` was called with."""
    part_samples = dataset.chunk_size * dataset.subsampling * dataset.frame_shift
    corrupted = CorruptedRecordings(dataset.data.load_wav, corrupt, part_samples)
    with mock.patch.object(dataset.data, "load_wav", corrupted):
        yield
