"""The encoder as one graph of tensor operations, for exporters: any batch, any length, no look at values."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from robustdistiller.upstream.fast.segment_extractor import conv_blocks
from robustdistiller.upstream.fast.window_statistics import fold
from robustdistiller.upstream.model.encoder import SpeechEncoder, normalize, pad_ends
from robustdistiller.upstream.model.log_mel import Count
from robustdistiller.upstream.model.module_list import ModuleList
from robustdistiller.upstream.model.values import fill, without_values

FRAME_LENGTHS = "frame_lengths"


class EncoderGraph(nn.Module):
    """What :class:`SpeechEncoder` computes in its ``"masked"`` mode, with tensors in and tensors out.

    Group norm is folded into the first convolution, see :mod:`~robustdistiller.upstream.fast.window_statistics`, in
    float32 alone: not every machine has more. Rumble below and hiss above differ by many orders of magnitude, so a
    window is described by its first sample and the differences between neighbours, which keeps them apart.

    Args:
        encoder: copied, in eval mode.
        layers: which hidden states to return, by number, in the upstream's order; ``None`` is all.
        rows: make the extractor of :func:`rows_conv`.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> encoder = SpeechEncoder(EncoderConfig(num_layers=1, embed_dim=16, num_heads=2, ffn_dim=32, position_groups=4))
    >>> graph = EncoderGraph(encoder)
    >>> states, lengths = graph(torch.randn(2, 4000), torch.tensor([4000, 2000]))
    >>> graph.names, [state.shape for state in states], lengths
    (('layer_input', 'layer_1'), [torch.Size([2, 12, 16]), torch.Size([2, 12, 16])], tensor([12, 6]))
    """

    def __init__(self, encoder: SpeechEncoder, layers: tuple[int, ...] | None = None, rows: bool = False):
        super().__init__()
        encoder = exportable(encoder)
        self.config = encoder.config
        self.extractor = _ExtractorGraph(encoder, rows) if self.config.front_end == "conv" else _LogMelGraph(encoder)
        self.encoder = encoder
        names = encoder.state_names()
        self.layers = tuple(range(len(names))) if layers is None else layers
        self.names = tuple(names[layer] for layer in self.layers)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Hidden states, each ``(batch, frames, dim)``, and ``(batch,)`` int64 valid frames of each utterance.

        Args:
            waveforms: ``(batch, samples)`` float32 at 16 kHz; what stands past an utterance's end does not matter.
            lengths: ``(batch,)`` int64 valid samples, at least the receptive field.
        """
        encoder, config = self.encoder, self.config
        if config.normalize_waveform:
            waveforms = normalize(waveforms, lengths, config.normalize_eps)
        features, frame_lengths = self.extractor(waveforms, lengths)
        projected = encoder.projection(encoder.feature_norm(features))
        valid = torch.arange(projected.shape[1], device=projected.device) < frame_lengths.unsqueeze(1)
        last = min(max(self.layers), config.num_layers)
        hidden_states = encoder.transformer(projected, valid, range(last + 1))
        states = [projected if config.starts_projected else hidden_states[0], *hidden_states[1:]]
        if max(self.layers) > config.num_layers:
            states += encoder.predict(hidden_states[-1])
        return [states[layer] for layer in self.layers], frame_lengths


def exportable(encoder: SpeechEncoder) -> SpeechEncoder:
    """A frozen copy of plain tensor operations."""
    with without_values():
        copy = SpeechEncoder(encoder.config)  # a deep copy would share the classes of parametrised modules
    if encoder.heads is None:
        copy.heads = None
    fill(copy, encoder.state_dict())
    for module in copy.modules():
        if parametrize.is_parametrized(module):
            for name in list(cast(nn.ModuleDict, module.parametrizations)):
                parametrize.remove_parametrizations(module, name)
    for layer in copy.transformer.layers:
        if layer.attention is not None:
            # Weights spelt out, as for a layer that reuses them: exporters guard the fused kernel's against NaN.
            layer.attention.lends = True
    return copy.eval().requires_grad_(False)


class _ExtractorGraph(nn.Module):
    windows: Tensor
    weight: Tensor
    norms: ModuleList[nn.Module]
    blocks: ModuleList[nn.ParameterList] | None

    def __init__(self, encoder: SpeechEncoder, rows: bool):
        super().__init__()
        extractor = encoder.extractor
        self.convs = ModuleList(layer.conv for layer in extractor.layers)
        self.norms = ModuleList(layer.norm or nn.Identity() for layer in extractor.layers)
        self.scale = extractor.scale
        kernel = self.convs[0].kernel_size[0]
        self.register_buffer("windows", (torch.eye(kernel) - torch.eye(kernel).roll(1, 0).tril()).unsqueeze(1))
        # w·x is v·d with the differences d of x, if v sums w from each place on.
        self.register_buffer("weight", self.convs[0].weight[:, 0].flip(1).cumsum(1).flip(1))
        self.blocks = None
        if rows:
            self.blocks = ModuleList(nn.ParameterList(b.T.contiguous() for b in conv_blocks(c)) for c in self.convs)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        lengths = _num_frames(lengths, self.convs[0])
        x = self._first(waveforms, lengths)
        for number, (conv, norm) in enumerate(zip(self.convs[1:], self.norms[1:]), 1):
            lengths = _num_frames(lengths, conv)
            if self.blocks is None:
                x = F.conv1d(x.transpose(1, 2), conv.weight, stride=conv.stride).transpose(1, 2)
            else:
                x = rows_conv(x, list(self.blocks[number]), conv.kernel_size[0], conv.stride[0])
            x = F.gelu(norm(x if conv.bias is None else x + conv.bias))
        return x if self.scale is None else x * self.scale, lengths

    def _first(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        conv, norm = self.convs[0], self.norms[0]
        windows = F.conv1d(waveforms.unsqueeze(1), self.windows, stride=conv.stride)  # (batch, kernel, frames)
        if not isinstance(norm, nn.GroupNorm):
            return F.gelu(norm(F.linear(windows.transpose(1, 2), self.weight, conv.bias)))
        valid = torch.arange(windows.shape[2], device=windows.device) < lengths.unsqueeze(1)
        count, valid = lengths.to(windows.dtype).view(-1, 1, 1), valid.unsqueeze(1)
        mean = (windows * valid).sum(2, keepdim=True) / count
        centred = (windows - mean) * valid
        weight, bias = fold(self.weight, norm, mean.squeeze(2), centred @ centred.transpose(1, 2) / count)
        return F.gelu(windows.transpose(1, 2) @ weight.transpose(1, 2) + bias.unsqueeze(1))


class _LogMelGraph(nn.Module):
    """The front end as it is: on spectra, its convolutions are little work."""

    def __init__(self, encoder: SpeechEncoder):
        super().__init__()
        self.config, self.plain = encoder.config, encoder.extractor

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        waveforms, ends = pad_ends(waveforms, lengths, self.config)
        return self.plain(waveforms, ends), self.plain.num_frames(ends)


@torch.library.custom_op("robustdistiller::rows_conv", mutates_args=())
def rows_conv(x: Tensor, blocks: list[Tensor], kernel: int, stride: int) -> Tensor:
    """Convolve ``x`` ``(batch, frames, inputs)``, unpadded, with a kernel given as blocks (see :func:`conv_blocks`).

    An operation of its own because exporters cannot follow the slices that make it matrix products: see
    :func:`~robustdistiller.upstream.export.onnx_file.rows_conv_nodes`.

    >>> rows_conv(torch.ones(1, 5, 2), [torch.ones(4, 3), torch.ones(2, 3)], 3, 2).tolist()
    [[[6.0, 6.0, 6.0], [6.0, 6.0, 6.0]]]
    """
    weight = torch.cat(blocks).view(kernel, x.shape[2], -1).permute(2, 1, 0)
    return F.conv1d(x.transpose(1, 2), weight, stride=stride).transpose(1, 2).contiguous()


@rows_conv.register_fake
def _(x: Tensor, blocks: list[Tensor], kernel: int, stride: int) -> Tensor:
    return x.new_empty(x.shape[0], (x.shape[1] - kernel) // stride + 1, blocks[0].shape[1])


def _num_frames(samples: Count, conv: nn.Conv1d) -> Count:
    return (samples - conv.kernel_size[0]) // conv.stride[0] + 1
