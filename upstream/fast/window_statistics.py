"""The group norm of the conv extractor without the tensor that it normalises.

The first convolution is linear in its windows of ``kernel`` samples, so over time a channel with weights ``w`` and bias
``b`` has the mean ``w·m + b`` and the variance ``w·S·w``, where ``m`` and ``S`` are mean and covariance of the windows.
Norm and convolution then are one convolution, whose result can be made in pieces of any length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def window_moments(waveform: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
    """Mean ``(kernel,)`` and covariance ``(kernel, kernel)`` of the windows of ``waveform`` ``(samples,)``.

    In float64: rumble below and hiss above differ by many orders of magnitude.
    """
    windows = waveform.unfold(-1, kernel, stride).double()
    mean = windows.mean(0)
    return mean, windows.T @ windows / len(windows) - mean.unsqueeze(1) * mean


def fold_norm(waveform: Tensor, conv: nn.Conv1d, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Weights ``(channels, kernel)`` and bias of the convolution that does what ``conv`` and then ``norm`` do.

    Args:
        waveform: ``(samples,)``, what both hear.
        conv: one input channel.
        norm: as many groups as channels; its statistics over time are those of the windows.

    >>> conv, norm = nn.Conv1d(1, 3, 10, stride=5), nn.GroupNorm(3, 3)
    >>> waveform = torch.randn(400)
    >>> weight, bias = fold_norm(waveform, conv, norm)
    >>> folded = nn.functional.conv1d(waveform[None], weight[:, None], bias, stride=5)
    >>> torch.allclose(folded, norm(conv(waveform[None, None]))[0], atol=1e-5)
    True
    """
    moments = window_moments(waveform, conv.kernel_size[0], conv.stride[0])
    weight, bias = fold(conv.weight[:, 0].double(), norm, *moments)
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
