"""The conv extractor a piece of the waveform at a time, each layer one or two matrix products.

The largest tensors of the whole network, the outputs of the first layers, then stay in the processor's cache. Memory
does not grow with the utterance but for what is returned.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.fast.window_statistics import fold_norm
from robustdistiller.upstream.model.config import field_of
from robustdistiller.upstream.model.extractor import ConvLayer, Extractor, Moments, TimeNorm

SEGMENT_FRAMES = 64


class SegmentExtractor(Extractor):
    """A frozen :class:`~robustdistiller.upstream.model.extractor.ConvExtractor`.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> from robustdistiller.upstream.model.extractor import ConvExtractor
    >>> extractor = ConvExtractor(EncoderConfig()).eval()
    >>> waveforms = torch.randn(1, 32000)
    >>> with torch.no_grad():
    ...     torch.allclose(SegmentExtractor(extractor)(waveforms), extractor(waveforms), atol=1e-4)
    True
    """

    spectrum = None  # it hears waveforms

    def __init__(self, extractor: Extractor):
        super().__init__()
        self.layers, self.scale = extractor.layers, extractor.scale
        first = extractor.layers[0]
        self.kernel, self.stride = first.conv.kernel_size[0], first.conv.stride[0]
        shapes = [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in (layer.conv for layer in extractor.layers)]
        self.field, self.rate = field_of(shapes), prod([stride for _, _, stride in shapes])
        self.blocks = [conv_blocks(layer.conv) for layer in extractor.layers]

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None, moments: Moments | None = None) -> Tensor:
        """See :meth:`ConvExtractor.forward`."""
        frames = self.num_frames(waveforms.shape[1])
        ends = [None] * len(waveforms) if lengths is None else lengths.tolist()
        rows = []
        for number, (row, end) in enumerate(zip(waveforms, ends)):
            features = self._row(row[:end], None if moments is None else (moments[0][number], moments[1][number]))
            rows.append(F.pad(features, (0, 0, 0, frames - len(features))))
        return torch.stack(rows)

    def _row(self, waveform: Tensor, moments: Moments | None) -> Tensor:
        """Features ``(frames, channels)`` of an utterance ``(samples,)``."""
        weight, bias = self._first_layer(waveform, moments)
        frames, pieces = self.num_frames(len(waveform)), []
        for start in range(0, frames, SEGMENT_FRAMES):
            stop = min(start + SEGMENT_FRAMES, frames)
            piece = waveform[start * self.rate : (stop - 1) * self.rate + self.field]
            x = F.linear(piece.unfold(0, self.kernel, self.stride), weight, bias)
            x = F.gelu(_channel_norm(self.layers[0], x))
            for layer, blocks in zip(self.layers[1:], self.blocks[1:]):
                x = F.gelu(_channel_norm(layer, _convolve(x, layer.conv, blocks)))
            pieces.append(x if self.scale is None else x * self.scale)
        return torch.cat(pieces)

    def _first_layer(self, waveform: Tensor, moments: Moments | None) -> tuple[Tensor, Tensor | None]:
        """Weights ``(channels, kernel)`` and bias of the first convolution, group norm included."""
        conv, norm = self.layers[0].conv, self.layers[0].norm
        if not isinstance(norm, TimeNorm):
            return conv.weight[:, 0], conv.bias
        if moments is None:
            return fold_norm(waveform, conv, norm)
        mean, variance = (part.flatten() for part in moments)
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        offset = -mean if conv.bias is None else conv.bias - mean
        return conv.weight[:, 0] * scale.unsqueeze(1), norm.bias + offset * scale


def conv_blocks(conv: nn.Conv1d) -> list[Tensor]:
    """The kernel cut into stretches of at most ``stride`` frames, each ``(channels, stretch * inputs)``.

    >>> [tuple(block.shape) for block in conv_blocks(nn.Conv1d(4, 8, 3, stride=2))]
    [(8, 8), (8, 4)]
    """
    width = conv.weight.shape[1]
    rows = conv.weight.detach().permute(0, 2, 1).flatten(1)
    return list(rows.split(conv.stride[0] * width, dim=1))


def _convolve(x: Tensor, conv: nn.Conv1d, blocks: list[Tensor]) -> Tensor:
    """Convolve ``x`` ``(frames, inputs)``. A stretch of the kernel sees rows that do not overlap: nothing is copied."""
    width, (stride,) = x.shape[1], conv.stride
    frames = (x.shape[0] - conv.kernel_size[0]) // stride + 1
    rows = [
        x.as_strided((frames, block.shape[1]), (stride * width, 1), x.storage_offset() + number * stride * width)
        for number, block in enumerate(blocks)
    ]
    y = F.linear(rows[0], blocks[0], conv.bias)
    for part, block in zip(rows[1:], blocks[1:]):
        y.addmm_(part, block.T)
    return y


def _channel_norm(layer: ConvLayer, x: Tensor) -> Tensor:
    return layer.norm(x) if isinstance(layer.norm, nn.LayerNorm) else x
