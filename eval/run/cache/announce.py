"""What a split will need in the cache, said before anything of it is kept."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from robustdistiller.common.generators import untouched_generators

if TYPE_CHECKING:
    from .wrapper import CachedUpstream

logger = logging.getLogger(__name__)

_SAMPLED_ITEMS = 16


def announcing(get_dataloader: Callable, cached: CachedUpstream) -> Callable:
    """An expert's ``get_dataloader`` that says of each split, the first time, what it will need."""
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
    count = len(dataset)
    chosen = sorted({int(index) for index in np.linspace(0, count - 1, min(_SAMPLED_ITEMS, count))})
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
