"""Exact resumption: a head whose training was stopped and goes on is, to the bit, one that was never stopped.

s3prl's checkpoints lack two things: where in the epoch the training was, and the state of the generators that shuffle,
crop and drop. Both are put into the checkpoint with the optimizer's state, which s3prl saves and which PyTorch reads as
if they were not there. A training that goes on sets the generators as they were when the epoch began, takes the batches
that it had taken, sets the generators as they were when it was saved, and goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import distributed

from robustdistiller.common.generators import generator_states, set_generator_states
from robustdistiller.eval.conditions.loader import LoaderView

_KEY = "robustdistiller"


def why_not_exact(config: Mapping[str, Any], states: Mapping[str, Any]) -> str:
    """Why a training cannot go on exactly from a checkpoint; empty where it can."""
    if config["runner"].get("fp16"):
        return "s3prl does not save the loss scale of half-precision training"
    if distributed.is_available() and distributed.is_initialized():
        return "of several processes only one is saved"
    if _KEY not in states.get("Optimizer", {}):
        return "the checkpoint does not say where in its epoch the training was"
    return ""


class ExactTraining:
    """Keeps one training's place, and takes it up again."""

    def __init__(self, states: Mapping[str, Any], device: str) -> None:
        self.device = str(device)
        self._saved: dict[str, Any] | None = states.get("Optimizer", {}).get(_KEY)
        self._epoch_began: dict[str, Any] = {}
        self._taken = 0

    def watch(self, optimizer: torch.optim.Optimizer) -> None:
        """Have the place saved with the optimizer's state."""
        optimizer.register_state_dict_post_hook(self._add_place)

    def _add_place(self, _: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        now = generator_states(self.device)
        return {**state, _KEY: {"epoch_began": self._epoch_began, "batches": self._taken, "now": now}}

    def in_place(self, get_dataloader: Callable, train_split: str) -> Callable:
        """An expert's ``get_dataloader`` whose first training loader begins where the training stopped."""

        @functools.wraps(get_dataloader)
        def wrapped(split: str, *args: Any, **options: Any) -> Any:
            if split != train_split:
                return get_dataloader(split, *args, **options)
            if self._saved:
                set_generator_states(self._saved["epoch_began"], self.device)
            self._epoch_began = generator_states(self.device)
            return LoaderView(get_dataloader(split, *args, **options), self.batches)

        return wrapped

    def batches(self, loader: Any) -> Iterator[Any]:
        """The batches of one epoch that are still to come."""
        saved, self._saved = self._saved, None
        self._taken = saved["batches"] if saved else 0
        batches = iter(loader)
        for _ in range(self._taken):
            next(batches)
        if saved:
            set_generator_states(saved["now"], self.device)
        for batch in batches:
            self._taken += 1
            yield batch
