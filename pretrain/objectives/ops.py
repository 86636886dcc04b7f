"""What the objectives share: padded batches, precision, and pooling of time over valid frames."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def valid_frames(frame_lengths: Tensor, num_frames: int) -> Tensor:
    """Which frames of a padded batch are real: (B, T) bool, from (B,) valid frames."""
    return torch.arange(num_frames, device=frame_lengths.device) < frame_lengths.unsqueeze(1)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of `values` where `valid`, of the same shape, is true; 0 if it never is."""
    return values.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision to float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(x: Tensor) -> contextlib.AbstractContextManager:
    """Context in which autocast leaves matrix products on the device of `x` in the precision of their inputs."""
    return torch.autocast(x.device.type, enabled=False)


def pool_frames(x: Tensor, valid: Tensor, frames: int) -> Tensor:
    """Adaptive average pooling of time over the valid frames of each utterance: (B, T, D) to (B, frames, D).

    It is `torch.nn.functional.adaptive_avg_pool1d` of the utterance without its padding, which comes last: with n valid
    frames, output f is the mean of the frames from floor(f n / frames) up to, not including, ceil((f + 1) n / frames).
    Utterances shorter than `frames` have frames repeated; without valid frames they are zeros. The result is float32
    (float64 stays).
    """
    lengths = valid.sum(1).reshape(-1, 1, 1)
    index = torch.arange(frames, device=x.device).reshape(1, -1, 1)
    start = torch.div(index * lengths, frames, rounding_mode="floor")
    end = -torch.div(-(index + 1) * lengths, frames, rounding_mode="floor")
    time = torch.arange(x.shape[1], device=x.device)
    x = at_least_float32(x).masked_fill(~valid.unsqueeze(-1), 0.0)
    with full_precision(x):
        weights = ((time >= start) & (time < end)).to(x.dtype) / (end - start).clamp(min=1)
        return weights @ x
