"""How many parameters an encoder has, as a function of its units; the numbers of units may be expectations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robustdistiller.upstream import EncoderConfig


@dataclass
class Units:
    """Numbers of units, each an integer or, as an expectation, a scalar tensor.

    Attributes:
        conv: channels of each conv layer.
        heads: attention heads of each transformer layer.
        attends: 1 where a layer has attention, else 0.
        ffn: feed-forward dimensions of each transformer layer.
        feeds: 1 where a layer has a feed-forward part, else 0.
    """

    conv: Sequence[Any]
    heads: Sequence[Any]
    attends: Sequence[Any]
    ffn: Sequence[Any]
    feeds: Sequence[Any]

    @classmethod
    def of(cls, config: EncoderConfig) -> Units:
        """All units of an encoder."""
        heads, ffn = list(config.heads), list(config.ffn_dims)
        conv = [channels for channels, _, _ in config.conv_layers]
        return cls(conv, heads, [int(n > 0) for n in heads], ffn, [int(n > 0) for n in ffn])


def prunable_parameters(config: EncoderConfig, units: Units) -> Any:
    """Parameters that depend on how many units there are: all but positions, layer norms and prediction heads.

    Args:
        config: gives what does not depend on the units (kernels, widths, biases, `feature_scale`).
        units: integers, or expectations of independent numbers.
    """
    total, inputs = 0, 1 if config.front_end == "conv" else config.num_mel_bands
    for index, (channels, (_, kernel, _)) in enumerate(zip(units.conv, config.conv_layers)):
        norm = 2 if config.conv_norm == "layer" or index == 0 else 0
        total = total + inputs * channels * kernel + channels * (norm + config.conv_bias)
        inputs = channels
    total = total + inputs * (2 * config.feature_norm + config.feature_scale)
    if config.has_projection:
        total = total + (inputs + 1) * config.embed_dim
    for layer in range(config.num_layers):
        total = total + units.heads[layer] * head_parameters(config, layer)
        total = total + units.attends[layer] * _shared_by_heads(config, layer)
        total = total + units.ffn[layer] * ffn_parameters(config) + units.feeds[layer] * config.embed_dim
    return total


def head_parameters(config: EncoderConfig, layer: int) -> int:
    """Parameters of one attention head: its queries, keys and values with their biases, and its part of the output."""
    inputs = 1 if layer in config.attention_reuse else 3
    return config.width_per_head * (inputs * (config.embed_dim + 1) + config.embed_dim)


def ffn_parameters(config: EncoderConfig) -> int:
    """Parameters of one feed-forward dimension."""
    return 2 * config.embed_dim + 1


def _shared_by_heads(config: EncoderConfig, layer: int) -> int:
    """What a layer's attention has whatever the number of its heads: the output's bias, and WavLM's gates."""
    gated = config.relative_position and config.gated_relative_position and layer not in config.attention_reuse
    return config.embed_dim + (8 * (config.width_per_head + 1) + config.total_heads if gated else 0)
