"""Files for s3prl alone: its conversions of HuBERT, wav2vec 2.0 and data2vec read and written, WavLM's written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdistiller.upstream.checkpoints.formats import distiller
from robustdistiller.upstream.checkpoints.formats.base import (
    Card,
    Checkpoint,
    Clues,
    Exported,
    Format,
    Target,
    has_keys,
    other_eps,
    save_dictionary,
)
from robustdistiller.upstream.checkpoints.formats.fairseq import TRAINING_ONLY, shared_options, spelled_options
from robustdistiller.upstream.checkpoints.formats.limits import obstacle
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name, from_foreign
from robustdistiller.upstream.checkpoints.plain import options_of, weights_of
from robustdistiller.upstream.model.config import EncoderConfig

#: s3prl builds the modules of pre-training too. They get zeros, as narrow as it allows; no feature depends on them.
_FINAL_DIM = 1


def read_converted(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """s3prl's conversions of HuBERT, wav2vec 2.0 and data2vec: ``task_cfg``, ``model_cfg``, ``model_weight``."""
    normalize = bool(options_of(content, "task_cfg").get("normalize", False))
    mask = "block" if "dictionaries_symbols" in content else "conv"
    config = shared_options(
        options_of(content, "model_cfg"),
        normalize_waveform=normalize,
        reference_mask=mask,
    )
    return config, from_foreign(weights_of(content, "model_weight"), config, fairseq_name, TRAINING_ONLY)


def s3prl_upstream(config: EncoderConfig) -> str:
    """The upstream of s3prl that is this encoder, if nothing prevents it.

    Encoders with prediction heads, or without a layer norm after the conv extractor, are Distillers; others are of the
    WavLM, data2vec, HuBERT or wav2vec 2.0 family by their architecture.

    >>> s3prl_upstream(EncoderConfig(feature_norm=False, prediction_layers=(4, 8, 12)))
    'distiller_local'
    """
    if config.prediction_layers or not config.feature_norm:
        return "distiller_local"
    if config.relative_position:
        return "wavlm_local"
    if config.position_depth > 1:
        return "data2vec_local"
    return "hubert_local" if config.reference_mask == "block" else "wav2vec2_local"


def s3prl_content(checkpoint: Checkpoint) -> tuple[str, dict[str, Any]]:
    """The name of s3prl's upstream, and the dictionary to ``torch.save`` for it.

    >>> from robustdistiller.upstream import SpeechEncoder
    >>> config = EncoderConfig.tiny(num_layers=1)
    >>> upstream, content = s3prl_content(Checkpoint("robustdistiller", config, SpeechEncoder(config).state_dict()))
    >>> upstream, list(content)
    ('wav2vec2_local', ['task_cfg', 'model_cfg', 'model_weight'])
    """
    config, upstream = checkpoint.config, s3prl_upstream(checkpoint.config)
    weights = {fairseq_name(name, config): value for name, value in checkpoint.state_dict.items()}
    return upstream, _CONTENTS[upstream](config, weights)


def _write(checkpoint: Checkpoint, path: Path, notes: tuple[str, ...], card: Card) -> Exported:
    upstream, content = s3prl_content(checkpoint)
    if upstream == "distiller_local":
        notes += distiller.differences(checkpoint.config)
    save_dictionary(checkpoint, content, path)
    return Exported(path, f"s3prl upstream {upstream}", notes + other_eps(checkpoint.config, 1e-5, "s3prl"))


def _wavlm(config: EncoderConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    cfg = {
        **spelled_options(config),
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
    "distiller_local": distiller.distiller_content,
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
        "model_cfg": {**spelled_options(config), **cfg},
        "model_weight": model,
    }


_CONVERTED = has_keys("task_cfg", "model_cfg", "model_weight")
FORMATS = (
    Format(
        "hubert",
        "s3prl's conversion of HuBERT: task_cfg, model_cfg, model_weight, dictionaries_symbols",
        lambda content: _CONVERTED(content) and "dictionaries_symbols" in content,
        read_converted,
    ),
    Format(
        "wav2vec2",
        "s3prl's conversion of wav2vec 2.0 or data2vec: task_cfg, model_cfg, model_weight",
        _CONVERTED,
        read_converted,
    ),
)
TARGET = Target(
    "s3prl",
    "s3prl alone: -u distiller_local, hubert_local, wav2vec2_local, data2vec_local or wavlm_local",
    "s3prl",
    obstacle=lambda config: obstacle(config, "s3prl", s3prl_upstream(config)),
    write=_write,
    keeps_heads=True,
)
