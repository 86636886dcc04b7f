"""Parameter names: ours, those of the fairseq family (with s3prl's Distiller), of Hugging Face and of torchaudio."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from robustdistiller.upstream.checkpoints.builders import kind_of
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder
from robustdistiller.upstream.model.values import without_values

#: Beginnings of our names, of fairseq's and of Hugging Face's; the first match counts, None is a part that they lack.
#: Numbered parts stand together. One direction is enough: both lists of names follow from our network.
_NAMES: list[tuple[Any, ...]] = [
    (r"extractor\.layers\.(\d+)\.", "feature_extractor.conv_layers.{}.", "feature_extractor.conv_layers.{}.", [
        ("conv.", "0.", "conv."),
        ("norm.", "2.", "layer_norm."),
    ]),
    (r"transformer\.layers\.(\d+)\.", "encoder.layers.{}.", "encoder.layers.{}.", [
        ("attention.gate.linear.", "self_attn.grep_linear.", "attention.gru_rel_pos_linear."),
        ("attention.gate.scale", "self_attn.grep_a", "attention.gru_rel_pos_const"),
        ("attention.", "self_attn.", "attention."),
        ("attention_norm.", "self_attn_layer_norm.", "layer_norm."),
        ("up.", "fc1.", "feed_forward.intermediate_dense."),
        ("down.", "fc2.", "feed_forward.output_dense."),
        ("ffn_norm.", "final_layer_norm.", "final_layer_norm."),
    ]),
    (r"transformer\.position\.convs\.(\d+)\.", "encoder.pos_conv.{}.0.", "encoder.pos_conv_embed.layers.{}.conv.", [
        ("", "", ""),
    ]),
    (r"transformer\.", "encoder.", "encoder.", [
        ("position.conv.", "pos_conv.0.", "pos_conv_embed.conv."),
        ("position.batch_norm.", "pos_conv.0.", "pos_conv_embed.batch_norm."),
        ("norm.", "layer_norm.", "layer_norm."),
        ("squeeze.linear.", None, "upsample.projection."),
        ("position_bias.table.", "layers.0.self_attn.relative_attention_bias.", "layers.0.attention.rel_attn_embed."),
    ]),
    (r"", "", "", [
        ("extractor.scale", None, "feature_extractor.dummy_weight"),
        ("feature_norm.", "layer_norm.", "feature_projection.layer_norm."),
        ("projection.", "post_extract_proj.", "feature_projection.projection."),
        ("heads.expand.", "output_layer.0.", None),
        ("heads.", "output_layer.2.", None),
    ]),
]  # fmt: skip
#: PyTorch's spelling of weight-normalised parameters since 2.0, and before.
_WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
#: torchaudio files the transformer below the encoder; the rest is as in Hugging Face.
_TORCHAUDIO_MOVES = [
    (r"feature_projection\.", r"encoder.feature_projection."),
    (r"encoder\.", r"encoder.transformer."),
]


def fairseq_name(name: str, config: EncoderConfig) -> str:
    """The name that fairseq and s3prl give to our parameter ``name``.

    >>> fairseq_name("transformer.layers.3.up.weight", EncoderConfig())
    'encoder.layers.3.fc1.weight'
    >>> fairseq_name("extractor.layers.0.norm.bias", EncoderConfig(conv_norm="layer"))
    'feature_extractor.conv_layers.0.2.1.bias'
    """
    theirs = _rename(name, 0, "fairseq's models")
    if config.position_batch_norm and ".position.conv." in name:
        return theirs.replace("pos_conv.0.", "pos_conv.1.")
    # A layer norm stands between two transpositions.
    return re.sub(r"(conv_layers\.\d+\.2)\.", r"\1.1.", theirs) if config.conv_norm == "layer" else theirs


def huggingface_name(name: str, config: EncoderConfig | None = None) -> str:
    """The name that Hugging Face's wav2vec2, hubert, wavlm and data2vec-audio give to our parameter ``name``.

    >>> huggingface_name("transformer.layers.3.up.weight")
    'encoder.layers.3.feed_forward.intermediate_dense.weight'
    """
    return _rename(name, 1, "Hugging Face's models")


def sew_name(name: str, config: EncoderConfig | None = None) -> str:
    """The name that Hugging Face's SEW gives to our parameter ``name``.

    >>> sew_name("projection.bias"), sew_name("transformer.squeeze.linear.bias")
    ('feature_projection.bias', 'encoder.upsample.projection.bias')
    """
    return re.sub(r"^feature_projection\.(projection\.)?", "feature_projection.", huggingface_name(name)).replace(
        "feature_projection.layer_norm.", "layer_norm."
    )


def fithubert_name(name: str, config: EncoderConfig) -> str:
    """The name that FitHuBERT gives to our parameter ``name``: what joins frames is the first of its layers.

    >>> fithubert_name("transformer.layers.3.up.weight", EncoderConfig(squeeze=2, squeeze_by="conv"))
    'encoder.layers.4.fc1.weight'
    """
    if name.startswith("transformer.squeeze.conv."):
        return name.replace("transformer.squeeze.conv.", "encoder.layers.0.")
    return re.sub(
        r"^encoder\.layers\.(\d+)", lambda found: f"encoder.layers.{int(found[1]) + 1}", fairseq_name(name, config)
    )


def torchaudio_name(name: str, config: EncoderConfig | None = None) -> str:
    """The name that torchaudio and DPHuBERT give to our parameter ``name``.

    torchaudio's WavLM stacks queries, keys and values; see
    :func:`~robustdistiller.upstream.checkpoints.formats.torchaudio.split_attention`.

    >>> torchaudio_name("projection.bias"), torchaudio_name("transformer.layers.0.up.bias")
    ('encoder.feature_projection.projection.bias', 'encoder.transformer.layers.0.feed_forward.intermediate_dense.bias')
    """
    theirs = huggingface_name(name)
    return next((re.sub(old, new, theirs) for old, new in _TORCHAUDIO_MOVES if re.match(old, theirs)), theirs)


def _rename(name: str, family: int, whose: str) -> str:
    for pattern, *begins, rows in _NAMES:
        if group := re.match(pattern, name):
            rest = name[group.end() :]
            row = next((row for row in rows if rest.startswith(row[0])), None)
            if row is not None and row[1 + family] is not None:
                theirs = begins[family].format(*group.groups()) + row[1 + family] + rest.removeprefix(row[0])
                return _old_ending(theirs)
    raise ValueError(f"parameter {name!r} has no counterpart in {whose}")


def _old_ending(name: str) -> str:
    for new, old in _WEIGHT_NORM.items():
        if name.endswith(f".{new}"):
            return name.removesuffix(new) + old
    return name


def older_spelling(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights with weight-normalised parameters spelled as PyTorch did before 2.0.

    >>> older_spelling({"conv.parametrizations.weight.original0": torch.ones(1)})
    {'conv.weight_g': tensor([1.])}
    """
    return {_old_ending(name) if isinstance(name, str) else name: value for name, value in weights.items()}


def from_foreign(
    weights: Mapping[str, Tensor],
    config: EncoderConfig,
    name: Callable[[str, EncoderConfig], str],
    training_only: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Rename a foreign state dict to our names, leaving out the ``training_only`` entries (name prefixes).

    Args:
        weights: the state dict.
        config: the encoder it belongs to.
        name: translates our names to theirs, such as :func:`fairseq_name`.
        training_only: prefixes of the names of what only pre-training or fine-tuning needs.

    Raises:
        ValueError: a key is missing, unknown, or has another shape than ``config`` says; all are listed. Or a weight
            is not a finite number.
    """
    if bad := next((key for key in weights if not isinstance(key, str)), None):
        raise ValueError(f"the weights should be named by text, found a name of type {type(bad).__name__}")
    weights = {key: value for key, value in older_spelling(weights).items() if not key.startswith(training_only)}
    return _of_encoder(weights, config, rename=lambda ours: name(ours, config))


def check_own(weights: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """A state dict under our own names as float32, checked as in :func:`from_foreign`.

    >>> config = EncoderConfig(embed_dim=16, num_layers=0, position_groups=4)
    >>> check_own({}, config)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the weights do not fit the encoder that the configuration describes; missing: ...
    """
    return _of_encoder(weights, config, rename=str)


def _of_encoder(
    weights: Mapping[str, Tensor], config: EncoderConfig, rename: Callable[[str], str]
) -> dict[str, Tensor]:
    with without_values():
        expected = SpeechEncoder(config).state_dict()
    return match_weights(_split_heads(weights, rename) if config.prediction_layers else weights, expected, rename)


def match_weights(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], rename: Callable[[str], str]
) -> dict[str, Tensor]:
    """A state dict under our names and in our types, checked.

    Args:
        weights: under their names.
        expected: a state dict under our names, whose shapes and types are what is expected.
        rename: translates our names to theirs.

    Raises:
        ValueError: see :func:`from_foreign`.

    >>> match_weights({"w": torch.ones(2).half()}, {"weight": torch.empty(2, device="meta")}, lambda name: name[0])
    {'weight': tensor([1., 1.])}
    """
    names = {rename(name): name for name in expected}
    problems = []
    if missing := sorted(names.keys() - weights.keys()):
        problems.append(f"missing: {_listed(missing)}")
    if unknown := sorted(weights.keys() - names.keys()):
        problems.append(f"unknown: {_listed(unknown)}")
    for theirs in sorted(names.keys() & weights.keys()):
        value, shape = weights[theirs], tuple(expected[names[theirs]].shape)
        if not isinstance(value, Tensor):
            problems.append(f"{theirs} is a {kind_of(value)}, expected a tensor")
        elif tuple(value.shape) != shape:
            problems.append(f"{theirs} has shape {tuple(value.shape)}, expected {shape}")
        elif value.is_floating_point() != expected[names[theirs]].is_floating_point():
            kind = "whole" if value.is_floating_point() else "floating-point"
            problems.append(f"{theirs} has values of type {value.dtype}, expected {kind} numbers")
    if problems:
        raise ValueError("the weights do not fit the encoder that the configuration describes; " + "; ".join(problems))
    if bad := [theirs for theirs in names if not torch.isfinite(weights[theirs]).all()]:
        raise ValueError(f"the weights have values that are not finite numbers, in {_listed(sorted(bad))}")
    # A copy, because the loaded tensors are views of the file.
    return {name: weights[theirs].to(expected[name].dtype, copy=True) for theirs, name in names.items()}


def _listed(names: list[str]) -> str:
    """Names of parameters, a thousand at most and each cut: a file may hold any number of any length."""
    more = [f"and {len(names) - 1000} more"] if len(names) > 1000 else []
    return ", ".join([name[:200] for name in names[:1000]] + more)


def _split_heads(weights: Mapping[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Bring s3prl's two layouts of the prediction heads (one head, several heads) to ours."""
    weights, layer, bias = dict(weights), rename("heads.weight"), rename("heads.bias")
    single = f"{layer.rpartition('.')[0]}.layer."
    if f"{single}weight" in weights and f"{single}bias" in weights:
        weights[layer] = weights.pop(f"{single}weight").T[None]
        weights[bias] = weights.pop(f"{single}bias")[None]
    elif isinstance(weights.get(bias), Tensor) and weights[bias].dim() == 4:
        weights[bias] = weights[bias].flatten(0, 2)
    return weights
