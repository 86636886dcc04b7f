"""Files for ``torchaudio.models.wav2vec2_model`` and ``wavlm_model``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustdistiller.upstream.checkpoints.formats import Checkpoint
from robustdistiller.upstream.checkpoints.names import torchaudio_name
from robustdistiller.upstream.checkpoints.obstacles import refuse, require_regular
from robustdistiller.upstream.checkpoints.torchaudio_options import factory_arguments
from robustdistiller.upstream.model.config import EncoderConfig


def require_torchaudio(config: EncoderConfig) -> None:
    """Refuse what torchaudio has no model for.

    Raises:
        NotExportable: naming the first such property.

    >>> require_torchaudio(EncoderConfig())
    """
    require_regular(config)
    refuse(
        not config.feature_norm,
        "it has no layer norm between the conv extractor and the projection, which torchaudio's models always have",
    )
    refuse(not config.has_projection, "it has no projection after the conv extractor, which torchaudio's models have")
    refuse(config.activation != "gelu", f"its activation is {config.activation}, and torchaudio knows only gelu")
    refuse(config.position_depth > 1, "its position encoding is a stack of convolutions (data2vec)")
    refuse(
        config.relative_position and not config.gated_relative_position,
        "its relative position bias has no gates, which torchaudio's wavlm_model always has",
    )


def torchaudio_content(checkpoint: Checkpoint) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The dictionary to ``torch.save``: ``factory``, ``config`` (its keyword arguments), ``state_dict``.

    Loaded with ``getattr(torchaudio.models, file["factory"])(**file["config"]).load_state_dict(file["state_dict"])``.

    Returns:
        The dictionary, and notes on what torchaudio has no place for.

    Raises:
        NotExportable: torchaudio has no such model.

    >>> from robustdistiller.upstream import SpeechEncoder
    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> content, notes = torchaudio_content(
    ...     Checkpoint("robustdistiller", config, SpeechEncoder(config).state_dict()))
    >>> content["factory"], content["config"]["encoder_num_heads"]
    ('wav2vec2_model', 2)
    """
    config = checkpoint.config
    require_torchaudio(config)
    notes = ()
    if config.normalize_waveform:
        notes = ("torchaudio's models do not normalise the waveform: apply layer_norm(x, x.shape) to each utterance",)
    if config.relative_position:
        notes += ("torchaudio's wavlm_model has no mask: give it one utterance, or several of equal length",)
    factory, arguments = factory_arguments(config)
    weights = {torchaudio_name(name, config): value for name, value in checkpoint.state_dict.items()}
    if config.relative_position:
        weights = _fuse_projections(weights)
    content = {"factory": factory, "config": arguments, "normalize_waveform": config.normalize_waveform}
    return {**content, "state_dict": weights}, notes


def _fuse_projections(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchaudio's WavLM keeps queries, keys and values in one matrix, in a module ``attention`` of its own."""
    fused = dict(weights)
    for name in weights:
        attention, _, rest = name.rpartition(".q_proj.")
        if attention:
            parts = [fused.pop(f"{attention}.{part}_proj.{rest}") for part in "qkv"]
            fused[f"{attention}.attention.in_proj_{rest}"] = torch.cat(parts)
            fused[f"{attention}.attention.out_proj.{rest}"] = fused.pop(f"{attention}.out_proj.{rest}")
    return fused
