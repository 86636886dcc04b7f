"""The exponential moving average of a student's weights, kept beside the weights that are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class StudentAverage:
    """An exponential moving average of all floating-point parameters of a module.

    After update n (from 0), `average = d * average + (1 - d) * parameter` with `d = min(decay, (1 + n) / (10 + n))`, as
    in TensorFlow's `ExponentialMovingAverage` with `num_updates`: 0.1, 0.18, 0.25 ..., so that the start is soon
    forgotten. With decay 0.999 the last thousand steps or so count. The averages lie on the parameters' devices and in
    their precision. Buffers are not averaged.

    Args:
        module: what is averaged. Gates of pruning are averaged where they are part of it, as in
            `nn.ModuleDict({"student": student, "gates": gates})`.
        decay: of the average, from 0 (the parameters themselves) to below 1.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.num_updates = decay, 0
        self._parameters = {name: p for name, p in module.named_parameters() if p.is_floating_point()}
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters of now into the average; to be called after each optimizer step."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        weights = [parameter.detach() for parameter in self._parameters.values()]
        get_ema_multi_avg_fn(decay)(list(self._averages.values()), weights, self.num_updates)
        self.num_updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While it is entered, the module has the averages for parameters; afterwards what it had before, bit for bit.

        For validation and export, not for training, saving or loading.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """Averages by the names of their parameters, and how many updates they are of."""
        return {"num_updates": self.num_updates, "averages": dict(self._averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        for name, average in self._averages.items():
            average.copy_(state["averages"][name])
        self.num_updates = int(state["num_updates"])

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._averages[name] = self._averages[name], parameter.data
