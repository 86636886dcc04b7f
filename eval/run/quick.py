"""A quick look: a stated, seeded part of the data and few training steps, under a label of its own."""

from __future__ import annotations

import copy
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader


@dataclass(frozen=True)
class Quick:
    """How much of a task is looked at.

    Attributes:
        share: of the items of every split, above 0 and at most 1.
        steps: of the head's training at most.
        seed: of the choice of items.

    Raises:
        ValueError: a value makes no sense.

    Example:
        >>> Quick().label
        'quick: 10 % of items, 1000 steps'
    """

    share: float = 0.1
    steps: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"quick: the share must be above 0 and at most 1, found {self.share:g}")
        if self.steps < 1:
            raise ValueError(f"quick: expected at least one step, found {self.steps}")

    @property
    def label(self) -> str:
        """What records call it."""
        seed = f", seed {self.seed}" if self.seed else ""
        return f"quick: {self.share * 100:.3g} % of items, {self.steps} steps{seed}"

    def shorten(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A head's configuration with fewer steps, of which four are followed by an evaluation."""
        config = copy.deepcopy(dict(config))
        runner = config["runner"]
        if "total_steps" in runner:
            runner["total_steps"] = min(runner["total_steps"], self.steps)
            for name in {"eval_step", "save_step", "log_step"} & runner.keys():
                runner[name] = min(runner[name], math.ceil(runner["total_steps"] / 4))
        return config

    def kept(self, count: int, split: str) -> np.ndarray:
        """Which of a split's items are looked at, at least one: sorted indices, the same in every call."""
        generator = np.random.default_rng([self.seed, zlib.crc32(split.encode())])
        return np.sort(generator.choice(count, max(1, round(self.share * count)), replace=False))

    def part_of(self, loader: DataLoader, split: str) -> DataLoader:
        """A loader of the part, in the order and the batches that the whole loader's sampler gives it."""
        kept = self.kept(len(loader.dataset), split)
        if loader.batch_sampler is None:
            sampling = {"batch_size": None, "sampler": _KeptItems(loader.sampler, kept)}
        else:
            sampling = {"batch_sampler": _KeptBatches(loader.batch_sampler, kept)}
        part = DataLoader(
            loader.dataset,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            **sampling,
        )
        part.kept = kept
        return part

    def part_of_all(self, get_dataloader: Callable) -> Callable:
        """An expert's ``get_dataloader`` that gives a part of every split."""

        @functools.wraps(get_dataloader)
        def wrapped(split: str, *args: Any, **options: Any) -> DataLoader:
            return self.part_of(get_dataloader(split, *args, **options), split)

        return wrapped


class _KeptItems:
    """A sampler's indices, those of the part only."""

    def __init__(self, sampler: Any, kept: np.ndarray) -> None:
        self.sampler, self.kept = sampler, set(kept.tolist())

    def __iter__(self) -> Iterator[int]:
        return (index for index in self.sampler if index in self.kept)

    def __len__(self) -> int:
        return len(self.kept)


class _KeptBatches:
    """The same for a sampler of batches; batches of a fixed size are filled up."""

    def __init__(self, batches: Any, kept: np.ndarray) -> None:
        self.batches, self.kept = batches, set(kept.tolist())
        self.size = getattr(batches, "batch_size", None)

    def __iter__(self) -> Iterator[list[int]]:
        waiting: list[int] = []
        for batch in self.batches:
            waiting += [index for index in batch if index in self.kept]
            while waiting and len(waiting) >= (self.size or 1):
                size = self.size or len(waiting)
                yield waiting[:size]
                waiting = waiting[size:]
        if waiting:
            yield waiting

    def __len__(self) -> int:
        return math.ceil(len(self.kept) / self.size) if self.size else len(self.batches)
