"""Evaluation in batches sorted by length, where s3prl evaluates one utterance at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .wrapper import CachedUpstream

_BATCHES_AT_ONCE = 8  # how many batches' worth of audio are read before they are sorted


class ReadAhead:
    """A loader that has the features of the batches to come computed together, and gives the batches in their order.

    The head still gets the batches one by one as s3prl makes them; only the upstream sees more at a time.

    Args:
        loader: of batches ``(waveforms, *others)``.
        cached: the upstream that reads ahead.
    """

    def __init__(self, loader: Any, cached: CachedUpstream) -> None:
        self.loader, self.cached = loader, cached

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        device = next((one.device for one in self.cached.parameters()), torch.device("cpu"))
        for batches in self._windows():
            wavs = [torch.as_tensor(wav, dtype=torch.float32) for batch in batches for wav in batch[0]]
            self.cached.read_ahead([wav.to(device) for wav in wavs])
            yield from batches

    def _windows(self) -> Iterator[list[Any]]:
        window, samples = [], 0
        for batch in self.loader:
            window.append(tuple(batch))  # s3prl's collate functions return iterators
            samples += sum(len(wav) for wav in window[-1][0])
            if samples >= _BATCHES_AT_ONCE * self.cached.read_ahead_s * 16000:
                yield window
                window, samples = [], 0
        if window:
            yield window
