"""Heads trained on corrupted audio: the training loader under one or several conditions, and the note beside the head.

SUPERB trains heads on clean audio. Training them in noise answers another question (how much a head can make up for its
upstream), so it is asked for by name, noted beside the head, and part of every record of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from robustdistiller.acoustics import Condition, Corruptor, corrupt_utterance
from robustdistiller.acoustics.parameters import private_generator
from robustdistiller.eval.conditions.loader import LoaderView, corrupted_batches
from robustdistiller.eval.tasks import Task

_JOINED = " | "


@dataclass(frozen=True)
class TrainingCorruptor:
    """Corrupts training utterances, each under one of several conditions, by chance.

    Choice and draw depend on the utterance's id, the epoch and the seed only. No books are kept.
    """

    corruptors: tuple[Corruptor | None, ...]  # None for clean
    epoch: int
    seed: int = 0

    def __call__(self, waveform: np.ndarray, utterance_id: str) -> np.ndarray:
        """The utterance, corrupted or as it is."""
        generator = private_generator(self.seed, self.epoch, utterance_id, "train condition")
        chosen = self.corruptors[generator.integers(len(self.corruptors))]
        return waveform if chosen is None else corrupt_utterance(waveform, chosen, utterance_id, self.epoch)

    def take(self) -> tuple[dict, dict]:
        """As of `UtteranceCorruptor`: nothing."""
        return {}, {}


def training_batches(corrupt: TrainingCorruptor, task: Task, loader: DataLoader) -> Iterator[list]:
    """The batches of s3prl's training loader, under conditions."""
    with corrupted_batches(loader, corrupt, task):
        for waveforms, others, *_ in loader:
            yield [waveforms, *others]


@dataclass(frozen=True)
class TrainingPlan:
    """Conditions that a head is trained under.

    Attributes:
        corruptors: condition to what carries it out (None for clean).
        sources: description of the sources of each condition, as in records, in the order of the conditions. Two
            conditions may differ in their sources alone.
        seed: of the draws.
        task: the task's registry entry.
    """

    corruptors: Mapping[Condition, Corruptor | None]
    sources: Sequence[Mapping[str, Any]]
    seed: int
    task: Task

    @property
    def name(self) -> str:
        """What records call it."""
        return _JOINED.join(condition.label for condition in self.corruptors)

    def note(self) -> dict[str, Any]:
        """What is written beside the head."""
        return {"train_condition": self.name, "sources": list(self.sources), "seed": self.seed}

    def identity(self) -> dict[str, Any]:
        """What of it decides the head."""
        return identity_of(self.note())

    def wrap(self, get_dataloader: Callable, train_split: str) -> Callable:
        """The expert's ``get_dataloader`` with the training split under the conditions, all others as they are."""
        takes_epoch = "epoch" in inspect.signature(get_dataloader).parameters

        def wrapped(split: str, *args: Any, epoch: int = 0, **options: Any) -> Any:
            if takes_epoch:
                options["epoch"] = epoch
            loader = get_dataloader(split, *args, **options)
            if split != train_split:
                return loader
            if not takes_epoch and isinstance(loader.sampler, DistributedSampler):  # as s3prl does itself
                loader.sampler.set_epoch(epoch)
            corrupt = TrainingCorruptor(tuple(self.corruptors.values()), epoch, self.seed)
            return LoaderView(loader, partial(training_batches, corrupt, self.task))

        return wrapped


def identity_of(note: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `TrainingPlan.note` decides the head: of sources their contents, whatever their folders are called.

    Notes of earlier versions have the sources by the conditions' names.
    """
    sources = note["sources"]
    if isinstance(sources, Mapping):
        sources = [sources.get(name, {}) for name in note["train_condition"].split(_JOINED)]
    digests = [{kind: source["digest"] for kind, source in one.items()} for one in sources]
    return {**note, "sources": digests}
