"""The context network: position encoding and transformer layers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.module_list import ModuleList
from robustdistiller.upstream.model.position import PositionalConv, PositionGate, RelativePositionBias
from robustdistiller.upstream.model.squeeze import Squeeze

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class SelfAttention(nn.Module):
    """Multi-head self-attention with an optional, optionally gated, position bias."""

    bias_columns: Tensor

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
        self.columns = config.bias_columns[layer] if config.relative_position and not self.reuses else ()
        self.reset_buffers()
        if self.columns and config.gated_relative_position:
            self.gate = PositionGate(config, layer)

    def reset_buffers(self) -> None:
        """Compute what is constant; to be called again where this was built without values, on the device ``meta``."""
        if self.columns:
            self.register_buffer("bias_columns", torch.tensor(self.columns), persistent=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        weights: Tensor | None = None,
        cache: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend over ``x`` ``(batch, frames, dim)``.

        Args:
            x: queries, keys and values.
            mask: ``(batch, 1, 1 or frames, keys)``, true where a frame may be attended to; ``None`` is everywhere.
            bias: ``(table heads, frames, keys)`` added to the logits.
            weights: ``(batch, heads, frames, keys)``, attention weights of the layer before; used by layers that
                reuse them.
            cache: keys and values of frames before ``x``, for streams, each ``(batch, heads, frames, head_dim)``; those
                of ``x`` are appended, in place.

        Returns:
            The output, and the attention weights if the next layer reuses them.
        """
        v = self._split(self.v_proj(x))
        if self.reuses:
            if weights is None:
                raise ValueError("attention weights are None; expected those of the layer before, to be reused")
            y = weights @ v
        else:
            q, k = self._split(self.q_proj(x)), self._split(self.k_proj(x))
            if cache is not None:
                k, v = cache[:] = [torch.cat(parts, dim=2) for parts in zip(cache, (k, v))]
            mask = self._mask(x, mask, bias)
            dropout = self.dropout if self.training else 0.0
            if self.lends:
                weights = _attention_weights(q, k, mask)
                y = F.dropout(weights, dropout) @ v
            else:
                y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(y.transpose(1, 2).flatten(2)), weights if self.lends else None

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(self, x: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
        if bias is None:
            return None if mask is None else mask.expand(-1, -1, x.shape[1], -1)
        if bias.shape[0] != self.num_heads:
            bias = bias[self.bias_columns]
        bias = bias.unsqueeze(0) if self.gate is None else self.gate(x) * bias
        if mask is not None:
            bias = bias.masked_fill(~mask, float("-inf"))
        return bias.to(x.dtype).expand(x.shape[0], -1, -1, -1)


def _attention_weights(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)


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
        self,
        x: Tensor,
        mask: Tensor | None,
        bias: Tensor | None,
        weights: Tensor | None = None,
        cache: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Map ``(batch, frames, dim)`` to the same shape; the rest as in :class:`SelfAttention`."""
        attended, weights = self._attend(self.attention_norm(x) if self.norm_first else x, mask, bias, weights, cache)
        x = x + attended
        if self.norm_first:
            return x + self._feed_forward(self.ffn_norm(x)), weights
        x = self.attention_norm(x)
        return self.ffn_norm(x + self._feed_forward(x)), weights

    def _attend(self, x: Tensor, *context: Tensor | list[Tensor] | None) -> tuple[Tensor | float, Tensor | None]:
        if self.attention is None:
            return 0.0, None
        attended, weights = self.attention(x, *context)
        return self.dropout(attended), weights

    def _feed_forward(self, x: Tensor) -> Tensor | float:
        if self.up is None or self.down is None:
            return 0.0
        return self.dropout(self.down(self.activation_dropout(self.activation(self.up(x)))))


class Transformer(nn.Module):
    """Position encoding, layers, and the layer norm that stands before (post-norm) or after them (pre-norm).

    Attributes:
        recompute_layers: keep only the inputs of the layers for the backward pass, and compute the rest again there:
            less memory, more time, the same gradients.
        recompute_context: ``context_fn`` of :func:`torch.utils.checkpoint.checkpoint`, for those whose hooks on the
            layers need to know which forward pass is computed again.

    >>> states = Transformer(EncoderConfig.tiny(num_layers=3))(torch.zeros(1, 5, 16), layers=(0, 2))
    >>> [None if state is None else tuple(state.shape) for state in states]
    [(1, 5, 16), None, (1, 5, 16)]
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.norm_first, self.layerdrop = config.norm_first, config.layerdrop
        self.norms_last = config.norm_first and config.last_state_normed
        self.recompute_layers, self.recompute_context = False, noop_context_fn
        self.position = PositionalConv(config)
        self.squeeze = Squeeze(config) if config.squeeze > 1 else None
        self.norm = nn.LayerNorm(config.embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = ModuleList(TransformerLayer(config, index) for index in range(config.num_layers))
        self.position_bias = None
        if config.relative_position:
            self.position_bias = RelativePositionBias(config.num_buckets, config.max_distance, config.total_heads)
        self.apply(_init_weights)

    def forward(
        self, x: Tensor, valid: Tensor | None = None, layers: Collection[int] | None = None
    ) -> list[Tensor | None]:
        """Contextualise frames.

        Args:
            x: ``(batch, frames, dim)``.
            valid: ``(batch, frames)``, true for frames that count; ``None`` is all.
            layers: numbers of the states to keep; what lies behind the last of them is not run. ``None``: all.

        Returns:
            The input of the first layer and the output of each layer run, each ``(batch, frames, dim)``; None where
            ``layers`` does not list it.
        """
        frames, squeeze = x.shape[1], self.squeeze
        if valid is not None:
            x = x.masked_fill(~valid.unsqueeze(-1), 0.0)  # what the position encoder sees past an utterance's end
        pooled = x if squeeze is None else squeeze.pool(x, valid)
        x = pooled + self.position(x, valid)[:, : pooled.shape[1]]
        if not self.norm_first:
            x = self.norm(x)
        if squeeze is not None:
            x, valid = squeeze.convolve(x, valid), None if valid is None else squeeze.valid(valid, frames)
        mask = None if valid is None else valid[:, None, None, :]
        x = self.dropout(x)
        last = len(self.layers) if layers is None else max(layers)
        states = [x if layers is None or 0 in layers else None]
        bias = self.position_bias(x.shape[1]) if self.position_bias is not None and last else None
        weights = None
        for number, layer in enumerate(self.layers[:last], start=1):
            skip = self.training and self.layerdrop > 0 and torch.rand(()).item() < self.layerdrop
            if not skip:
                x, weights = self._run(layer, x, mask, bias, weights)
            if self.norms_last and number == len(self.layers):
                x = self.norm(x)
            states.append(x if layers is None or number in layers else None)
        if self.norms_last and not self.layers:
            states = [self.norm(x)]
        return states if squeeze is None else squeeze.expand(states, frames, last == len(self.layers))

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
