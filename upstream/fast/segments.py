"""The conv extractor for inference on a CPU: a piece of the waveform at a time, each layer one or two matrix products.

The largest tensors of the whole network, the outputs of the first layers, then stay in the processor's cache; memory
does not grow with the utterance but for what is returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.fast.window_statistics import WindowStatistics

if TYPE_CHECKING:
    from robustdistiller.upstream.model.extractor import ConvExtractor

SEGMENT_FRAMES = 64


class SegmentExtractor:
    """The layers of an extractor, with arranged copies of their weights. Keeps no gradients.

    >>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder
    >>> extractor = SpeechEncoder(EncoderConfig(num_layers=0)).extractor
    >>> waveform = torch.randn(32000)
    >>> with torch.no_grad():
    ...     whole, pieces = extractor(waveform[None])[0], SegmentExtractor(extractor).features(waveform)
    >>> torch.allclose(whole, pieces, atol=1e-4)
    True
    """

    def __init__(self, extractor: ConvExtractor):
        self.extractor = extractor
        first, *rest = extractor.layers
        self.kernel, self.stride = first.conv.kernel_size[0], first.conv.stride[0]
        self.normalises = isinstance(first.norm, nn.GroupNorm)
        self.plain = (first.conv.weight[:, 0], first.conv.bias)
        self.layers = [(layer, conv_blocks(layer.conv)) for layer in rest]

    def statistics(self, waveform: Tensor) -> WindowStatistics:
        """Of the first layer's windows of ``waveform`` ``(samples,)``."""
        return WindowStatistics.of(waveform, self.kernel, self.stride)

    def first_layer(self, statistics: WindowStatistics | None) -> tuple[Tensor, Tensor | None]:
        """Weights ``(channels, kernel)`` and bias of the first convolution, with group norm by these statistics."""
        if statistics is None or not self.normalises:
            return self.plain
        first = self.extractor.layers[0]
        return statistics.fold(first.conv, first.norm)

    def segment(self, samples: Tensor, first_layer: tuple[Tensor, Tensor | None]) -> Tensor:
        """Features ``(frames, channels)`` of a piece ``(samples,)``."""
        x = F.linear(samples.unfold(0, self.kernel, self.stride), *first_layer)
        x = F.gelu(_layer_norm(self.extractor.layers[0].norm, x))
        for layer, blocks in self.layers:
            x = F.gelu(_layer_norm(layer.norm, _convolve(x, layer.conv, blocks)))
        return x if self.extractor.scale is None else x * self.extractor.scale

    def features(self, waveform: Tensor) -> Tensor:
        """Features ``(frames, channels)`` of a whole utterance ``(samples,)``."""
        first_layer = self.first_layer(self.statistics(waveform) if self.normalises else None)
        frames, rate, field = self.extractor.num_frames(len(waveform)), self.extractor.stride, self.extractor.field
        pieces = []
        for start in range(0, frames, SEGMENT_FRAMES):
            stop = min(start + SEGMENT_FRAMES, frames)
            pieces.append(self.segment(waveform[start * rate : (stop - 1) * rate + field], first_layer))
        return torch.cat(pieces)


def conv_blocks(conv: nn.Conv1d) -> list[Tensor]:
    """The kernel cut into stretches of at most ``stride`` frames, each ``(channels, stretch * inputs)``.

    >>> [tuple(block.shape) for block in conv_blocks(nn.Conv1d(4, 8, 3, stride=2))]
    [(8, 8), (8, 4)]
    """
    width = conv.weight.shape[1]
    rows = conv.weight.permute(0, 2, 1).flatten(1)
    return list(rows.split(conv.stride[0] * width, dim=1))


def _convolve(x: Tensor, conv: nn.Conv1d, blocks: list[Tensor]) -> Tensor:
    """Convolve ``x`` ``(frames, inputs)``. A stretch of the kernel sees rows that do not overlap: nothing is copied."""
    width, (stride,) = x.shape[1], conv.stride
    frames = (x.shape[0] - conv.kernel_size[0]) // stride + 1
    y = None
    for number, block in enumerate(blocks):
        start = x.storage_offset() + number * stride * width
        rows = x.as_strided((frames, block.shape[1]), (stride * width, 1), start)
        y = F.linear(rows, block, conv.bias) if y is None else y.addmm_(rows, block.T)
    return y


def _layer_norm(norm: nn.Module | None, x: Tensor) -> Tensor:
    return norm(x) if isinstance(norm, nn.LayerNorm) else x
