"""Files for unchanged s3prl: the inverse of the readers in :mod:`.fairseq`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustdistiller.upstream.checkpoints.formats import Checkpoint
from robustdistiller.upstream.checkpoints.names import fairseq_name
from robustdistiller.upstream.checkpoints.obstacles import lost, refuse, require_regular
from robustdistiller.upstream.model.config import EncoderConfig

#: s3prl builds the modules of pre-training too. They get zeros, as narrow as it allows; no feature depends on them.
_FINAL_DIM = 1
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_accurate", "relu": "relu"}


def s3prl_upstream(config: EncoderConfig) -> str:
    """The upstream of s3prl that is this encoder.

    Students (with prediction heads, or without a layer norm after the conv extractor) are Distillers; others are of
    the WavLM, data2vec, HuBERT or wav2vec 2.0 family by their architecture.

    Raises:
        NotExportable: there is none.

    >>> s3prl_upstream(EncoderConfig(feature_norm=False, prediction_layers=(4, 8, 12)))
    'distiller_local'
    """
    require_regular(config)
    channels, stack = config.conv_layers[-1][0], config.position_depth > 1
    student = bool(config.prediction_layers) or not config.feature_norm
    if student:
        refuse(
            config.feature_norm,
            "it has prediction heads and a layer norm after the conv extractor, and s3prl's Distiller has no such norm "
            "(without its heads it can be written: --drop-heads)",
        )
        refuse(config.relative_position, "it has relative position biases, which s3prl's Distiller lacks")
        refuse(stack, "its position encoding is a stack of convolutions, unlike s3prl's Distiller")
        refuse(config.conv_bias, "its conv extractor has biases, which s3prl's Distiller lacks")
        refuse(config.normalize_waveform, "it normalises the waveform, which s3prl's Distiller does not")
    refuse(
        stack and config.position_kernel < 3,
        f"s3prl's data2vec has position kernels of 3 or more, not {config.position_kernel}",
    )
    refuse(stack and config.relative_position, "it has both a stack of position convolutions and relative positions")
    found, expected = config.has_projection, stack or channels != config.embed_dim
    refuse(
        found != expected,
        f"it has {'a' if found else 'no'} projection from the conv extractor's {channels} channels to "
        f"{config.embed_dim} dimensions, and s3prl has {'one' if expected else 'none'} there",
    )
    if student:
        return "distiller_local"
    if config.relative_position:
        return "wavlm_local"
    if stack:
        return "data2vec_local"
    return "hubert_local" if config.reference_mask == "block" else "wav2vec2_local"


def s3prl_content(checkpoint: Checkpoint) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """The dictionary to ``torch.save`` for s3prl.

    Returns:
        The name of s3prl's upstream that reads it, the dictionary, and notes on what it has no place for.

    Raises:
        NotExportable: none of s3prl's models is this encoder.

    >>> from robustdistiller.upstream import SpeechEncoder
    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> upstream, content, _ = s3prl_content(Checkpoint("robustdistiller", config, SpeechEncoder(config).state_dict()))
    >>> upstream, list(content)
    ('wav2vec2_local', ['task_cfg', 'model_cfg', 'model_weight'])
    """
    config, upstream = checkpoint.config, s3prl_upstream(checkpoint.config)
    weights = {fairseq_name(name, config): value for name, value in checkpoint.state_dict.items()}
    notes = _differences(config) if upstream == "distiller_local" else ()
    return upstream, _CONTENTS[upstream](config, weights), notes


def _differences(config: EncoderConfig) -> tuple[str, ...]:
    """What s3prl's Distiller does not do as the encoder does."""
    notes = lost(config, ("feature_dropout",))
    if config.norm_first:
        notes += ("s3prl gives the last layer's hidden state as it is before the final layer norm",)
    if not config.prediction_layers:
        notes += ("s3prl lists the hidden states of a Distiller without heads twice",)
    return notes


def _distiller(config: EncoderConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    options = _shared_options(config)
    options["extractor_conv_feature_layers"] = options.pop("conv_feature_layers")
    del options["conv_bias"]
    layers = list(config.prediction_layers)
    kind = "expand-last" if layers else "self-hidden"
    predicted = layers or list(range(config.num_layers + 1))
    options |= {
        "n_tasks": len(predicted),
        "pred_layer_id": predicted,
        "final_dim": config.prediction_dim or config.embed_dim,
        "out_layer_inter_dim": config.prediction_inner_dim or -1,
        "task_emb_type": kind,
        "out_layer_type": kind,
        "feature_grad_mult": config.feature_grad_mult,
    }
    return {"Config": {"distiller": options}, "Distiller": _heads_for_s3prl(weights)}


def _heads_for_s3prl(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """One head is a linear layer in s3prl, several are one tensor."""
    if "output_layer.2.weight" not in weights:
        return weights
    matrix, bias = weights.pop("output_layer.2.weight"), weights.pop("output_layer.2.bias")
    if len(matrix) == 1:
        return {
            **weights,
            "output_layer.2.layer.weight": matrix[0].T.contiguous(),
            "output_layer.2.layer.bias": bias[0],
        }
    return {**weights, "output_layer.2.weight": matrix, "output_layer.2.bias": bias[None, None]}


def _wavlm(config: EncoderConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    cfg = {
        **_pretraining_options(config),
        "normalize": config.normalize_waveform,
        "relative_position_embedding": True,
        "gru_rel_pos": config.gated_relative_position,
        "num_buckets": config.num_buckets,
        "max_distance": config.max_distance,
    }
    return {"cfg": cfg, "model": {**weights, "mask_emb": torch.zeros(config.embed_dim)}}


def _hubert(config: EncoderConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    cfg = {"label_rate": 16000 / config.downsample_rate, "final_dim": _FINAL_DIM}
    return {**_converted(config, weights, cfg, ("final_proj",)), "dictionaries_symbols": [None]}


def _wav2vec2(config: EncoderConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    cfg = {"quantize_targets": False, "final_dim": _FINAL_DIM}
    return _converted(config, weights, cfg, ("final_proj", "project_q"))


def _data2vec(config: EncoderConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    depth = config.position_depth
    content = _converted(config, weights, {"pos_conv_depth": depth, "conv_pos": config.position_kernel * depth}, ())
    content["model_weight"]["_ema"] = {}  # s3prl deletes the averaged teacher, which must therefore be there
    return content


_CONTENTS = {
    "distiller_local": _distiller,
    "wavlm_local": _wavlm,
    "data2vec_local": _data2vec,
    "hubert_local": _hubert,
    "wav2vec2_local": _wav2vec2,
}


def _converted(config: EncoderConfig, weights: dict[str, Tensor], cfg: dict[str, Any], unused: tuple[str, ...]) -> dict:
    """The layout of s3prl's converter; ``unused`` are linear layers of pre-training, to be filled with zeros."""
    model: dict[str, Any] = {**weights, "mask_emb": torch.zeros(config.embed_dim)}
    for name in unused:
        inputs = config.conv_layers[-1][0] if name == "project_q" else config.embed_dim
        model |= {f"{name}.weight": torch.zeros(_FINAL_DIM, inputs), f"{name}.bias": torch.zeros(_FINAL_DIM)}
    return {
        "task_cfg": {"normalize": config.normalize_waveform},
        "model_cfg": {**_pretraining_options(config), **cfg},
        "model_weight": model,
    }


def _pretraining_options(config: EncoderConfig) -> dict[str, Any]:
    return {
        **_shared_options(config),
        "dropout_input": config.feature_dropout,
        "feature_grad_mult": config.feature_grad_mult,
    }


def _shared_options(config: EncoderConfig) -> dict[str, Any]:
    """The options that all families spell alike."""
    return {
        "extractor_mode": "layer_norm" if config.conv_norm == "layer" else "default",
        "conv_feature_layers": str([tuple(layer) for layer in config.conv_layers]),
        "conv_bias": config.conv_bias,
        "conv_pos": config.position_kernel,
        "conv_pos_groups": config.position_groups,
        "encoder_layers": config.num_layers,
        "encoder_embed_dim": config.embed_dim,
        "encoder_ffn_embed_dim": config.ffn_dims[0],
        "encoder_attention_heads": config.heads[0],
        "activation_fn": _ACTIVATIONS[config.activation],
        "layer_norm_first": config.norm_first,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "encoder_layerdrop": config.layerdrop,
    }
