"""From a gated encoder to a small one without gates, and which units it keeps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from robustdistiller.pretrain.student.pruning.hooks import Values
from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.model.values import fill, without_values

Weights = dict[str, Tensor]


@torch.no_grad()
def make_dense(encoder: SpeechEncoder, values: Values) -> SpeechEncoder:
    """A new encoder without the units whose gates are 0, that computes what the gated one does.

    Open gates are folded into the weights that read the units: of the next conv layer, of the attention's output
    projection, of the second feed-forward map. Those of the last conv layer become `feature_scale`, since a layer norm
    comes next. A layer without any open unit loses its attention or feed-forward part, biases included. Nothing is
    drawn: equal weights and gates give equal bits.

    Args:
        encoder: the encoder; its hooks do not matter, and it stays as it is.
        values: `(units,)` gates by kind and layer, from :meth:`Gates.resolve`.
    """
    shape, weights, kinds = encoder.config, dict(encoder.state_dict()), {kind for kind, _ in values}
    changes: dict[str, Any] = {}
    if "conv" in kinds:
        changes |= _prune_conv(shape, weights, values)
    if kinds & {"heads", "attention_layer"}:
        changes |= _prune_attention(shape, weights, values)
    if kinds & {"ffn", "ffn_layer"}:
        changes |= _prune_feed_forward(shape, weights, values)
    with without_values():
        small = SpeechEncoder(shape.replace(**changes))
    return fill(small, weights).to(next(encoder.parameters()).device).train(encoder.training)


def _prune_conv(shape: EncoderConfig, weights: Weights, values: Values) -> dict[str, Any]:
    layers, last = list(shape.conv_layers), len(shape.conv_layers) - 1
    for index in range(len(layers)):
        if ("conv", index) not in values:
            continue
        gate = values["conv", index]
        kept = gate.nonzero().squeeze(1)
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
    return {**changes, "feature_scale": shape.feature_scale or ("conv", last) in values}


def _prune_attention(shape: EncoderConfig, weights: Weights, values: Values) -> dict[str, Any]:
    heads, columns = list(shape.heads), list(shape.bias_columns)
    for index, number in enumerate(shape.heads):
        if not number:
            continue
        prefix = f"transformer.layers.{index}.attention."
        kept, width = _fold(weights, f"{prefix}out_proj.", values, ("attention_layer", "heads"), index, number)
        heads[index], columns[index] = len(kept), tuple(columns[index][head] for head in kept.tolist())
        rows = (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()
        for part in ("q_proj.", "k_proj.", "v_proj.") if len(kept) else ():
            _take(weights, prefix + part, rows)
        if not len(kept):
            _drop(weights, prefix)
    changes = {"num_heads": tuple(heads), "head_dim": shape.width_per_head}
    return {**changes, "position_bias_heads": tuple(columns)} if shape.relative_position else changes


def _prune_feed_forward(shape: EncoderConfig, weights: Weights, values: Values) -> dict[str, Any]:
    widths = list(shape.ffn_dims)
    for index, number in enumerate(shape.ffn_dims):
        if not number:
            continue
        prefix = f"transformer.layers.{index}."
        kept, _ = _fold(weights, f"{prefix}down.", values, ("ffn_layer", "ffn"), index, number)
        widths[index] = len(kept)
        _take(weights, f"{prefix}up.", kept)
        if not len(kept):
            _drop(weights, f"{prefix}up.")
            _drop(weights, f"{prefix}down.")
    return {"ffn_dim": tuple(widths)}


def _fold(
    weights: Weights, linear: str, values: Values, kinds: tuple[str, str], index: int, number: int
) -> tuple[Tensor, int]:
    """Fold the gates of a layer's part, and of its units, into the linear map that reads the units.

    Returns:
        The units that stay, and how many inputs of the map each of them is.
    """
    weight, bias = weights[f"{linear}weight"], weights[f"{linear}bias"]
    whole = values.get((kinds[0], index), weight.new_ones(1))
    units = values.get((kinds[1], index), weight.new_ones(number))
    kept = (units * (whole > 0)).nonzero().squeeze(1)
    width = weight.shape[1] // number
    columns = (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()
    weights[f"{linear}weight"] = (weight * (units.repeat_interleave(width) * whole))[:, columns]
    weights[f"{linear}bias"] = bias * whole
    return kept, width


def _take(weights: Weights, prefix: str, kept: Tensor) -> None:
    """Keep these rows of every weight below a name."""
    for name in weights:
        if name.startswith(prefix):
            weights[name] = weights[name][kept]


def _drop(weights: Weights, prefix: str) -> None:
    for name in [name for name in weights if name.startswith(prefix)]:
        del weights[name]


def to_target(
    is_open: Mapping[Hashable, Tensor],
    logits: Mapping[Hashable, Tensor],
    keep_one: set[Hashable],
    count: Callable[[dict[Hashable, int]], int],
    target: float,
) -> dict[Hashable, Tensor]:
    """Meet a number of parameters with whole units: close some while there are too many, or open some.

    The most doubtful come first, each only if that brings the number nearer to the target. `is_open` and `logits`, of
    the probability to be open, are (units,) per vector of gates; `keep_one` are vectors whose last open unit stays;
    `count` gives the parameters for numbers of open units.
    """
    masks = {key: mask.cpu().clone() for key, mask in is_open.items()}
    numbers = {key: int(mask.sum()) for key, mask in masks.items()}
    found, changed = count(numbers), True
    while changed:  # each round ends nearer to the target than it began, or is the last
        changed, closing = False, found > target
        useless: set[Hashable] = set()  # vectors one unit of which would lead away from the target
        for key, index in _doubtful_first(masks, logits, closing):
            if (found > target) != closing or found == target:
                break
            if key in useless or (closing and key in keep_one and numbers[key] == 1):
                continue
            trial = {**numbers, key: numbers[key] + (-1 if closing else 1)}
            after = count(trial)
            if abs(after - target) < abs(found - target):
                masks[key][index] = not closing
                numbers, found, changed = trial, after, True
                useless.clear()
            else:
                useless.add(key)
    return {key: mask.to(logits[key].device) for key, mask in masks.items()}


def _doubtful_first(masks: Mapping, logits: Mapping, closing: bool) -> list[tuple[Hashable, int]]:
    """Open units with the smallest logits first, or closed ones with the greatest first."""
    units = [
        (logit, key, index)
        for key, mask in masks.items()
        for index, (logit, is_open) in enumerate(zip(logits[key].tolist(), mask.tolist()))
        if is_open == closing
    ]
    return [(key, index) for _, key, index in sorted(units, key=lambda unit: unit[0], reverse=not closing)]
