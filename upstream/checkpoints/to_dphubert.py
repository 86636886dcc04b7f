"""Files for DPHuBERT's code (https://github.com/pyf98/DPHuBERT): the inverse of :func:`.torchaudio.read_dphubert`."""

from __future__ import annotations

from typing import Any

import torch

from robustdistiller.upstream.checkpoints.formats import Checkpoint
from robustdistiller.upstream.checkpoints.names import torchaudio_name
from robustdistiller.upstream.checkpoints.obstacles import lost, refuse
from robustdistiller.upstream.checkpoints.torchaudio import PRUNING_OPTIONS
from robustdistiller.upstream.checkpoints.torchaudio_options import shared_arguments
from robustdistiller.upstream.model.config import EncoderConfig


def require_dphubert(config: EncoderConfig) -> None:
    """Refuse what DPHuBERT's models cannot express. Pruned parts are what they are for.

    Raises:
        NotExportable: naming the first such property.

    >>> require_dphubert(EncoderConfig(num_layers=2, num_heads=(3, 0), head_dim=64, ffn_dim=(5, 0)))
    """
    refuse(config.num_layers == 0, "it has no transformer layer")
    refuse(not config.feature_norm, "it has no layer norm after the conv extractor, which DPHuBERT's models have")
    refuse(not config.has_projection, "it has no projection after the conv extractor, which DPHuBERT's models have")
    refuse(config.activation != "gelu", f"its activation is {config.activation}, and DPHuBERT knows only gelu")
    refuse(config.position_depth > 1, "its position encoding is a stack of convolutions (data2vec)")
    refuse(bool(config.attention_reuse), "some of its layers reuse attention weights")
    if not config.relative_position:
        return
    refuse(not config.gated_relative_position, "its relative position bias has no gates, which DPWavLM's always has")
    refuse(
        config.embed_dim % config.width_per_head != 0,
        f"its width {config.embed_dim} is not a multiple of its heads' width {config.width_per_head}",
    )
    refuse(
        config.heads[0] == 0,
        "its first layer has no attention, which is where DPWavLM keeps the relative position table of all layers",
    )


def dphubert_content(checkpoint: Checkpoint) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The dictionary to ``torch.save``: ``config`` (arguments of DPHuBERT's ``wav2vec2_model``) and ``state_dict``.

    Returns:
        The dictionary, and notes on what the format has no place for.

    Raises:
        NotExportable: DPHuBERT has no such model.

    >>> from robustdistiller.upstream import SpeechEncoder
    >>> config = EncoderConfig(embed_dim=16, num_layers=2, num_heads=(1, 0), head_dim=8, ffn_dim=(0, 5),
    ...                        position_groups=4)
    >>> content, _ = dphubert_content(Checkpoint("robustdistiller", config, SpeechEncoder(config).state_dict()))
    >>> content["config"]["encoder_num_heads"], content["config"]["encoder_use_feed_forward"]
    ([1, 0], [False, True])
    """
    config = checkpoint.config
    require_dphubert(config)
    notes = lost(config, ("feature_grad_mult",))
    if not config.starts_projected:
        notes += ("DPHuBERT lists the projection's output as hidden state 0, not the input of the first layer",)
    weights = {torchaudio_name(name, config): value for name, value in checkpoint.state_dict.items()}
    if not config.feature_scale:
        weights["feature_extractor.dummy_weight"] = torch.ones(config.conv_layers[-1][0])
        notes += ("a factor of 1 per channel of the conv extractor's output is added, which DPHuBERT's models have",)
    return {"config": _arguments(config), "state_dict": weights}, notes


def _arguments(config: EncoderConfig) -> dict[str, Any]:
    arguments = {
        **shared_arguments(config),
        "encoder_use_attention": [number > 0 for number in config.heads],
        "encoder_use_feed_forward": [width > 0 for width in config.ffn_dims],
        "encoder_ff_interm_features": list(config.ffn_dims),
        "normalize_waveform": config.normalize_waveform,
        **dict.fromkeys(PRUNING_OPTIONS, False),
    }
    if not config.relative_position:
        return {**arguments, "encoder_num_heads": list(config.heads), "encoder_head_dim": config.width_per_head}
    return {
        **arguments,
        "encoder_total_num_heads": [config.total_heads] * config.num_layers,
        "encoder_remaining_heads": [list(columns) for columns in config.bias_columns],
    }
