"""Loaders around a cache: what a split will need is said before it is computed, and features are computed ahead."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.generators import untouched_generators
from robustdistiller.eval.run.cache.wrapper import CachedUpstream

logger = logging.getLogger(__name__)

_SAMPLED_ITEMS = 16
_BATCHES_AT_ONCE = 8  # how many batches' worth of audio are read before they are sorted


def read_ahead(cached: CachedUpstream, loader: Any) -> Iterator[Any]:
    """The batches ``(waveforms, *others)`` of a loader in their order, the features of those to come computed together.

    s3prl evaluates one utterance at a time. The head still gets the batches as s3prl makes them; only the upstream sees
    more at a time, sorted by length.
    """
    device = next((one.device for one in cached.parameters()), torch.device("cpu"))
    for batches in _windows(loader, _BATCHES_AT_ONCE * cached.read_ahead_s * SAMPLE_RATE_HZ):
        wavs = [torch.as_tensor(wav, dtype=torch.float32) for batch in batches for wav in batch[0]]
        cached.read_ahead([wav.to(device) for wav in wavs])
        yield from batches


def _windows(loader: Any, enough: float) -> Iterator[list[Any]]:
    window, samples = [], 0
    for batch in loader:
        window.append(tuple(batch))  # s3prl's collate functions return iterators
        samples += sum(len(wav) for wav in window[-1][0])
        if samples >= enough:
            yield window
            window, samples = [], 0
    if window:
        yield window


def announcing(get_dataloader: Callable, cached: CachedUpstream) -> Callable:
    """An expert's ``get_dataloader`` that says of each split, the first time, how much room it will need."""
    said: set[str] = set()

    @functools.wraps(get_dataloader)
    def wrapped(split: str, *args: Any, **options: Any) -> Any:
        loader = get_dataloader(split, *args, **options)
        if split not in said:
            said.add(split)
            _announce(cached, loader, split)
        return loader

    return wrapped


def _announce(cached: CachedUpstream, loader: Any, split: str) -> None:
    loader = getattr(loader, "loader", loader)
    dataset, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    if cached.store is None or not hasattr(dataset, "__getitem__") or not len(dataset):
        return
    used = getattr(loader, "kept", range(len(dataset)))  # the part of a quick look
    count = len(used)
    chosen = sorted({int(used[int(place)]) for place in np.linspace(0, count - 1, min(_SAMPLED_ITEMS, count))})
    with untouched_generators():
        lengths = [[len(wav) for wav in next(iter(collate([dataset[index]])))] for index in chosen]
    utterances = count * sum(map(len, lengths)) / len(chosen)
    frames = 1 if cached.means else np.mean([round(n / cached.frame_samples) for item in lengths for n in item])
    needed, room = int(utterances * frames * cached.store.row_bytes), cached.store.room_bytes()
    logger.info(
        "Feature cache: split %s, about %.0f utterances, needs %.3g GB; %.3g GB are there, %.3g GB may be added",
        *(split, utterances, needed / 1e9, cached.store.size_bytes / 1e9, room / 1e9),
    )
    if needed > room + cached.store.size_bytes:
        logger.warning("Feature cache: it does not all fit; the rest is computed each time (--feature-cache-gb)")
