"""What the options of an encoder have to be, each and together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustdistiller.upstream.model.config import EncoderConfig

_CHOICES = {
    "front_end": ("conv", "log_mel"),
    "squeeze_by": ("pool", "conv"),
    "expand_by": ("linear", "repeat"),
    "conv_norm": ("group", "layer", "half_group"),
    "activation": ("gelu", "gelu_tanh", "relu"),
    "padding": ("masked", "reference"),
    "reference_mask": ("conv", "block"),
    "first_state": ("auto", "projected", "layer_input"),
}
_MOST = {"num_layers": 1000, "num_heads": 1000, "position_depth": 100, "squeeze": 100}
_MOST |= dict.fromkeys(("embed_dim", "head_dim", "prediction_dim", "prediction_inner_dim", "position_kernel"), 100_000)
_MOST |= dict.fromkeys(("ffn_dim", "num_mel_bands", "num_buckets", "max_distance"), 1_000_000)


def require(condition: bool, message: str) -> None:
    """Raise `ValueError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"encoder configuration: {message}")


def check_config(config: EncoderConfig) -> None:
    """Refuse values outside their range, and values that contradict each other.

    Raises:
        ValueError: naming the option, what was found and what was expected.
    """
    for name, allowed in _CHOICES.items():
        require(getattr(config, name) in allowed, f"{name} is {getattr(config, name)!r}; expected one of {allowed}")
    require(
        len(config.conv_layers) > 0 and all(len(layer) == 3 and min(layer) > 0 for layer in config.conv_layers),
        f"conv_layers is {str(config.conv_layers)[:200]}; expected triples of positive (channels, kernel, stride)",
    )
    positive = (
        *("embed_dim", "position_kernel", "position_groups", "position_depth", "num_buckets", "max_distance"),
        *("num_mel_bands", "squeeze"),
    )
    for name in (*positive, "head_dim", "prediction_dim", "prediction_inner_dim"):
        value = getattr(config, name)
        optional = value is None and name not in positive
        require(optional or value > 0, f"{name} is {value}; expected a positive integer")
    # Far above any model, and low enough that a damaged or hostile file cannot make us build without end.
    for name, most in _MOST.items():
        value = getattr(config, name)
        value = max(value, default=0) if isinstance(value, tuple) else value or 0
        require(value <= most, f"{name} is {value}; expected at most {most}")
    require(len(config.conv_layers) <= 100, f"conv_layers lists {len(config.conv_layers)} layers; expected at most 100")
    widest = max(map(max, config.conv_layers))
    require(widest <= 100_000, f"conv_layers has a value of {widest}; expected at most 100000")
    _check_front_end(config)
    _check_squeeze(config)
    if config.relative_position:
        # Distances below a quarter of the buckets have one each; the others are spread up to max_distance.
        exact = config.num_buckets // 4
        require(exact > 0, f"num_buckets is {config.num_buckets}; relative positions need at least 4")
        require(
            config.max_distance > exact,
            f"max_distance is {config.max_distance}; expected more than {exact}, a quarter of num_buckets",
        )
    require(config.normalize_eps >= 0, f"normalize_eps is {config.normalize_eps}; expected 0 or more")
    require(config.num_layers >= 0, f"num_layers is {config.num_layers}; expected 0 or more")
    require(
        config.embed_dim % config.position_groups == 0,
        f"embed_dim {config.embed_dim} is not divisible by position_groups {config.position_groups}",
    )
    require(
        not config.position_batch_norm or config.position_depth == 1,
        f"position_batch_norm is for one position convolution; position_depth is {config.position_depth}",
    )
    heads, _ = config.heads, config.ffn_dims
    if config.head_dim is None:
        require(len(set(heads)) <= 1, f"num_heads is {heads}; give head_dim when layers differ")
        require(
            not heads or (heads[0] > 0 and config.embed_dim % heads[0] == 0),
            f"embed_dim {config.embed_dim} is not divisible by num_heads {heads[:1]}; change one or give head_dim",
        )
    require(
        tuple(map(len, config.bias_columns)) == heads,
        f"position_bias_heads must list {heads} columns per layer, found {tuple(map(len, config.bias_columns))}",
    )
    width = config.conv_layers[-1][0]
    require(
        config.projection is not False or width == config.embed_dim,
        f"without a projection embed_dim is {config.embed_dim}; expected {width}, the last conv width",
    )
    require(
        not config.relative_position or all(column < config.total_heads for c in config.bias_columns for column in c),
        f"position_bias_heads go beyond the {config.total_heads} heads of width {config.width_per_head}",
    )
    for layer in config.attention_reuse:
        require(
            0 < layer < config.num_layers and 0 < heads[layer] == heads[layer - 1],
            f"attention_reuse lists layer {layer}; expected a layer after one with as many heads",
        )
    require(
        not config.attention_reuse or config.layerdrop == 0,
        f"layerdrop is {config.layerdrop}; expected 0 where attention is reused",
    )
    for name in ("dropout", "attention_dropout", "activation_dropout", "feature_dropout", "layerdrop"):
        require(0 <= getattr(config, name) <= 1, f"{name} is {getattr(config, name)}; expected 0 to 1")
    require(config.feature_grad_mult >= 0, f"feature_grad_mult is {config.feature_grad_mult}; expected 0 or more")


def _check_front_end(config: EncoderConfig) -> None:
    even = [kernel for _, kernel, _ in config.conv_layers if kernel % 2 == 0]
    require(
        config.front_end == "conv" or not even,
        f"conv_layers has the kernels {even}; expected odd ones on a log-mel spectrum, which lie around a frame",
    )
    half = config.conv_norm == "half_group"
    require(
        not half or config.front_end == "log_mel", "conv_norm is 'half_group'; expected it on a log-mel spectrum only"
    )
    width = config.conv_layers[0][0]
    require(not half or width % 2 == 0, f"conv_layers begins with {width} channels; expected an even number to halve")


def _check_squeeze(config: EncoderConfig) -> None:
    if config.squeeze == 1:
        return
    require(
        config.position_depth == 1 and not config.position_batch_norm,
        f"squeeze is {config.squeeze}; expected 1 with a stack of position convolutions or a batch norm before one",
    )
    require(
        config.last_state_normed or not config.norm_first,
        f"squeeze is {config.squeeze}; expected 1 with last_state_normed: false, where heads have a norm of their own",
    )
    require(
        config.num_layers > 0, f"squeeze is {config.squeeze}; expected 1 without layers, which would compute with less"
    )
