"""Readers for the fairseq family: Microsoft's WavLM files, s3prl-converted HuBERT and wav2vec 2.0, and Distiller."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from ..config import EncoderConfig
from .names import from_fairseq
from .unpickle import Inert

_DEFAULT_CONV = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
_ACTIVATIONS = {"gelu": "gelu", "gelu_accurate": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu": "relu"}
#: Parameters used by pre-training losses only (name prefixes).
_TRAINING_ONLY = ("mask_emb", "final_proj.", "label_embs_concat", "target_glu.", "quantizer.", "project_q.")
#: Options that change the network in ways this encoder does not know, with the value that it knows.
_FIXED = {
    "layer_type": "transformer",
    "pos_conv_depth": 1,
    "crop_seq_to_multiple": 1,
    "quantize_input": False,
    "attention_type": "original",
}


def read_wavlm(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """Microsoft's files (and s3prl's copies of them): ``cfg`` and ``model``."""
    cfg = _options(content, "cfg")
    relative = bool(cfg.get("relative_position_embedding", False))
    config = _shared(
        cfg,
        normalize_waveform=bool(cfg.get("normalize", False)),
        relative_position=relative,
        # Without the bias there is nothing to gate, though the file may hold the gates.
        gated_relative_position=relative and bool(cfg.get("gru_rel_pos", False)),
        num_buckets=int(cfg.get("num_buckets", 320)),
        max_distance=int(cfg.get("max_distance", 1280)),
        reference_mask="block",
    )
    weights = dict(content["model"])
    if not relative:
        weights = {name: value for name, value in weights.items() if ".self_attn.grep_" not in name}
    return config, from_fairseq(weights, config, _TRAINING_ONLY)


def read_hubert(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """s3prl-converted HuBERT: ``task_cfg``, ``model_cfg``, ``model_weight``, ``dictionaries_symbols``."""
    return _read_converted(content, "block")


def read_wav2vec2(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """s3prl-converted wav2vec 2.0: ``task_cfg``, ``model_cfg``, ``model_weight``."""
    return _read_converted(content, "conv")


def _read_converted(content: Mapping[str, Any], reference_mask: str) -> tuple[EncoderConfig, dict]:
    normalize = bool(_options(content, "task_cfg").get("normalize", False))
    cfg = _options(content, "model_cfg")
    config = _shared(cfg, normalize_waveform=normalize, reference_mask=reference_mask)
    return config, from_fairseq(content["model_weight"], config, _TRAINING_ONLY)


def read_distiller(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """s3prl's Distiller layout, of DistilHuBERT and of the released RobustDistiller files: ``Config``, ``Distiller``.

    RobustDistiller's students of WavLM leave the relative position bias out. A student that kept it is recognised by
    its parameters.
    """
    cfg = dict(_options(_options(content, "Config"), "distiller"))
    tasks = int(cfg.get("n_tasks", 12))
    for option, default in (("task_emb_type", "expand-last"), ("out_layer_type", "expand-last")):
        if cfg.get(option, default) != "expand-last":
            raise ValueError(f"Distiller option {option} is {cfg[option]!r}; this encoder knows only 'expand-last'")
    cfg["conv_feature_layers"] = cfg.pop("extractor_conv_feature_layers", _DEFAULT_CONV)
    cfg.setdefault("encoder_layers", 1)
    cfg.setdefault("activation_dropout", 0.1)
    inner = int(cfg.get("out_layer_inter_dim", -1))
    weights = content["Distiller"]
    table = weights.get("encoder.layers.0.self_attn.relative_attention_bias.weight")
    config = _shared(
        cfg,
        feature_norm=False,
        relative_position=table is not None,
        gated_relative_position="encoder.layers.0.self_attn.grep_a" in weights,
        num_buckets=320 if table is None else len(table),
        max_distance=int(cfg.get("max_distance", 800)),  # every released WavLM has 800
        prediction_layers=tuple(int(layer) for layer in cfg.get("pred_layer_id", range(1, tasks + 1))),
        prediction_dim=int(cfg.get("final_dim", 768)),
        prediction_inner_dim=inner if inner > 0 else None,
        reference_mask="conv",
    )
    if len(config.prediction_layers) != tasks:
        raise ValueError(f"Distiller options disagree: n_tasks {tasks}, pred_layer_id {config.prediction_layers}")
    return config, from_fairseq(weights, config, ())


def _shared(cfg: Mapping[str, Any], **more: Any) -> EncoderConfig:
    """The options that all four families spell alike, with fairseq's defaults."""
    for option, known in _FIXED.items():
        if cfg.get(option, known) != known:
            raise ValueError(f"model option {option} is {cfg[option]!r}; this encoder knows only {known!r}")
    activation = str(cfg.get("activation_fn", "gelu"))
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation_fn is {activation!r}; this encoder knows {', '.join(_ACTIVATIONS)}")
    return EncoderConfig(
        conv_layers=parse_conv_layers(str(cfg.get("conv_feature_layers", _DEFAULT_CONV))),
        conv_norm="layer" if cfg.get("extractor_mode", "default") == "layer_norm" else "group",
        conv_bias=bool(cfg.get("conv_bias", False)),
        embed_dim=int(cfg.get("encoder_embed_dim", 768)),
        num_layers=int(cfg.get("encoder_layers", 12)),
        num_heads=int(cfg.get("encoder_attention_heads", 12)),
        ffn_dim=int(cfg.get("encoder_ffn_embed_dim", 3072)),
        activation=_ACTIVATIONS[activation],
        norm_first=bool(cfg.get("layer_norm_first", False)),
        position_kernel=int(cfg.get("conv_pos", 128)),
        position_groups=int(cfg.get("conv_pos_groups", 16)),
        dropout=float(cfg.get("dropout", 0.1)),
        attention_dropout=float(cfg.get("attention_dropout", 0.1)),
        activation_dropout=float(cfg.get("activation_dropout", 0.0)),
        feature_dropout=float(cfg.get("dropout_input", 0.0)),
        layerdrop=float(cfg.get("encoder_layerdrop", 0.0)),
        feature_grad_mult=float(cfg.get("feature_grad_mult", 1.0)),
        **more,
    )


def _options(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    options = content.get(key)
    if not isinstance(options, Mapping):
        found = type(options).__name__ if not isinstance(options, Inert) else "an object of a class that is not read"
        raise ValueError(f"the checkpoint's {key!r} should be a dictionary of options, found {found}")
    return options


def parse_conv_layers(text: str) -> tuple[tuple[int, int, int], ...]:
    """Read fairseq's description of the conv layers, a Python expression of lists, ``+`` and ``*``, without ``eval``.

    >>> parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 2")
    ((512, 10, 5), (512, 3, 2), (512, 3, 2))
    """

    def value(node: ast.AST):
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return tuple(value(item) for item in items)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return value(left) + value(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))) if times <= 100:
                return value(left) * times
        raise ValueError(f"conv layers {text!r}: expected a list of (channels, kernel, stride)")

    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, TypeError) as error:
        raise ValueError(f"conv layers {text!r}: expected a list of (channels, kernel, stride)") from error
