"""Parameter names: ours, and those of the fairseq family (wav2vec 2.0, HuBERT, WavLM, s3prl's Distiller)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..config import EncoderConfig
from ..encoder import SpeechEncoder

#: Our name to fairseq's, first match counts. One direction is enough: both lists of names follow from our network.
_RULES = [
    (r"extractor\.layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"feature_norm\.", r"layer_norm."),
    (r"projection\.", r"post_extract_proj."),
    (r"transformer\.position\.conv\.parametrizations\.weight\.original0", r"encoder.pos_conv.0.weight_g"),
    (r"transformer\.position\.conv\.parametrizations\.weight\.original1", r"encoder.pos_conv.0.weight_v"),
    (r"transformer\.position\.conv\.", r"encoder.pos_conv.0."),
    (r"transformer\.norm\.", r"encoder.layer_norm."),
    (r"transformer\.position_bias\.table\.", r"encoder.layers.0.self_attn.relative_attention_bias."),
    (r"transformer\.layers\.(\d+)\.attention\.gate\.linear\.", r"encoder.layers.\1.self_attn.grep_linear."),
    (r"transformer\.layers\.(\d+)\.attention\.gate\.scale", r"encoder.layers.\1.self_attn.grep_a"),
    (r"transformer\.layers\.(\d+)\.attention\.", r"encoder.layers.\1.self_attn."),
    (r"transformer\.layers\.(\d+)\.attention_norm\.", r"encoder.layers.\1.self_attn_layer_norm."),
    (r"transformer\.layers\.(\d+)\.up\.", r"encoder.layers.\1.fc1."),
    (r"transformer\.layers\.(\d+)\.down\.", r"encoder.layers.\1.fc2."),
    (r"transformer\.layers\.(\d+)\.ffn_norm\.", r"encoder.layers.\1.final_layer_norm."),
    (r"heads\.expand\.", r"output_layer.0."),
    (r"heads\.", r"output_layer.2."),
]

#: Spelling of a weight-normalised parameter when newer PyTorch wrote the file.
_RESPELLED = {
    "encoder.pos_conv.0.parametrizations.weight.original0": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.parametrizations.weight.original1": "encoder.pos_conv.0.weight_v",
}


def fairseq_name(name: str, config: EncoderConfig) -> str:
    """The name that fairseq and s3prl give to our parameter ``name``.

    >>> fairseq_name("transformer.layers.3.up.weight", EncoderConfig())
    'encoder.layers.3.fc1.weight'
    >>> fairseq_name("extractor.layers.0.norm.bias", EncoderConfig(conv_norm="layer"))
    'feature_extractor.conv_layers.0.2.1.bias'
    """
    norm = "2.1" if config.conv_norm == "layer" else "2"
    rules = [(r"extractor\.layers\.(\d+)\.norm\.", rf"feature_extractor.conv_layers.\g<1>.{norm}."), *_RULES]
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    raise ValueError(f"parameter {name!r} has no counterpart in fairseq's models")


def from_fairseq(weights: Mapping[str, Tensor], config: EncoderConfig, training_only: tuple[str, ...]) -> dict:
    """Rename a fairseq-style state dict to our names, leaving out the ``training_only`` entries (name prefixes).

    Raises:
        ValueError: a key is missing, unknown, or has another shape than ``config`` says; all are listed.
    """
    weights = {_RESPELLED.get(name, name): value for name, value in weights.items()}
    weights = {name: value for name, value in weights.items() if not name.startswith(training_only)}
    return _match(weights, config, rename=lambda name: fairseq_name(name, config))


def check_own(weights: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """Check a state dict with our names against ``config``; raises as :func:`from_fairseq`."""
    return _match(weights, config, rename=str)


def _match(weights: Mapping[str, Tensor], config: EncoderConfig, rename: Callable[[str], str]) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = SpeechEncoder(config).state_dict()
    names = {rename(name): name for name in expected}
    if config.prediction_layers:
        weights = _split_heads(weights, rename)
    problems = []
    if missing := sorted(names.keys() - weights.keys()):
        problems.append(f"missing: {', '.join(missing)}")
    if unknown := sorted(weights.keys() - names.keys()):
        problems.append(f"unknown: {', '.join(unknown)}")
    for theirs in sorted(names.keys() & weights.keys()):
        value, shape = weights[theirs], tuple(expected[names[theirs]].shape)
        if not isinstance(value, Tensor):
            problems.append(f"{theirs} is a {type(value).__name__}, expected a tensor")
        elif tuple(value.shape) != shape:
            problems.append(f"{theirs} has shape {tuple(value.shape)}, expected {shape}")
    if problems:
        raise ValueError("the weights do not fit the encoder that the configuration describes; " + "; ".join(problems))
    # A copy, because the loaded tensors are views of the file.
    return {name: weights[theirs].to(torch.float32, copy=True) for theirs, name in names.items()}


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
