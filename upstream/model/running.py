"""Statistics over time that grow with what has been heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from robustdistiller.upstream.model.extractor import in_full, moments_over_time


class Running(NamedTuple):
    """Statistics over time of what has been heard so far, merged without loss of precision (Chan et al. 1979).

    Attributes:
        count: ``(streams, 1, 1)``.
        mean: ``(streams, channels, 1)``.
        squares: ``(streams, channels, 1)``, sum of squared distances from the mean.
    """

    count: Tensor  # type: ignore[assignment]  # a tuple's method, which nobody calls here
    mean: Tensor
    squares: Tensor

    @classmethod
    def zeros(cls, streams: int, channels: int, zeros: Callable[..., Tensor]) -> Running:
        """Of nothing; ``zeros`` makes tensors."""
        return cls(zeros(streams, 1, 1), zeros(streams, channels, 1), zeros(streams, channels, 1))

    @classmethod
    def of(cls, state: Mapping[str, Tensor], name: str) -> Running:
        """What :meth:`named` put into a state."""
        return cls(*(state[f"{name}_{part}"] for part in cls._fields))

    def named(self, name: str) -> dict[str, Tensor]:
        """The parts as entries of a state."""
        return {f"{name}_{part}": value for part, value in zip(self._fields, self)}

    def extended(self, x: Tensor, num_frames: Tensor, counted: Tensor) -> Running:
        """With those of ``x`` ``(streams, channels, time)`` that are valid and not counted yet.

        Args:
            x: the first ``num_frames`` ``(streams,)`` positions of a stream are valid.
            num_frames: see ``x``.
            counted: ``(streams,)``, how many of the first positions are part of these statistics already.
        """
        x, new = in_full(x), (num_frames - counted).clamp(min=0)
        position = torch.arange(x.shape[-1], device=x.device) + counted.unsqueeze(1)
        moved = x.gather(2, position.clamp(max=x.shape[-1] - 1).unsqueeze(1).expand_as(x))
        mean, variance = moments_over_time(moved, new)
        new = new.view(-1, 1, 1).to(x.dtype)
        count = self.count + new
        share = new / count.clamp(min=1)
        distance = mean - self.mean
        squares = self.squares + variance * new + distance.square() * self.count * share
        return Running(count, self.mean + distance * share, squares)

    @property
    def variance(self) -> Tensor:
        """``(streams, channels, 1)``."""
        return self.squares / self.count.clamp(min=1)
