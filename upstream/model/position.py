"""Position in the context network: a convolution over frames, and WavLM's gated relative position bias."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.module_list import ModuleList


class PositionalConv(nn.Module):
    """Convolutions over frames whose output is added to them, to encode position.

    One grouped, weight-normalised convolution (wav2vec 2.0, section 2), or a plain one behind a batch norm
    (mHuBERT-147), or a stack of plain ones, each followed by a layer norm without weights (data2vec). A batch norm
    keeps its statistics in training, too: those of a batch would be of its padding as well.

    Attributes:
        convs: the stack, or None.
        conv: the one convolution, where there is no stack.
        batch_norm: before it, or None.
    """

    convs: ModuleList[nn.Conv1d] | None
    conv: nn.Conv1d
    batch_norm: nn.BatchNorm1d | None

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.leaks = config.padding == "reference"
        stride = config.squeeze if config.squeeze_by == "pool" else 1
        dim, kernel = config.embed_dim, config.position_kernel
        convs = [
            nn.Conv1d(dim, dim, kernel, stride=stride, groups=config.position_groups)
            for _ in range(config.position_depth)
        ]
        self.convs = ModuleList(convs) if len(convs) > 1 else None
        if self.convs is not None:
            return
        nn.init.normal_(convs[0].weight, std=math.sqrt(4 / (kernel * dim)))
        # Its bias does not begin as zero, as fairseq's does: without a projection, and biases in the extractor, silence
        # would be nothing but zeros, and each of the layer norms would enlarge gradients 316 times.
        self.batch_norm = nn.BatchNorm1d(dim) if config.position_batch_norm else None
        # A weight norm changes its module in place, and returns it under a wider type.
        self.conv = convs[0] if config.position_batch_norm else cast(nn.Conv1d, weight_norm(convs[0], dim=2))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map ``(batch, frames, dim)``, zero past each utterance's end, to the same shape; ``valid`` marks the frames.

        Where the mean of several frames is taken (``squeeze_by="pool"``), to as many frames as there are means.

        In a stack the layers after the first would see what the first made of the padding, and a batch norm makes
        something of it at once. The implementations of data2vec and mHuBERT let that happen (``padding="reference"``).
        """
        x = x.transpose(1, 2)
        if self.convs is None:
            if self.batch_norm is not None:
                x = self._masked(self.batch_norm(x), valid)
            return F.gelu(self._around(self.conv, x)).transpose(1, 2)
        for conv in self.convs:
            y = self._around(conv, self._masked(x, valid)).transpose(1, 2)
            x = F.gelu(F.layer_norm(y, y.shape[-1:])).transpose(1, 2)
        return x.transpose(1, 2)

    def train(self, mode: bool = True) -> PositionalConv:
        """As of any module, but for the batch norm, which stays in eval mode."""
        super().train(mode)
        if self.convs is None and self.batch_norm is not None:
            self.batch_norm.eval()
        return self

    def behind_context(self, x: Tensor) -> Tensor:
        """What :meth:`forward` gives for ``x`` behind its first half kernel, frames that a stream has heard before.

        For one convolution without batch norm.
        """
        context = self.conv.kernel_size[0] // 2
        x, (stride,), size = F.pad(x.transpose(1, 2), (0, context)), self.conv.stride, x.shape[1] - context
        y = F.conv1d(x, self.conv.weight, self.conv.bias, stride=stride, groups=self.conv.groups)
        return F.gelu(y[..., : -(-size // stride)]).transpose(1, 2)

    def _masked(self, x: Tensor, valid: Tensor | None) -> Tensor:
        return x if valid is None or self.leaks else x.masked_fill(~valid.unsqueeze(1), 0.0)

    def _around(self, conv: nn.Conv1d, x: Tensor) -> Tensor:
        """Around each frame, or each first of ``stride`` frames; an even kernel reaches further back."""
        (kernel,) = conv.kernel_size
        return conv(F.pad(x, (kernel // 2, (kernel - 1) // 2)))


class RelativePositionBias(nn.Module):
    """Table of attention biases by bucketed distance: exact when near, logarithmic when far (WavLM, eq. 5).

    >>> RelativePositionBias(num_buckets=32, max_distance=100, num_heads=4)(6).shape
    torch.Size([4, 6, 6])
    """

    def __init__(self, num_buckets: int, max_distance: int, num_heads: int):
        super().__init__()
        self.max_distance = max_distance
        self.table = nn.Embedding(num_buckets, num_heads)

    def forward(self, frames: int) -> Tensor:
        """Biases ``(heads, query frames, key frames)``."""
        position = torch.arange(frames, device=self.table.weight.device)
        by_offset = self.table(self._bucket(torch.arange(1 - frames, frames, device=position.device)))
        return F.embedding(position - position.unsqueeze(1) + (frames - 1), by_offset).permute(2, 0, 1).contiguous()

    def _bucket(self, offsets: Tensor) -> Tensor:
        side = self.table.num_embeddings // 2
        exact = side // 2
        distance = offsets.abs()
        # The order of these operations decides on which side of a bucket's edge rounding falls: keep it.
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (side - exact)
        far = exact + far.long()
        bucket = torch.where(distance < exact, distance, far.clamp(max=side - 1))
        return bucket + side * (offsets > 0)


class PositionGate(nn.Module):
    """Factor on the position bias, per head and query frame, from the query's own input (WavLM, eq. 3-4 and 6).

    Each of the two gates sums four outputs of one linear map, shared by the heads, of the head's slice of the input.
    """

    scale: Tensor

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        self.heads = config.bias_columns[layer]
        self.head_dim = config.width_per_head
        self.linear = nn.Linear(self.head_dim, 8)
        # The gates of pruned heads stay in the file: parameters are counted, and written back, as they were.
        self.scale = nn.Parameter(torch.ones(1, config.total_heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Gates ``(batch, heads, frames, 1)`` for the layer input ``x`` ``(batch, frames, dim)``."""
        slices, scale = x.unflatten(-1, (self.scale.shape[1], self.head_dim)), self.scale
        if slices.shape[2] != len(self.heads):
            slices, scale = slices[:, :, list(self.heads)], scale[:, list(self.heads)]
        gates = self.linear(slices).unflatten(-1, (2, 4)).sum(-1).sigmoid().transpose(1, 2)
        a, b = gates.chunk(2, dim=-1)
        return a * (b * scale - 1) + 2
