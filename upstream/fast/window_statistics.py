"""The group norm of the conv extractor without the tensor that it normalises.

The first convolution is linear in its windows of ``kernel`` samples, so over time a channel with weights ``w`` and bias
``b`` has the mean ``w·m + b`` and the variance ``w·S·w``, where ``m`` and ``S`` are mean and covariance of the windows.
Norm and convolution then are one convolution, whose result can be made in pieces of any length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WindowStatistics:
    """Sums over windows of a waveform, in float64: rumble below and hiss above differ by many orders of magnitude.

    Attributes:
        count: windows.
        total: ``(..., kernel)``, their sum.
        products: ``(..., kernel, kernel)``, the sum of their outer products.

    >>> first = WindowStatistics.of(torch.tensor([1.0, 2.0, 3.0, 4.0]), kernel=2, stride=1)
    >>> first.count, first.total.tolist()
    (3, [6.0, 9.0])
    >>> (first + first).products.tolist()
    [[28.0, 40.0], [40.0, 58.0]]
    """

    count: int | Tensor
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, waveform: Tensor, kernel: int, stride: int) -> WindowStatistics:
        """Statistics of the windows of ``waveform`` ``(..., samples)``."""
        windows = waveform.unfold(-1, kernel, stride).double()
        return cls(windows.shape[-2], windows.sum(-2), windows.transpose(-1, -2) @ windows)

    def __add__(self, other: WindowStatistics) -> WindowStatistics:
        return WindowStatistics(self.count + other.count, self.total + other.total, self.products + other.products)

    def fold(self, conv: nn.Conv1d, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Weights and bias of the convolution that does what ``conv`` and then ``norm`` do.

        Args:
            conv: one input channel.
            norm: as many groups as channels; its statistics over time are those of the windows.

        Returns:
            ``(..., channels, kernel)`` and ``(..., channels)``, in the weights' dtype.

        >>> conv, norm = nn.Conv1d(1, 3, 10, stride=5), nn.GroupNorm(3, 3)
        >>> waveform = torch.randn(400)
        >>> weight, bias = WindowStatistics.of(waveform, 10, 5).fold(conv, norm)
        >>> folded = nn.functional.conv1d(waveform[None], weight[:, None], bias, stride=5)
        >>> torch.allclose(folded, norm(conv(waveform[None, None]))[0], atol=1e-5)
        True
        """
        count = self.count.unsqueeze(-1) if isinstance(self.count, Tensor) else self.count
        mean = self.total / count
        covariance = self.products / (count.unsqueeze(-1) if isinstance(count, Tensor) else count)
        covariance = covariance - mean.unsqueeze(-1) * mean.unsqueeze(-2)
        weight, bias = fold(conv.weight[:, 0].double(), norm, mean, covariance)
        return weight.to(conv.weight.dtype), bias.to(conv.weight.dtype)


def fold(weight: Tensor, norm: nn.GroupNorm, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(..., channels, kernel)`` and bias ``(..., channels)`` of a linear map of windows and its group norm.

    Args:
        weight: ``(channels, kernel)`` of the map; its bias would move the mean alone, which the norm takes away.
        norm: as many groups as channels.
        mean: ``(..., kernel)``, of the windows.
        covariance: ``(..., kernel, kernel)``, of the windows.
    """
    variance = (weight @ covariance * weight).sum(-1).clamp(min=0)
    scale = norm.weight.to(weight.dtype) * torch.rsqrt(variance + norm.eps)
    shift = (weight * mean.unsqueeze(-2)).sum(-1)  # in an exported graph no matrix product, which might be quantised
    return weight * scale.unsqueeze(-1), norm.bias.to(weight.dtype) - shift * scale
