"""Features of a frozen upstream: every hidden state that s3prl would weight, pooled or frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustdistiller.mini.pack import SAMPLE_RATE_HZ

BATCH_SECONDS = 16.0


@dataclass(frozen=True)
class Frames:
    """Hidden states of some items, frame by frame.

    Attributes:
        values: (frames, layers, dim) float32, all items one after another.
        lengths: (items,) frames of each.
    """

    values: Tensor
    lengths: Tensor

    def by_length(self) -> tuple[Frames, Tensor]:
        """The same items from the shortest to the longest, and (items,) where each was before."""
        order = self.lengths.argsort(stable=True)
        parts = self.values.split(self.lengths.tolist())
        return Frames(torch.cat([parts[index] for index in order.tolist()]), self.lengths[order]), order


def batches(lengths: Sequence[int], batch_seconds: float = BATCH_SECONDS) -> Iterator[list[int]]:
    """Indices of items grouped by length, the longest first, with at most so many padded seconds per group.

    >>> list(batches([16000, 48000, 32000, 8000], batch_seconds=4))
    [[1], [2, 0], [3]]
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    group: list[int] = []
    for index in order:
        longest = lengths[group[0]] if group else lengths[index]
        if group and longest * (len(group) + 1) > batch_seconds * SAMPLE_RATE_HZ:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def hidden_states(
    upstream: nn.Module, waveforms: Sequence[np.ndarray], autocast: bool = False
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Runs an upstream over batches of waveforms of similar length.

    An item has as many frames as s3prl keeps of it: its samples divided by the upstream's rate, rounded.

    Args:
        upstream: of s3prl's interface: a list of waveforms in, `hidden_states` out.
        waveforms: (samples,) float32 each.
        autocast: compute in bfloat16 where PyTorch does so.

    Yields:
        indices of the items; (batch, frames, layers, dim) float32 hidden states; (batch,) valid frames.
    """
    rate = upstream.get_downsample_rates("hidden_states")
    for indices in batches([len(waveform) for waveform in waveforms]):
        wavs = [torch.from_numpy(waveforms[index]) for index in indices]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            states = torch.stack([state.float() for state in upstream(wavs)["hidden_states"]], dim=2)
        frames = torch.tensor([max(1, round(len(wav) / rate)) for wav in wavs]).clamp(max=states.shape[1])
        yield indices, states, frames


def masked_means(states: Tensor, frames: Tensor) -> Tensor:
    """Means of the valid frames.

    Args:
        states: (batch, frames, layers, dim).
        frames: (batch,) valid frames.

    Returns:
        (batch, layers, dim).

    >>> masked_means(torch.tensor([1.0, 3.0, 9.0]).reshape(1, 3, 1, 1), torch.tensor([2])).item()
    2.0
    """
    valid = torch.arange(states.shape[1]) < frames[:, None]
    weights = valid / frames[:, None]
    return torch.einsum("btld,bt->bld", states, weights)


def pooled(upstream: nn.Module, waveforms: Sequence[np.ndarray], autocast: bool = False) -> Tensor:
    """Per-layer means over the valid frames of each item: (items, layers, dim) float32.

    A head that weights layers and projects them before mean pooling gives the same from these means, since all of that
    is linear.
    """
    means: list[Tensor] = [torch.empty(0)] * len(waveforms)
    for indices, states, frames in hidden_states(upstream, waveforms, autocast):
        for index, mean in zip(indices, masked_means(states, frames)):
            means[index] = mean
    return torch.stack(means).clone()


def framewise(upstream: nn.Module, waveforms: Sequence[np.ndarray], autocast: bool = False) -> Frames:
    """All valid frames of each item."""
    parts: list[Tensor] = [torch.empty(0)] * len(waveforms)
    for indices, states, frames in hidden_states(upstream, waveforms, autocast):
        for index, state, count in zip(indices, states, frames.tolist()):
            parts[index] = state[:count].clone()
    return Frames(torch.cat(parts).clone(), torch.tensor([len(part) for part in parts]))
