"""The convolutional front end of wav2vec 2.0 (https://arxiv.org/abs/2006.11477): waveform to one vector per 20 ms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.fast.inference import Kept, plain_inference
from robustdistiller.upstream.fast.matrix_stack import features_by_products, matrix_products_fit
from robustdistiller.upstream.fast.segments import SegmentExtractor
from robustdistiller.upstream.model.config import EncoderConfig


class ConvExtractor(nn.Module):
    """Stack of unpadded convolutions with GELU, normalised over time (``"group"``) or over channels (``"layer"``).

    >>> extractor = ConvExtractor(EncoderConfig(conv_layers=((8, 10, 5), (8, 3, 2))))
    >>> extractor(torch.zeros(2, 100)).shape
    torch.Size([2, 9, 8])
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        inputs, layers = 1, []
        for index, (channels, kernel, stride) in enumerate(config.conv_layers):
            normalise = config.conv_norm == "layer" or index == 0
            layers.append(_ConvLayer(inputs, channels, kernel, stride, config, config.conv_norm if normalise else None))
            inputs = channels
        self.layers = nn.ModuleList(layers)
        self.scale = nn.Parameter(torch.ones(inputs)) if config.feature_scale else None
        self.stride, self.field = config.downsample_rate, config.receptive_field
        self._segments = Kept()

    def forward(self, waveforms: Tensor, lengths: list[int] | None = None) -> Tensor:
        """Extract features.

        Args:
            waveforms: ``(batch, samples)``.
            lengths: valid samples of each utterance; group norm then takes its statistics from the valid frames
                only, and the valid frames equal those of each utterance alone. ``None``: from the whole rows.

        Returns:
            ``(batch, frames, channels)``. Frames past an utterance's own count mean nothing.
        """
        if plain_inference(self, waveforms):
            return self._in_segments(waveforms, lengths)
        if matrix_products_fit(self, waveforms):
            x = features_by_products(self, waveforms, lengths)
        else:
            x = waveforms.unsqueeze(1)
            for layer in self.layers:
                if lengths is not None:
                    lengths = [layer.num_frames(length) for length in lengths]
                x = layer(x, lengths)
            x = x.transpose(1, 2)
        return x if self.scale is None else x * self.scale

    def _in_segments(self, waveforms: Tensor, lengths: list[int] | None) -> Tensor:
        segments = self._segments.get(self.parameters(), lambda: SegmentExtractor(self))
        frames = self.num_frames(waveforms.shape[1])
        rows = [segments.features(row[:length]) for row, length in zip(waveforms, lengths or [None] * len(waveforms))]
        return torch.stack([F.pad(row, (0, 0, 0, frames - len(row))) for row in rows])

    def num_frames(self, num_samples):
        """Frames made from ``num_samples`` samples (an integer or an integer tensor), 0 where they are too few."""
        for layer in self.layers:
            num_samples = layer.num_frames(num_samples)
        return num_samples


class _ConvLayer(nn.Module):
    def __init__(self, inputs: int, channels: int, kernel: int, stride: int, config: EncoderConfig, norm: str | None):
        super().__init__()
        self.conv = nn.Conv1d(inputs, channels, kernel, stride=stride, bias=config.conv_bias)
        nn.init.kaiming_normal_(self.conv.weight)
        self.norm = {
            None: lambda: None,
            "group": lambda: nn.GroupNorm(channels, channels),
            "layer": lambda: nn.LayerNorm(channels),
        }[norm]()

    def forward(self, x: Tensor, lengths: list[int] | None) -> Tensor:
        x = self.conv(x)
        if isinstance(self.norm, nn.LayerNorm):
            x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        elif self.norm is not None:
            x = self.norm(x) if lengths is None else _norm_valid(x, lengths, self.norm)
        return F.gelu(x)

    def num_frames(self, num_samples):
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        frames = (num_samples - kernel) // stride + 1
        return frames.clamp(min=0) if isinstance(frames, Tensor) else max(frames, 0)


def _norm_valid(x: Tensor, lengths: list[int], norm: nn.GroupNorm) -> Tensor:
    """Group norm of each row's first ``lengths`` frames; the rest becomes zero.

    One call per row: the same kernel as for an utterance alone, and cheaper than masked sums over the largest tensor
    of the whole network. ``unbind`` keeps the backward pass linear in the batch size.
    """
    frames = x.shape[-1]
    rows = [norm(row[None, :, :length]) for row, length in zip(x.unbind(0), lengths)]
    return torch.cat([F.pad(row, (0, frames - row.shape[-1])) for row in rows])
