"""Properties of an encoder that other software cannot express."""

from __future__ import annotations

from collections.abc import Iterable

from robustdistiller.upstream.model.config import EncoderConfig


class NotExportable(ValueError):
    """A format cannot express an encoder; the message says which property prevents it."""


def require_regular(config: EncoderConfig) -> None:
    """Refuse what none of s3prl, transformers and torchaudio knows: pruned, scaled and attention-reusing encoders.

    Raises:
        NotExportable: naming the first such property.

    >>> require_regular(EncoderConfig(num_layers=2, num_heads=(12, 8), head_dim=64))
    Traceback (most recent call last):
    robustdistiller.upstream.checkpoints.obstacles.NotExportable: its attention heads are pruned (12, 8 of 12)
    """
    heads, widths = config.heads, config.ffn_dims
    refuse(config.num_layers == 0, "it has no transformer layer")
    refuse(
        any(number * config.width_per_head != config.embed_dim for number in heads),
        f"its attention heads are pruned ({_list(heads)} of {config.total_heads})",
    )
    refuse(
        len(set(widths)) > 1 or 0 in widths,
        f"its feed-forward widths differ from layer to layer ({_list(widths)})",
    )
    refuse(config.feature_scale, "it scales the channels of the conv extractor (feature_scale)")
    refuse(
        config.relative_position
        and any(columns != tuple(range(config.total_heads)) for columns in config.bias_columns),
        "its heads use other columns of the relative position table than their own",
    )
    refuse(bool(config.attention_reuse), f"its layers {_list(config.attention_reuse)} reuse attention weights")


def refuse(found: bool, reason: str) -> None:
    """Raise :class:`NotExportable` with ``reason`` if the property was found.

    >>> refuse(False, "it has heads")
    """
    if found:
        raise NotExportable(reason)


def lost(config: EncoderConfig, options: Iterable[str]) -> tuple[str, ...]:
    """One sentence for each of the training ``options`` that is set but has no place in the format.

    >>> lost(EncoderConfig(feature_dropout=0.1), ("feature_dropout", "layerdrop"))
    ('feature_dropout 0.1 (training only) has no place in the format',)
    """
    default = EncoderConfig()
    return tuple(
        f"{name} {getattr(config, name)} (training only) has no place in the format"
        for name in options
        if getattr(config, name) != getattr(default, name)
    )


def _list(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))
