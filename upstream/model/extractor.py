"""The front end: waveform to one vector per 20 ms, by convolutions on it or on its log-mel spectra.

wav2vec 2.0's is the first kind (https://arxiv.org/abs/2006.11477). SEW's, and the squeezed one of FitHuBERT and
ARMHuBERT, are other lists of convolutions.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.log_mel import Count, LogMel, num_windows
from robustdistiller.upstream.model.module_list import ModuleList


class Extractor(nn.Module):
    """Waveforms to frames by a stack of convolutions, in whatever way they are computed.

    Attributes:
        spectrum: what turns waveforms into the input of the first layer; None gives it the waveforms.
        layers: the convolutions.
        scale: a factor on each channel of the output, if the encoder has them.
    """

    spectrum: LogMel | None
    layers: ModuleList[ConvLayer]
    scale: nn.Parameter | None

    def inputs(self, waveforms: Tensor) -> Tensor:
        """What the first convolution sees of ``waveforms`` ``(batch, samples)``: ``(batch, channels, time)``."""
        return waveforms.unsqueeze(1) if self.spectrum is None else self.spectrum(waveforms)

    def first_frames(self, num_samples: Count) -> Count:
        """Outputs of the first convolution for ``num_samples`` samples (an integer or an integer tensor)."""
        steps = num_samples if self.spectrum is None else self.spectrum.num_frames(num_samples)
        return self.layers[0].num_frames(steps)

    def num_frames(self, num_samples: Count) -> Count:
        """Frames made from ``num_samples`` samples (an integer or an integer tensor), 0 where they are too few."""
        frames = self.first_frames(num_samples)
        for layer in self.layers[1:]:
            frames = layer.num_frames(frames)
        return frames


class ConvExtractor(Extractor):
    """Stack of unpadded convolutions with GELU, normalised as `EncoderConfig.conv_norm` says.

    >>> extractor = ConvExtractor(EncoderConfig(conv_layers=((8, 10, 5), (8, 3, 2))))
    >>> extractor(torch.zeros(2, 100)).shape
    torch.Size([2, 9, 8])
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.spectrum = LogMel(config.num_mel_bands) if config.front_end == "log_mel" else None
        inputs, layers = 1 if self.spectrum is None else config.num_mel_bands, []
        for index, (channels, kernel, stride) in enumerate(config.conv_layers):
            normalise = config.conv_norm == "layer" or index == 0
            layers.append(ConvLayer(inputs, channels, kernel, stride, config, config.conv_norm if normalise else None))
            inputs = channels
        self.layers = ModuleList(layers)
        self.scale = nn.Parameter(torch.ones(inputs)) if config.feature_scale else None

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None, moments: Moments | None = None) -> Tensor:
        """Extract features.

        Args:
            waveforms: ``(batch, samples)``, with the zeros at both ends that `EncoderConfig.front_padding` asks for.
            lengths: ``(batch,)`` valid samples of each utterance; group norm then takes its statistics from the valid
                frames only, and the valid frames equal those of each utterance alone. ``None``: from the whole rows.
            moments: what group norm is to take instead of statistics of its own, see :class:`TimeNorm`.

        Returns:
            ``(batch, frames, channels)``. Frames past an utterance's own count mean nothing.
        """
        first, *rest = self.layers
        x = first(self.inputs(waveforms), None if lengths is None else self.first_frames(lengths), moments)
        for layer in rest:
            x = layer(x)
        x = x.transpose(1, 2).contiguous()
        return x if self.scale is None else x * self.scale


class ConvLayer(nn.Module):
    """One convolution over ``(batch, channels, time)``, its norm if it has one, and GELU."""

    norm: TimeNorm | nn.LayerNorm | None

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int, config: EncoderConfig, norm: str | None):
        super().__init__()
        conv = HalfZeroSumConv if norm == "half_group" else nn.Conv1d
        self.conv = conv(inputs, channels, kernel, stride=stride, bias=config.conv_bias)
        nn.init.kaiming_normal_(self.conv.weight)
        self.norm = None
        if norm == "layer":
            self.norm = nn.LayerNorm(channels)
        elif norm is not None:
            self.norm = (TimeNorm if norm == "group" else HalfTimeNorm)(channels)

    def forward(self, x: Tensor, num_frames: Tensor | None = None, moments: Moments | None = None) -> Tensor:
        """Map ``(batch, channels, time)``; ``num_frames`` and ``moments`` are for group norm, see :class:`TimeNorm`."""
        x = self.conv(x)
        if isinstance(self.norm, TimeNorm):
            x = self.norm(x, num_frames, moments)
        elif self.norm is not None:
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return F.gelu(x)

    def num_frames(self, num_samples: Count) -> Count:
        """Frames made from ``num_samples`` inputs (an integer or an integer tensor), 0 where they are too few."""
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        return num_windows(num_samples, kernel, stride)


#: Mean and variance of each channel over time, each ``(batch, channels, 1)``.
Moments = tuple[Tensor, Tensor]


class TimeNorm(nn.GroupNorm):
    """Group norm with one group per channel: each channel of an utterance normalised over time.

    >>> norm, x = TimeNorm(3), torch.randn(2, 3, 50)
    >>> alone = norm(x[1:, :, :20])
    >>> torch.allclose(norm(x, torch.tensor([50, 20]))[1:, :, :20], alone, atol=1e-5)
    True
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels)

    def forward(self, x: Tensor, num_frames: Tensor | None = None, moments: Moments | None = None) -> Tensor:
        """Normalise ``(batch, channels, time)``.

        Args:
            x: in half precision it is normalised in float32, and returned in the type of the weights.
            num_frames: ``(batch,)`` valid frames of each row, of which the statistics are taken. ``None``: all.
            moments: the statistics themselves, instead.
        """
        if num_frames is None and moments is None:
            # Not F.group_norm, which refuses a single frame: as of a batch, what is left of it is the bias.
            return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        x = in_full(x)
        if moments is None:
            moments = moments_over_time(x, cast(Tensor, num_frames))
        mean, variance = moments
        scale = torch.rsqrt(variance + self.eps) * self.weight.unsqueeze(-1)
        return torch.addcmul(self.bias.unsqueeze(-1), x - mean, scale).to(self.weight.dtype)


class HalfTimeNorm(TimeNorm):
    """Group norm of the first half of the channels; the others are scaled and shifted alone.

    >>> norm, x = HalfTimeNorm(4), torch.randn(2, 4, 50)
    >>> torch.equal(norm(x)[:, :2], TimeNorm(4)(x)[:, :2]), torch.equal(norm(x)[:, 2:], x[:, 2:])
    (True, True)
    """

    def forward(self, x: Tensor, num_frames: Tensor | None = None, moments: Moments | None = None) -> Tensor:
        """Normalise ``(batch, channels, time)``, see :class:`TimeNorm`."""
        half = self.num_channels // 2
        scaled = x[:, half:] * self.weight[half:, None] + self.bias[half:, None]
        return torch.cat([super().forward(x, num_frames, moments)[:, :half], scaled.to(self.weight.dtype)], dim=1)


class HalfZeroSumConv(nn.Conv1d):
    """A convolution of which the second half of the filters sum to zero: what is added to all inputs does not reach it.

    On logarithms of a spectrum that is a gain.

    >>> conv, x = HalfZeroSumConv(80, 4, 3), torch.randn(1, 80, 20)
    >>> torch.allclose(conv(x + 5)[:, 2:], conv(x)[:, 2:], atol=1e-4), torch.allclose(conv(x + 5), conv(x))
    (True, False)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(batch, inputs, time)``."""
        free, bound = self.weight.chunk(2)
        weight = torch.cat([free, bound - bound.mean(dim=(1, 2), keepdim=True)])
        return F.conv1d(x, weight, self.bias, self.stride)


def in_full(x: Tensor) -> Tensor:
    """``x`` in float32 at least: half precision cannot count the samples of some seconds.

    >>> in_full(torch.ones(1, dtype=torch.float16)).dtype
    torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def moments_over_time(x: Tensor, num_frames: Tensor) -> Moments:
    """Mean and variance of the first ``num_frames`` ``(batch,)`` frames of ``x`` ``(batch, channels, time)``.

    In two passes, so that a large mean costs no precision.

    >>> mean, variance = moments_over_time(torch.tensor([[[1.0, 3.0, 99.0]]]), torch.tensor([2]))
    >>> mean.item(), variance.item()
    (2.0, 1.0)
    """
    valid = torch.arange(x.shape[-1], device=x.device) < num_frames.to(x.device).view(-1, 1, 1)
    count = num_frames.to(x.device).clamp(min=1).view(-1, 1, 1).to(x.dtype)
    mean = x.masked_fill(~valid, 0.0).sum(-1, keepdim=True) / count
    centred = (x - mean).masked_fill(~valid, 0.0)
    return mean, centred.square().sum(-1, keepdim=True) / count
