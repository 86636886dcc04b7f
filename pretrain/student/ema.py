"""The running average of a model's weights, which varies less than its latest weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class StudentAverage:
    """Exponential moving average of everything trained in a module: a <- d_n a + (1 - d_n) w after optimizer step n.

    d_n = min(decay, (1 + n) / (10 + n)), as in TensorFlow's `ExponentialMovingAverage`: early weights, which are far
    from the later ones, are forgotten sooner.

    Args:
        module: on its device; its parameters that require gradients are averaged.
        decay: 0 to 1, such as 0.999: about the last 1 / (1 - decay) steps count.

    >>> module = nn.Linear(1, 1, bias=False)
    >>> average = StudentAverage(module, decay=0.9)
    >>> before = module.weight.item()
    >>> _ = module.weight.data.add_(1.0)
    >>> average.update()
    >>> with average.applied():
    ...     round(module.weight.item() - before, 4)  # d_1 = 2 / 11
    0.8182
    >>> round(module.weight.item() - before, 4)
    1.0
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module, self.decay, self.steps = module, decay, 0
        self.weights = {name: weight.detach().clone() for name, weight in self._trained()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        trained = dict(self._trained())
        torch._foreach_lerp_(list(self.weights.values()), [trained[name].data for name in self.weights], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module has the averaged weights; afterwards exactly its own."""
        own = {name: weight.detach().clone() for name, weight in self._trained()}
        self.copy_to(self.module)
        try:
            yield
        finally:
            _copy(own, self.module)

    def copy_to(self, module: nn.Module) -> None:
        """Give a module of the same parameters the averaged weights."""
        _copy(self.weights, module)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.steps = state["steps"]
        for name, weight in state["weights"].items():
            self.weights[name].copy_(weight)

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, weight) for name, weight in self.module.named_parameters() if weight.requires_grad)


@torch.no_grad()
def _copy(weights: dict[str, Tensor], module: nn.Module) -> None:
    own = dict(module.named_parameters())
    for name, weight in weights.items():
        own[name].copy_(weight)
