"""Parameter names: ours, those of the fairseq family (with s3prl's Distiller), of Hugging Face and of torchaudio."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder

#: Our name to theirs, first match counts. One direction is enough: both lists of names follow from our network.
_FAIRSEQ = [
    (r"extractor\.layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"feature_norm\.", r"layer_norm."),
    (r"projection\.", r"post_extract_proj."),
    (r"transformer\.position\.conv\.parametrizations\.weight\.original0", r"encoder.pos_conv.0.weight_g"),
    (r"transformer\.position\.conv\.parametrizations\.weight\.original1", r"encoder.pos_conv.0.weight_v"),
    (r"transformer\.position\.conv\.", r"encoder.pos_conv.0."),
    (r"transformer\.position\.convs\.(\d+)\.", r"encoder.pos_conv.\1.0."),
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
_HUGGINGFACE = [
    (r"extractor\.layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"extractor\.layers\.(\d+)\.norm\.", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"extractor\.scale", r"feature_extractor.dummy_weight"),
    (r"feature_norm\.", r"feature_projection.layer_norm."),
    (r"projection\.", r"feature_projection.projection."),
    (r"transformer\.position\.conv\.parametrizations\.weight\.original0", r"encoder.pos_conv_embed.conv.weight_g"),
    (r"transformer\.position\.conv\.parametrizations\.weight\.original1", r"encoder.pos_conv_embed.conv.weight_v"),
    (r"transformer\.position\.conv\.", r"encoder.pos_conv_embed.conv."),
    (r"transformer\.position\.convs\.(\d+)\.", r"encoder.pos_conv_embed.layers.\1.conv."),
    (r"transformer\.norm\.", r"encoder.layer_norm."),
    (r"transformer\.position_bias\.table\.", r"encoder.layers.0.attention.rel_attn_embed."),
    (r"transformer\.layers\.(\d+)\.attention\.gate\.linear\.", r"encoder.layers.\1.attention.gru_rel_pos_linear."),
    (r"transformer\.layers\.(\d+)\.attention\.gate\.scale", r"encoder.layers.\1.attention.gru_rel_pos_const"),
    (r"transformer\.layers\.(\d+)\.attention\.", r"encoder.layers.\1.attention."),
    (r"transformer\.layers\.(\d+)\.attention_norm\.", r"encoder.layers.\1.layer_norm."),
    (r"transformer\.layers\.(\d+)\.up\.", r"encoder.layers.\1.feed_forward.intermediate_dense."),
    (r"transformer\.layers\.(\d+)\.down\.", r"encoder.layers.\1.feed_forward.output_dense."),
    (r"transformer\.layers\.(\d+)\.ffn_norm\.", r"encoder.layers.\1.final_layer_norm."),
]
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
    norm = "2.1" if config.conv_norm == "layer" else "2"
    first = (r"extractor\.layers\.(\d+)\.norm\.", rf"feature_extractor.conv_layers.\g<1>.{norm}.")
    return _rename(name, [first, *_FAIRSEQ], "fairseq's models")


def huggingface_name(name: str, config: EncoderConfig | None = None) -> str:
    """The name that Hugging Face's wav2vec2, hubert, wavlm and data2vec-audio give to our parameter ``name``.

    >>> huggingface_name("transformer.layers.3.up.weight")
    'encoder.layers.3.feed_forward.intermediate_dense.weight'
    """
    return _rename(name, _HUGGINGFACE, "Hugging Face's models")


def torchaudio_name(name: str, config: EncoderConfig | None = None) -> str:
    """The name that torchaudio and DPHuBERT give to our parameter ``name``.

    torchaudio's WavLM stacks queries, keys and values; see
    :func:`~robustdistiller.upstream.checkpoints.formats.torchaudio.split_attention`.

    >>> torchaudio_name("projection.bias"), torchaudio_name("transformer.layers.0.up.bias")
    ('encoder.feature_projection.projection.bias', 'encoder.transformer.layers.0.feed_forward.intermediate_dense.bias')
    """
    theirs = huggingface_name(name)
    return next((re.sub(old, new, theirs) for old, new in _TORCHAUDIO_MOVES if re.match(old, theirs)), theirs)


def _rename(name: str, rules: list[tuple[str, str]], whose: str) -> str:
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    raise ValueError(f"parameter {name!r} has no counterpart in {whose}")


def older_spelling(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights with weight-normalised parameters spelled as PyTorch did before 2.0.

    >>> older_spelling({"conv.parametrizations.weight.original0": torch.ones(1)})
    {'conv.weight_g': tensor([1.])}
    """
    old = [(".parametrizations.weight.original0", ".weight_g"), (".parametrizations.weight.original1", ".weight_v")]
    respelled = {}
    for name, value in weights.items():
        for new_end, old_end in old:
            if str(name).endswith(new_end):
                name = name.removesuffix(new_end) + old_end
        respelled[name] = value
    return respelled


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
    return _match(weights, config, rename=lambda ours: name(ours, config))


def check_own(weights: Mapping[str, Tensor], config: EncoderConfig) -> dict[str, Tensor]:
    """A state dict under our own names as float32, checked as in :func:`from_foreign`.

    >>> config = EncoderConfig(embed_dim=16, num_layers=0, position_groups=4)
    >>> check_own({}, config)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the weights do not fit the encoder that the configuration describes; missing: ...
    """
    return _match(weights, config, rename=str)


def _match(weights: Mapping[str, Tensor], config: EncoderConfig, rename: Callable[[str], str]) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = SpeechEncoder(config).state_dict()
    names = {rename(name): name for name in expected}
    if config.prediction_layers:
        weights = _split_heads(weights, rename)
    problems = []
    if missing := sorted(names.keys() - weights.keys()):
        problems.append(f"missing: {_listed(missing)}")
    if unknown := sorted(weights.keys() - names.keys()):
        problems.append(f"unknown: {_listed(unknown)}")
    for theirs in sorted(names.keys() & weights.keys()):
        value, shape = weights[theirs], tuple(expected[names[theirs]].shape)
        if not isinstance(value, Tensor):
            problems.append(f"{theirs} is a {type(value).__name__}, expected a tensor")
        elif tuple(value.shape) != shape:
            problems.append(f"{theirs} has shape {tuple(value.shape)}, expected {shape}")
        elif not value.is_floating_point():
            problems.append(f"{theirs} has values of type {value.dtype}, expected floating-point numbers")
    if problems:
        raise ValueError("the weights do not fit the encoder that the configuration describes; " + "; ".join(problems))
    if bad := [theirs for theirs in names if not torch.isfinite(weights[theirs]).all()]:
        raise ValueError(f"the weights have values that are not finite numbers, in {_listed(sorted(bad))}")
    # A copy, because the loaded tensors are views of the file.
    return {name: weights[theirs].to(torch.float32, copy=True) for theirs, name in names.items()}


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
