"""The states of the random generators that everybody shares: Python's, NumPy's, PyTorch's and CUDA's."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def generator_states(device: str = "cpu") -> dict[str, Any]:
    """The states, in types that a PyTorch checkpoint may hold.

    Args:
        device: its generator too, where it is a GPU.

    Example:
        >>> states = generator_states()
        >>> first = torch.rand(1), random.random(), np.random.rand()
        >>> set_generator_states(states)
        >>> first == (torch.rand(1), random.random(), np.random.rand())
        True
    """
    name, keys, *others = np.random.get_state()
    states = {"python": random.getstate(), "numpy": [name, keys.tolist(), *others], "torch": torch.get_rng_state()}
    if device.startswith("cuda"):
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_states(states: Mapping[str, Any], device: str = "cpu") -> None:
    """Set the generators as they were.

    Args:
        states: of :func:`generator_states`.
        device: its generator too, where it is a GPU.
    """
    version, keys, following = states["python"]
    random.setstate((version, tuple(keys), following))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if device.startswith("cuda") and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def untouched_generators(device: str = "cpu") -> Iterator[None]:
    """The generators are after a ``with`` block as they were before it.

    Args:
        device: its generator too, where it is a GPU.

    Example:
        >>> random.seed(0)
        >>> with untouched_generators():
        ...     first = random.random()
        >>> random.random() == first
        True
    """
    states = generator_states(device)
    try:
        yield
    finally:
        set_generator_states(states, device)
