"""Evaluation in batches sorted by length, where s3prl evaluates one utterance at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from .attach import FeatureCache

_SECONDS_PER_BATCH = 8  # how many batches' worth of audio are read before they are sorted


class ReadAhead:
    """A loader that has the features of the batches to come computed together, and gives the batches in their order.

    The head still gets the batches one by one as s3prl makes them; only the upstream sees more at a time.

    Args:
        loader: of batches ``(waveforms, *others)``.
        cache: in the upstream's place.
        seconds: of audio, padding included, that the upstream gets at a time.
        device: of the upstream.

    Example:
        >>> class Cache:
        ...     def read_ahead(self, wavs, seconds):
        ...         print([len(wav) for wav in wavs])
        >>> loader = [([torch.zeros(3)], "a"), ([torch.zeros(5)], "b")]
        >>> [name for _, name in ReadAhead(loader, Cache(), seconds=1, device="cpu")]
        [3, 5]
        ['a', 'b']
    """

    def __init__(self, loader: Any, cache: FeatureCache, seconds: float, device: str) -> None:
        self.loader, self.cache, self.seconds, self.device = loader, cache, seconds, device

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        for batches in self._windows(self.loader):
            wavs = [torch.as_tensor(wav, dtype=torch.float32) for batch in batches for wav in batch[0]]
            self.cache.read_ahead([wav.to(self.device) for wav in wavs], self.seconds)
            yield from batches

    def _windows(self, loader: Iterable[Any]) -> Iterator[list[Any]]:
        window, samples = [], 0
        for batch in loader:
            window.append(tuple(batch))  # s3prl's collate functions return iterators
            samples += sum(len(wav) for wav in window[-1][0])
            if samples >= _SECONDS_PER_BATCH * self.seconds * 16000:
                yield window
                window, samples = [], 0
        if window:
            yield window
