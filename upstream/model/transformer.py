"""The context network: convolutional position encoding and transformer layers, with WavLM's relative position bias."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint, noop_context_fn

from robustdistiller.upstream.fast.inference import Kept, plain_inference, plain_numbers
from robustdistiller.upstream.fast.overlap_save import OverlapSaveConv
from robustdistiller.upstream.model.config import EncoderConfig

_ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh"), "relu": F.relu}


class PositionalConv(nn.Module):
    """Convolutions over frames whose output is added to them, to encode position.

    One grouped, weight-normalised convolution (wav2vec 2.0, section 2), or a stack of plain ones, each followed by a
    layer norm without weights (data2vec).
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.leaks = config.padding == "reference"
        dim, kernel = config.embed_dim, config.position_kernel
        convs = [
            nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=config.position_groups)
            for _ in range(config.position_depth)
        ]
        if len(convs) > 1:
            self.convs = nn.ModuleList(convs)
            return
        self.convs = None
        nn.init.normal_(convs[0].weight, std=math.sqrt(4 / (kernel * dim)))
        nn.init.zeros_(convs[0].bias)
        self.conv = weight_norm(convs[0], dim=2)
        self._transformed = Kept()

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map ``(batch, frames, dim)``, zero past each utterance's end, to the same shape; ``valid`` marks the frames.

        In a stack the layers after the first would see what the first made of the padding. The implementations of
        data2vec let that happen (``padding="reference"``).
        """
        frames, x = x.shape[1], x.transpose(1, 2)
        if self.convs is None:
            conv = self.conv
            if plain_inference(self, x):
                conv = self._transformed.get(self.parameters(), lambda: OverlapSaveConv(self.conv))
            elif plain_numbers(self, x):
                conv = OverlapSaveConv(self.conv)  # the weights are others at the next step
            return F.gelu(conv(x)[..., :frames]).transpose(1, 2)  # an even kernel gives one frame too many
        for conv in self.convs:
            if valid is not None and not self.leaks:
                x = x.masked_fill(~valid.unsqueeze(1), 0.0)
            y = conv(x)[..., :frames].transpose(1, 2)
            x = F.gelu(F.layer_norm(y, y.shape[-1:])).transpose(1, 2)
        return x.transpose(1, 2)


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
        # Row i of the matrix is the window of offsets that starts at -i.
        return self.by_offset(frames).unfold(1, frames, 1).flip(1)

    def by_offset(self, frames: int) -> Tensor:
        """Biases ``(heads, 2 * frames - 1)`` of keys by their distance from the query, from ``1 - frames`` on."""
        offsets = torch.arange(1 - frames, frames, device=self.table.weight.device)
        return self.table(self._bucket(offsets)).T

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
        self.reuses, self.lends = layer in config.attention_reuse, layer + 1 in config.attention_reuse
        inner = self.num_heads * self.head_dim
        if not self.reuses:
            self.q_proj = nn.Linear(config.embed_dim, inner)
            self.k_proj = nn.Linear(config.embed_dim, inner)
        self.v_proj = nn.Linear(config.embed_dim, inner)
        self.out_proj = nn.Linear(inner, config.embed_dim)
        self.gate = None
        if config.relative_position and not self.reuses:
            columns = torch.tensor(config.bias_columns[layer])
            self.register_buffer("bias_columns", columns, persistent=False)
            if config.gated_relative_position:
                self.gate = PositionGate(config, layer)

    def forward(
        self, x: Tensor, key_mask: Tensor | None, bias: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over ``x`` ``(batch, frames, dim)``.

        Args:
            x: queries, keys and values.
            key_mask: ``(batch, 1, 1, frames)``, true where a frame may be attended to; ``None`` is everywhere.
            bias: ``(table heads, frames, frames)`` added to the logits.
            weights: ``(batch, heads, frames, frames)``, attention weights of the layer before; used by layers that
                reuse them.

        Returns:
            The output, and the attention weights if the next layer reuses them.
        """
        v = self._split(self.v_proj(x))
        if self.reuses:
            y = weights @ v
        else:
            q, k = self._split(self.q_proj(x)), self._split(self.k_proj(x))
            mask = self._mask(x, key_mask, bias)
            dropout = self.dropout if self.training else 0.0
            if self.lends:
                weights = _attention_weights(q, k, mask)
                y = F.dropout(weights, dropout) @ v
            else:
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(y.transpose(1, 2).flatten(2)), weights if self.lends else None

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(self, x: Tensor, key_mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
        batch, frames, _ = x.shape
        if bias is not None:
            if bias.shape[0] != self.num_heads:
                bias = bias[self.bias_columns]
            mask = bias.unsqueeze(0) if self.gate is None else self.gate(x) * bias
            if key_mask is not None:
                mask = mask.masked_fill(~key_mask, float("-inf"))
            return mask.to(x.dtype).expand(batch, -1, -1, -1)
        return None if key_mask is None else key_mask.expand(batch, 1, frames, frames)


def _attention_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)


class PositionGate(nn.Module):
    """Factor on the position bias, per head and query frame, from the query's own input (WavLM, eq. 3-4 and 6).

    Each of the two gates sums four outputs of one linear map, shared by the heads, of the head's slice of the input.
    """

    def __init__(self, config: EncoderConfig, layer: int):
        super().__init__()
        self.heads = config.bias_columns[layer]
        self.head_dim = config.width_per_head
        self.linear = nn.Linear(self.head_dim, 8)
        # The gates of pruned heads stay in the file: parameters are counted, and written back, as they were.
        self.scale = nn.Parameter(torch.ones(1, config.total_heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Gates ``(batch, heads, frames, 1)`` for the layer input ``x`` ``(batch, frames, dim)``."""
        slices, scale = x.unflatten(-1, (-1, self.head_dim)), self.scale
        if slices.shape[2] != len(self.heads):
            slices, scale = slices[:, :, list(self.heads)], scale[:, list(self.heads)]
        gates = self.linear(slices).unflatten(-1, (2, 4)).sum(-1).sigmoid().transpose(1, 2)
        a, b = gates.chunk(2, dim=-1)
        return a * (b * scale - 1) + 2


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

    def forward(
        self, x: Tensor, key_mask: Tensor | None, bias: Tensor | None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Map ``(batch, frames, dim)`` to the same shape; the rest as in :class:`SelfAttention`."""
        attended, weights = self._attend(self.attention_norm(x) if self.norm_first else x, key_mask, bias, weights)
        x = x + attended
        if self.norm_first:
            return x + self._feed_forward(self.ffn_norm(x)), weights
        x = self.attention_norm(x)
        return self.ffn_norm(x + self._feed_forward(x)), weights

    def _attend(self, x: Tensor, *context: Tensor | None) -> tuple[Tensor | float, Tensor | None]:
        if self.attention is None:
            return 0.0, None
        attended, weights = self.attention(x, *context)
        return self.dropout(attended), weights

    def _feed_forward(self, x: Tensor) -> Tensor | float:
        if self.up is None:
            return 0.0
        return self.dropout(self.down(self.activation_dropout(self.activation(self.up(x)))))


class Transformer(nn.Module):
    """Position encoding, layers, and the layer norm that stands before (post-norm) or after them (pre-norm).

    Attributes:
        recompute_layers: keep only the inputs of the layers for the backward pass, and compute the rest again there:
            less memory, more time, the same gradients.
        recompute_context: ``context_fn`` of :func:`torch.utils.checkpoint.checkpoint`, for those whose hooks on the
            layers need to know which forward pass is computed again.

    >>> config = EncoderConfig(embed_dim=16, num_layers=3, num_heads=2, ffn_dim=32, position_groups=4)
    >>> states = Transformer(config)(torch.zeros(1, 5, 16))
    >>> len(states), states[0].shape
    (4, torch.Size([1, 5, 16]))
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.norm_first, self.layerdrop = config.norm_first, config.layerdrop
        self.recompute_layers, self.recompute_context = False, noop_context_fn
        self.position = PositionalConv(config)
        self.norm = nn.LayerNorm(config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TransformerLayer(config, index) for index in range(config.num_layers))
        self.position_bias = None
        if config.relative_position:
            self.position_bias = RelativePositionBias(config.num_buckets, config.max_distance, config.total_heads)
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
        x = x + self.position(x, valid)
        if not self.norm_first:
            x = self.norm(x)
        states = [self.dropout(x)]
        layers = self.layers[:max_layer]
        bias = self.position_bias(x.shape[1]) if self.position_bias is not None and layers else None
        weights = None
        for layer in layers:
            skip = self.training and self.layerdrop > 0 and torch.rand(()).item() < self.layerdrop
            if not skip:
                x, weights = self._run(layer, states[-1], key_mask, bias, weights)
            states.append(states[-1] if skip else x)
        if self.norm_first and len(states) == len(self.layers) + 1:
            states[-1] = self.norm(states[-1])
        return states

    def _run(self, layer: TransformerLayer, *inputs: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.recompute_layers and torch.is_grad_enabled():
            # Dropout is drawn the same again.
            return checkpoint(layer, *inputs, use_reentrant=False, context_fn=self.recompute_context)
        return layer(*inputs)


def _init_weights(module: nn.Module) -> None:
    """BERT's initialisation, as in fairseq's wav2vec 2.0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
