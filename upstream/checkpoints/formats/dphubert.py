"""DPHuBERT and DPWavLM (https://github.com/pyf98/DPHuBERT): pruned models on torchaudio's code, read and written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robustdistiller.upstream.checkpoints.formats.base import (
    Card,
    Checkpoint,
    Clues,
    Exported,
    Format,
    Target,
    has_keys,
    lost,
    other_eps,
    save_dictionary,
)
from robustdistiller.upstream.checkpoints.formats.limits import obstacle
from robustdistiller.upstream.checkpoints.formats.torchaudio import (
    TRAINING_ONLY,
    last_layer_differs,
    shared_arguments,
    shared_options,
)
from robustdistiller.upstream.checkpoints.parameter_names import from_foreign, older_spelling, torchaudio_name
from robustdistiller.upstream.checkpoints.plain import options_of, weights_of
from robustdistiller.upstream.model.config import EncoderConfig

#: What DPHuBERT's configuration may ask for besides the network: gates that prune it.
_PRUNING = (
    "extractor_prune_conv_channels",
    "encoder_prune_attention_heads",
    "encoder_prune_attention_layer",
    "encoder_prune_feed_forward_intermediate",
    "encoder_prune_feed_forward_layer",
)


def read_dphubert(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """DPHuBERT's files: ``config`` and ``state_dict`` (and ``distill_linear_projs``, used in training only).

    ``config`` holds the arguments of torchaudio's ``wav2vec2_model`` with one number of heads and one feed-forward
    width per layer, ``encoder_use_attention`` and ``encoder_use_feed_forward``. DPWavLM keeps all columns of the
    position table and all gates, and lists the heads that remain in ``encoder_remaining_heads``.
    """
    cfg = options_of(content, "config")
    weights = older_spelling(weights_of(content, "state_dict"))
    if gates := [name for name in _PRUNING if cfg.get(name)]:
        raise ValueError(f"this model is not pruned yet ({', '.join(gates)}): run DPHuBERT's prune.py on it first")
    dim = cfg["encoder_embed_dim"]
    attends, feeds = cfg["encoder_use_attention"], cfg["encoder_use_feed_forward"]
    widths = cfg["encoder_ff_interm_features"]
    relative: dict[str, Any] = {}
    if "encoder_remaining_heads" in cfg:
        total = cfg["encoder_total_num_heads"]
        if len(set(total)) != 1:
            raise ValueError(f"encoder_total_num_heads is {total}; expected the same number in each layer")
        columns = [tuple(heads) if used else () for heads, used in zip(cfg["encoder_remaining_heads"], attends)]
        heads, head_dim = [len(kept) for kept in columns], dim // total[0]
        relative = {"relative_position": True, "gated_relative_position": True, "position_bias_heads": tuple(columns)}
        relative |= {"num_buckets": cfg["encoder_num_buckets"], "max_distance": cfg["encoder_max_distance"]}
    else:
        heads = [number if used else 0 for number, used in zip(cfg["encoder_num_heads"], attends)]
        head_dim = cfg.get("encoder_head_dim", 64)
    defaults = {"encoder_projection_dropout": 0.0, "encoder_attention_dropout": 0.1, "encoder_ff_interm_dropout": 0.0}
    defaults |= {"encoder_dropout": 0.1, "encoder_layer_drop": 0.0}
    config = EncoderConfig(
        **shared_options({**defaults, **cfg}),
        feature_scale="feature_extractor.dummy_weight" in weights,
        normalize_waveform=bool(cfg.get("normalize_waveform", False)),
        num_heads=tuple(heads),
        head_dim=head_dim,
        ffn_dim=tuple(width if used else 0 for width, used in zip(widths, feeds)),
        first_state="projected",
        **relative,
    )
    return config, from_foreign(weights, config, torchaudio_name, TRAINING_ONLY)


def _write(checkpoint: Checkpoint, path: Path, notes: tuple[str, ...], card: Card) -> Exported:
    """``config`` (arguments of DPHuBERT's ``wav2vec2_model``) and ``state_dict``."""
    config = checkpoint.config
    notes += lost(config, ("feature_grad_mult",)) + other_eps(config, 1e-5, "DPHuBERT")
    notes += tuple(last_layer_differs(config, "DPHuBERT"))
    if not config.starts_projected:
        notes += ("DPHuBERT lists the projection's output as hidden state 0, not the input of the first layer",)
    weights = {torchaudio_name(name, config): value for name, value in checkpoint.state_dict.items()}
    if not config.feature_scale:
        weights["feature_extractor.dummy_weight"] = torch.ones(config.conv_layers[-1][0])
        notes += ("a factor of 1 per channel of the conv extractor's output is added, which DPHuBERT's models have",)
    save_dictionary(checkpoint, {"config": _arguments(config), "state_dict": weights}, path)
    return Exported(path, "DPHuBERT's wav2vec2_model", notes)


def _arguments(config: EncoderConfig) -> dict[str, Any]:
    arguments = {
        **shared_arguments(config),
        "encoder_use_attention": [number > 0 for number in config.heads],
        "encoder_use_feed_forward": [width > 0 for width in config.ffn_dims],
        "encoder_ff_interm_features": list(config.ffn_dims),
        "normalize_waveform": config.normalize_waveform,
        **dict.fromkeys(_PRUNING, False),
    }
    if not config.relative_position:
        return {**arguments, "encoder_num_heads": list(config.heads), "encoder_head_dim": config.width_per_head}
    return {
        **arguments,
        "encoder_total_num_heads": [config.total_heads] * config.num_layers,
        "encoder_remaining_heads": [list(columns) for columns in config.bias_columns],
    }


FORMATS = (
    Format("dphubert", "DPHuBERT and DPWavLM: config, state_dict", has_keys("config", "state_dict"), read_dphubert),
)
TARGET = Target(
    "dphubert",
    "DPHuBERT's code: one file with the arguments of its wav2vec2_model and a state dict, pruned or not",
    "DPHuBERT's code",
    obstacle=lambda config: obstacle(config, "DPHuBERT", "wav2vec2_model"),
    write=_write,
)
