"""From a gated encoder to a small one without gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustdistiller.pretrain.student.pruning.hooks import Values
from robustdistiller.upstream import EncoderConfig, SpeechEncoder


@torch.no_grad()
def make_dense(encoder: SpeechEncoder, values: Values) -> SpeechEncoder:
    """A new encoder without the units whose gates are 0, that computes what the gated one does.

    Open gates are folded into the weights that read the units: of the next conv layer, of the attention's output
    projection, of the second feed-forward map. Those of the last conv layer become `feature_scale`, since a layer norm
    comes next. A layer without any open unit loses its attention or feed-forward part, biases included.

    Args:
        encoder: the encoder; its hooks do not matter, and it stays as it is.
        values: `(units,)` gates by kind and layer, from :meth:`Gates.resolve`.

    >>> config = EncoderConfig(embed_dim=32, num_layers=2, num_heads=4, ffn_dim=64, position_groups=4)
    >>> halves = torch.tensor([0.0, 0.5, 0.5, 0.0])
    >>> small = make_dense(SpeechEncoder(config), {"heads": {0: halves, 1: 0 * halves}, "ffn": {1: torch.ones(64)}})
    >>> small.config.heads, small.config.ffn_dims
    ((2, 0), (64, 64))
    """
    shape, weights = encoder.config, dict(encoder.state_dict())
    changes: dict[str, Any] = {}
    if "conv" in values:
        changes |= _prune_conv(shape, weights, values["conv"])
    if not values.keys().isdisjoint(("heads", "attention_layer")):
        changes |= _prune_attention(shape, weights, values)
    if not values.keys().isdisjoint(("ffn", "ffn_layer")):
        changes |= _prune_feed_forward(shape, weights, values)
    with torch.random.fork_rng(devices=[]):
        small = SpeechEncoder(shape.replace(**changes))
    small.load_state_dict(weights)
    return small.to(next(encoder.parameters()).device).train(encoder.training)


def _prune_conv(shape: EncoderConfig, weights: dict[str, Tensor], gates: dict[int, Tensor]) -> dict[str, Any]:
    layers, last = list(shape.conv_layers), len(shape.conv_layers) - 1
    for index, gate in gates.items():
        kept = _open(gate)
        layers[index] = (len(kept), *layers[index][1:])
        _take(weights, f"extractor.layers.{index}.", kept)
        if index < last:
            after = f"extractor.layers.{index + 1}.conv.weight"
            weights[after] = (weights[after] * gate[:, None])[:, kept]
            continue
        scale = weights.get("extractor.scale", torch.ones_like(gate))
        weights["extractor.scale"] = (scale * gate)[kept]
        _take(weights, "feature_norm.", kept)
        weights["projection.weight"] = weights["projection.weight"][:, kept]
    # A projection stays one even where the channels that are left happen to be as many as its outputs.
    changes = {"conv_layers": tuple(layers), "projection": shape.has_projection}
    return {**changes, "feature_scale": shape.feature_scale or last in gates}


def _prune_attention(shape: EncoderConfig, weights: dict[str, Tensor], values: Values) -> dict[str, Any]:
    heads, columns = list(shape.heads), list(shape.bias_columns)
    for index, number in enumerate(shape.heads):
        if not number:
            continue
        prefix = f"transformer.layers.{index}.attention."
        whole, gate = _gates(values, "attention_layer", "heads", index, number, weights[f"{prefix}out_proj.bias"])
        kept = _open(gate) if whole > 0 else _open(0 * gate)
        heads[index], columns[index] = len(kept), tuple(columns[index][head] for head in kept.tolist())
        if not len(kept):
            _drop(weights, prefix)
            continue
        rows = (kept[:, None] * shape.width_per_head + torch.arange(shape.width_per_head, device=kept.device)).flatten()
        for name in ("q_proj.", "k_proj.", "v_proj."):
            _take(weights, prefix + name, rows)
        factors = gate.repeat_interleave(shape.width_per_head) * whole
        weights[f"{prefix}out_proj.weight"] = (weights[f"{prefix}out_proj.weight"] * factors)[:, rows]
        weights[f"{prefix}out_proj.bias"] = weights[f"{prefix}out_proj.bias"] * whole
    changes = {"num_heads": tuple(heads), "head_dim": shape.width_per_head}
    return {**changes, "position_bias_heads": tuple(columns)} if shape.relative_position else changes


def _prune_feed_forward(shape: EncoderConfig, weights: dict[str, Tensor], values: Values) -> dict[str, Any]:
    widths = list(shape.ffn_dims)
    for index, number in enumerate(shape.ffn_dims):
        if not number:
            continue
        up, down = (f"transformer.layers.{index}.{name}." for name in ("up", "down"))
        whole, gate = _gates(values, "ffn_layer", "ffn", index, number, weights[f"{down}bias"])
        kept = _open(gate) if whole > 0 else _open(0 * gate)
        widths[index] = len(kept)
        if not len(kept):
            _drop(weights, up)
            _drop(weights, down)
            continue
        _take(weights, up, kept)
        weights[f"{down}weight"] = (weights[f"{down}weight"] * gate * whole)[:, kept]
        weights[f"{down}bias"] = weights[f"{down}bias"] * whole
    return {"ffn_dim": tuple(widths)}


def _gates(values: Values, whole: str, kind: str, index: int, number: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The gate of a layer's part `(1,)`, and those of its units; open where there are none."""
    part = values.get(whole, {}).get(index)
    units = values.get(kind, {}).get(index)
    return like.new_ones(1) if part is None else part, like.new_ones(number) if units is None else units


def _open(gate: Tensor) -> Tensor:
    return gate.nonzero().squeeze(1)


def _take(weights: dict[str, Tensor], prefix: str, kept: Tensor) -> None:
    """Keep these rows of every weight below a name."""
    for name in weights:
        if name.startswith(prefix):
            weights[name] = weights[name][kept]


def _drop(weights: dict[str, Tensor], prefix: str) -> None:
    for name in [name for name in weights if name.startswith(prefix)]:
        del weights[name]
