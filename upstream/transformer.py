"""The context network: convolutional position encoding and transformer layers, with WavLM's relative position bias."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .config import EncoderConfig

_ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu}


class PositionalConv(nn.Module):
    """Grouped, weight-normalised convolution over frames whose output is added to them (wav2vec 2.0, section 2)."""

    def __init__(self, dim: int, kernel: int, groups: int):
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(self.conv.weight, std=math.sqrt(4 / (kernel * dim)))
        nn.init.zeros_(self.conv.bias)
        self.conv = weight_norm(self.conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, frames, dim)`` to the same shape."""
        y = self.conv(x.transpose(1, 2))[..., : x.shape[1]]  # an even kernel gives one frame too many
        return F.gelu(y).transpose(1, 2)


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
        offsets = torch.arange(1 - frames, frames, device=self.table.weight.device)
        by_offset = self.table(self._bucket(offsets)).T
        # Row i of the matrix is the window of offsets that starts at -i.
        return by_offset.unfold(1, frames, 1).flip(1)

    def _bucket(self, offsets: Tensor) -> Tensor:
        side = self.table.num_embeddings // 2
        exact = side // 2
        distance = offsets.abs()
        # The order of these operations decides on which side of a bucket's edge rounding falls: keep it.
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (side - exact)
        far = exact + far.long()
        bucket = torch.where(distance < exact, distance, far.clamp(max=side - 1))
        return bucket + side * (offsets > 0)


class SelfAttention(nn.Module):
    """Multi-head self-attention with an optional, optionally gated, position bias."""

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        self.num_heads, self.head_dim = config.heads[layer], config.width_per_head
        self.dropout = config.attention_dropout
        inner = self.num_heads * self.head_dim
        self.q_proj = nn.Linear(config.embed_dim, inner)
        self.k_proj = nn.Linear(config.embed_dim, inner)
        self.v_proj = nn.Linear(config.embed_dim, inner)
        self.out_proj = nn.Linear(inner, config.embed_dim)
        self.gate = None
        if config.relative_position:
            columns = torch.tensor(config.bias_columns[layer])
            self.register_buffer("bias_columns", columns, persistent=False)
            if config.gated_relative_position:
                self.gate = PositionGate(config, layer)

    def forward(self, x: Tensor, key_mask: Tensor | None, bias: Tensor | None) -> Tensor:
        """Attend over ``x`` ``(batch, frames, dim)``.

        Args:
            x: queries, keys and values.
            key_mask: ``(batch, 1, 1, frames)``, true where a frame may be attended to; ``None`` is everywhere.
            bias: ``(table heads, frames, frames)`` added to the logits.
        """
        batch, frames, _ = x.shape
        q, k, v = (
            projection(x).view(batch, frames, self.num_heads, self.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mask = key_mask
        if bias is not None:
            if bias.shape[0] != self.num_heads:
                bias = bias[self.bias_columns]
            mask = bias.unsqueeze(0) if self.gate is None else self.gate(x) * bias
            if key_mask is not None:
                mask = mask.masked_fill(~key_mask, float("-inf"))
            mask = mask.to(q.dtype).expand(batch, -1, -1, -1)
        elif key_mask is not None:
            mask = key_mask.expand(batch, 1, frames, frames)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(y.transpose(1, 2).reshape(batch, frames, -1))


class PositionGate(nn.Module):
    """Factor on the position bias, per head and query frame, from the query's own input (WavLM, eq. 3-4 and 6).

    Each of the two gates sums four outputs of one linear map, shared by the heads, of the head's slice of the input.
    """

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        self.heads = config.bias_columns[layer]
        self.head_dim = config.width_per_head
        self.linear = nn.Linear(self.head_dim, 8)
        self.scale = nn.Parameter(torch.ones(1, len(self.heads), 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Gates ``(batch, heads, frames, 1)`` for the layer input ``x`` ``(batch, frames, dim)``."""
        slices = x.unflatten(-1, (-1, self.head_dim))
        if slices.shape[2] != len(self.heads):
            slices = slices[:, :, list(self.heads)]
        gates = self.linear(slices).unflatten(-1, (2, 4)).sum(-1).sigmoid().transpose(1, 2)
        a, b = gates.chunk(2, dim=-1)
        return a * (b * self.scale - 1) + 2


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward parts with residuals; layer norm after each sum, or before each part."""

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        dim, ffn_dim = config.embed_dim, config.ffn_dims[layer]
        self.norm_first = config.norm_first
        self.activation = _ACTIVATIONS[config.activation]
        self.attention = SelfAttention(config, layer) if config.heads[layer] else None
        self.attention_norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, ffn_dim) if ffn_dim else None
        self.down = nn.Linear(ffn_dim, dim) if ffn_dim else None
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, x: Tensor, key_mask: Tensor | None, bias: Tensor | None) -> Tensor:
        """Map ``(batch, frames, dim)`` to the same shape; the other arguments as in :class:`SelfAttention`."""
        if self.norm_first:
            x = x + self._attend(self.attention_norm(x), key_mask, bias)
            return x + self._feed_forward(self.ffn_norm(x))
        x = self.attention_norm(x + self._attend(x, key_mask, bias))
        return self.ffn_norm(x + self._feed_forward(x))

    def _attend(self, x: Tensor, key_mask: Tensor | None, bias: Tensor | None) -> Tensor | float:
        return 0.0 if self.attention is None else self.dropout(self.attention(x, key_mask, bias))

    def _feed_forward(self, x: Tensor) -> Tensor | float:
        if self.up is None:
            return 0.0
        return self.dropout(self.down(self.activation_dropout(self.activation(self.up(x)))))


class Transformer(nn.Module):
    """Position encoding, layers, and the layer norm that stands before (post-norm) or after them (pre-norm).

    >>> config = EncoderConfig(embed_dim=16, num_layers=3, num_heads=2, ffn_dim=32, position_groups=4)
    >>> states = Transformer(config)(torch.zeros(1, 5, 16))
    >>> len(states), states[0].shape
    (4, torch.Size([1, 5, 16]))
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.norm_first, self.layerdrop = config.norm_first, config.layerdrop
        self.position = PositionalConv(config.embed_dim, config.position_kernel, config.position_groups)
        self.norm = nn.LayerNorm(config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config, index) for index in range(config.num_layers))
        self.position_bias = None
        if config.relative_position:
            table_heads = 1 + max((column for columns in config.bias_columns for column in columns), default=0)
            self.position_bias = RelativePositionBias(config.num_buckets, config.max_distance, table_heads)
        self.apply(_init_weights)

    def forward(self, x: Tensor, valid: Tensor | None = None, max_layer: int | None = None) -> list[Tensor]:
        """Contextualise frames.

        Args:
            x: ``(batch, frames, dim)``.
            valid: ``(batch, frames)``, true for frames that count; ``None`` is all.
            max_layer: stop after this many layers.

        Returns:
            The input of the first layer and the output of each layer run, each ``(batch, frames, dim)``.
        """
        key_mask = None
        if valid is not None:
            x = x.masked_fill(~valid.unsqueeze(-1), 0.0)  # what the position encoder sees past an utterance's end
            key_mask = valid[:, None, None, :]
        x = x + self.position(x)
        if not self.norm_first:
            x = self.norm(x)
        states = [self.dropout(x)]
        layers = self.layers[:max_layer]
        bias = self.position_bias(x.shape[1]) if self.position_bias is not None and layers else None
        for layer in layers:
            skip = self.training and self.layerdrop > 0 and torch.rand(()).item() < self.layerdrop
            states.append(states[-1] if skip else layer(states[-1], key_mask, bias))
        if self.norm_first and len(states) == len(self.layers) + 1:
            states[-1] = self.norm(states[-1])
        return states


def _init_weights(module: nn.Module) -> None:
    """BERT's initialisation, as in fairseq's wav2vec 2.0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
