"""Measuring a network in the middle of its training, so that the training does not notice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode in full precision, after which every part is in the mode it was in; random numbers are not used up."""
    modes = {part: part.training for part in module.modules()}
    device = next(module.parameters()).device
    module.eval()
    try:
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for part, training in modes.items():
            part.training = training
