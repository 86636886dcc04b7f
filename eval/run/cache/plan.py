"""What a run of the launcher asks of the cache, and what it says about it: the size first, the use at the end."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustdistiller.common.array_store import ArrayStore, StoreError
from robustdistiller.common.files import write_text

from .attach import FeatureCache, require_independent, selected
from .errors import CacheError
from .pooling import reads_means_only

logger = logging.getLogger(__name__)

DTYPES = {"fp32": "float32", "fp16": "float16"}
NOTE = "feature-cache.json"
_SAMPLED_ITEMS = 16


@dataclass(frozen=True)
class CachePlan:
    """How features are kept.

    Attributes:
        folder: of all caches, one folder below it for each upstream and kind of features; None keeps nothing.
        dtype: ``fp32``, exact, or ``fp16``, half the size, for frames; means are always ``fp32``.
        max_gb: limit of one cache, for training and for evaluation each.
        read_ahead_s: seconds of audio, padding included, that the upstream gets at a time in evaluation; 0 leaves the
            batches as s3prl makes them.

    Raises:
        CacheError: a value makes no sense.

    Example:
        >>> CachePlan("cache").dtype
        'fp32'
        >>> CachePlan("cache", dtype="int8")
        Traceback (most recent call last):
        robustdistiller.eval.run.cache.errors.CacheError: feature cache: dtype must be fp32 or fp16, found 'int8'
    """

    folder: str | None = None
    dtype: str = "fp32"
    max_gb: float = 50.0
    read_ahead_s: float = 0.0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise CacheError(f"feature cache: dtype must be {' or '.join(DTYPES)}, found {self.dtype!r}")
        if self.max_gb <= 0:
            raise CacheError(f"feature cache: the limit must be above 0 GB, found {self.max_gb:g}")
        if self.read_ahead_s < 0:
            raise CacheError(f"read ahead: expected 0 or more seconds, found {self.read_ahead_s:g}")

    @property
    def active(self) -> bool:
        """Whether anything is asked for."""
        return self.folder is not None or self.read_ahead_s > 0

    def open(
        self,
        upstream: torch.nn.Module,
        featurizer: Any,
        expert: Any,
        identity: Mapping[str, Any],
        device: str,
        pooled_head: bool,
        on_second: bool,
        evict: bool = False,
    ) -> FeatureCache:
        """The cache of one run.

        Args:
            upstream: frozen, in evaluation mode.
            featurizer: s3prl's.
            expert: s3prl's.
            identity: all that decides what the upstream computes: name, weights, options, versions.
            device: of the upstream.
            pooled_head: the expert's forward uses an utterance's frames only through its projector and model, so that
                means will do where those two read no more.
            on_second: keep features only of waveforms that come again.
            evict: at the limit, forget features that were not read for longest instead of keeping no more. Such
                features have a folder and a limit of their own.

        Raises:
            DependsOnBatch: the upstream's features do.
            CacheError: the folder cannot be used.
        """
        upstream.eval()
        require_independent(upstream, featurizer, device, str(identity.get("upstream")))
        with torch.no_grad():
            layers = selected(featurizer, upstream([torch.zeros(16000, device=device)]))
        dim = layers[0].shape[2]
        normalized = bool(getattr(featurizer, "normalize", False))
        means = self.folder is not None and pooled_head and not normalized and reads_means_only(expert, dim)
        kind, dtype = ("means", "float32") if means else ("frames", DTYPES[self.dtype])
        store = None
        if self.folder is not None:
            about = {**identity, "kind": kind, "feature_selection": featurizer.feature_selection,
                     "layer": featurizer.layer_selection, "frame_samples": featurizer.downsample_rate}  # fmt: skip
            digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
            name = f"{kind}-{dtype}" + "-evaluation" * evict
            folder = Path(self.folder) / f"{identity.get('upstream')}-{digest}" / name
            about = {"layers": len(layers), "dim": dim, **about}
            try:
                store = ArrayStore(folder, (len(layers), None, dim), dtype, about, int(self.max_gb * 1e9), evict)
            except StoreError as error:
                raise CacheError(str(error)) from error
            logger.info("Feature cache: %s of %d layers, %d utterances known, in %s", kind, len(layers), len(store),
                        folder)  # fmt: skip
        return FeatureCache(upstream, featurizer, store, means, on_second)

    def arguments(self) -> list[str]:
        """The same as options of the launcher.

        Example:
            >>> CachePlan("cache", max_gb=5).arguments()
            ['--feature-cache', 'cache', '--feature-cache-dtype', 'fp32', '--feature-cache-gb', '5']
        """
        words = [] if self.folder is None else ["--feature-cache", self.folder, "--feature-cache-dtype", self.dtype]
        words += [] if self.folder is None else ["--feature-cache-gb", f"{self.max_gb:g}"]
        return words + (["--read-ahead-s", f"{self.read_ahead_s:g}"] if self.read_ahead_s else [])

    @staticmethod
    def describe(cache: FeatureCache) -> str:
        """For records: what the head was given instead of features computed on the spot.

        Example:
            >>> from types import SimpleNamespace
            >>> store = SimpleNamespace(dtype=np.dtype("float16"))
            >>> CachePlan.describe(SimpleNamespace(store=store, means=False))
            'frames float16'
        """
        if cache.store is None:
            return ""
        return f"{'means' if cache.means else 'frames'} {cache.store.dtype.name}"


def write_note(folder: str | Path, cache: FeatureCache) -> None:
    """Note beside a head what features it is trained on, for its records.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> read_note(folder)
        ''
        >>> write_note(folder, FeatureCache(torch.nn.Linear(1, 1), None, ArrayStore(folder + "/f", (1, None, 1))))
        >>> read_note(folder)
        'frames float32'
    """
    text = json.dumps({"features": CachePlan.describe(cache)}) + "\n"
    write_text(Path(folder) / NOTE, text)


def read_note(folder: str | Path) -> str:
    """What features the head in a folder was trained on, empty where they were computed on the spot."""
    path = Path(folder) / NOTE
    return json.loads(path.read_text(encoding="utf-8"))["features"] if path.is_file() else ""


def announce(cache: FeatureCache, loader: Any, split: str) -> int | None:
    """Say what a split will need, before anything of it is kept.

    Args:
        cache: of the run.
        loader: s3prl's.
        split: name, for the message.

    Returns:
        bytes; None where the loader's data cannot be sampled.

    Example:
        >>> announce(FeatureCache(torch.nn.Linear(1, 1), None, None), [], "train") is None
        True
    """
    loader = getattr(loader, "loader", loader)
    dataset, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    if cache.store is None or not hasattr(dataset, "__getitem__") or not len(dataset):
        return None
    count = len(dataset)
    chosen = sorted({int(index) for index in np.linspace(0, count - 1, min(_SAMPLED_ITEMS, count))})
    with untouched_randomness():
        lengths = [[len(wav) for wav in next(iter(collate([dataset[index]])))] for index in chosen]
    utterances = count * sum(map(len, lengths)) / len(chosen)
    rate = cache.featurizer.downsample_rate
    frames = 1 if cache.means else np.mean([round(n / rate) for item in lengths for n in item])
    needed, room = int(utterances * frames * cache.store.row_bytes), cache.store.room_bytes()
    logger.info(
        "Feature cache: split %s, about %.0f utterances, needs %.3g GB; %.3g GB are there, %.3g GB may be added",
        *(split, utterances, needed / 1e9, cache.store.size_bytes / 1e9, room / 1e9),
    )
    if needed > room + cache.store.size_bytes:
        logger.warning("Feature cache: it does not all fit; the rest is computed each time (--feature-cache-gb)")
    return needed


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """The generators of Python, NumPy and PyTorch are after the block as they were before it.

    Example:
        >>> torch.manual_seed(0).initial_seed()
        0
        >>> with untouched_randomness():
        ...     _ = torch.rand(1)
        >>> torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))
        True
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def announcing(get_dataloader: Callable, cache: FeatureCache) -> Callable:
    """An expert's ``get_dataloader`` that says of each split, the first time, what it will need.

    Example:
        >>> announcing(lambda split: [split], FeatureCache(torch.nn.Linear(1, 1), None, None))("dev")
        ['dev']
    """
    said: set[str] = set()

    @functools.wraps(get_dataloader)
    def wrapped(split: str, *args: Any, **options: Any) -> Any:
        loader = get_dataloader(split, *args, **options)
        if split not in said:
            said.add(split)
            announce(cache, loader, split)
        return loader

    return wrapped
