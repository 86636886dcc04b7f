"""Readers for torchaudio's state dicts and for what is built on torchaudio's code: DPHuBERT and DPWavLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from robustdistiller.upstream.checkpoints.fairseq import weights_of
from robustdistiller.upstream.checkpoints.names import fairseq_name, from_foreign, older_spelling, torchaudio_name
from robustdistiller.upstream.checkpoints.plain import options_of
from robustdistiller.upstream.checkpoints.shapes import options_from_shapes
from robustdistiller.upstream.model.config import EncoderConfig

#: Parameters of pre-training losses and task heads (name prefixes).
_TRAINING_ONLY = ("aux.", "mask_generator.", "logit_generator.")
#: What DPHuBERT's configuration may ask for besides the network: gates that prune it.
PRUNING_OPTIONS = (
    "extractor_prune_conv_channels",
    "encoder_prune_attention_heads",
    "encoder_prune_attention_layer",
    "encoder_prune_feed_forward_intermediate",
    "encoder_prune_feed_forward_layer",
)


def read_torchaudio(content: Mapping[str, Any], num_heads: int | None = None) -> tuple[EncoderConfig, dict]:
    """A bare state dict of torchaudio's wav2vec 2.0, HuBERT or WavLM, pre-training and CTC models too.

    The configuration is inferred from the shapes. As in every model that torchaudio offers, extractors with layer norms
    come with pre-norm layers and normalised input, and the others with neither.
    """
    weights = {str(name).removeprefix("wav2vec2."): value for name, value in content.items()}
    weights = split_attention(older_spelling(weights))
    options = options_from_shapes(_shapes(weights, torchaudio_name), num_heads)
    large = options["conv_norm"] == "layer"
    config = EncoderConfig(**options, norm_first=large, normalize_waveform=large, reference_mask="conv")
    return config, from_foreign(weights, config, torchaudio_name, _TRAINING_ONLY)


def split_attention(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchaudio's WavLM with its stacked queries, keys and values taken apart."""
    taken = {}
    for name, value in weights.items():
        stem, _, kind = name.rpartition("attention.attention.in_proj_")
        if stem and kind in ("weight", "bias") and isinstance(value, Tensor) and len(value) % 3 == 0:
            for part, chunk in zip("qkv", value.chunk(3)):
                taken[f"{stem}attention.{part}_proj.{kind}"] = chunk
        else:
            taken[name.replace("attention.attention.out_proj.", "attention.out_proj.")] = value
    return taken


def read_dphubert(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """DPHuBERT's files: ``config`` and ``state_dict`` (and ``distill_linear_projs``, used in training only).

    ``config`` holds the arguments of torchaudio's ``wav2vec2_model`` with one number of heads and one feed-forward
    width per layer, ``encoder_use_attention`` and ``encoder_use_feed_forward``. DPWavLM keeps all columns of the
    position table and all gates, and lists the heads that remain in ``encoder_remaining_heads``.
    """
    cfg = options_of(content, "config")
    weights = older_spelling(weights_of(content, "state_dict"))
    if gates := [name for name in PRUNING_OPTIONS if cfg.get(name)]:
        raise ValueError(f"this model is not pruned yet ({', '.join(gates)}): run DPHuBERT's prune.py on it first")
    try:
        config = _dphubert_config(cfg, weights)
    except KeyError as error:
        raise ValueError(f"the checkpoint's 'config' lacks {error.args[0]!r}") from error
    except TypeError as error:
        raise ValueError(f"the checkpoint's 'config' has an option of the wrong type: {error}") from error
    return config, from_foreign(weights, config, torchaudio_name, _TRAINING_ONLY)


def _dphubert_config(cfg: Mapping[str, Any], weights: Mapping[str, Any]) -> EncoderConfig:
    num_layers, dim = cfg["encoder_num_layers"], cfg["encoder_embed_dim"]
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
    return EncoderConfig(
        conv_layers=tuple(map(tuple, cfg["extractor_conv_layer_config"])),
        conv_norm="layer" if cfg["extractor_mode"] == "layer_norm" else "group",
        conv_bias=bool(cfg["extractor_conv_bias"]),
        feature_scale="feature_extractor.dummy_weight" in weights,
        projection=True,
        normalize_waveform=bool(cfg.get("normalize_waveform", False)),
        embed_dim=dim,
        num_layers=num_layers,
        num_heads=tuple(heads),
        head_dim=head_dim,
        ffn_dim=tuple(width if used else 0 for width, used in zip(widths, feeds)),
        norm_first=bool(cfg["encoder_layer_norm_first"]),
        position_kernel=cfg["encoder_pos_conv_kernel"],
        position_groups=cfg["encoder_pos_conv_groups"],
        dropout=cfg.get("encoder_dropout", 0.1),
        attention_dropout=cfg.get("encoder_attention_dropout", 0.1),
        activation_dropout=cfg.get("encoder_ff_interm_dropout", 0.0),
        feature_dropout=cfg.get("encoder_projection_dropout", 0.0),
        layerdrop=cfg.get("encoder_layer_drop", 0.0),
        reference_mask="conv",
        first_state="projected",
        **relative,
    )


def read_armhubert(content: Mapping[str, Any], num_heads: int | None = None) -> tuple[EncoderConfig, dict]:
    """ARMHuBERT, ARMwavLM, MaskHuBERT and STaRHuBERT: Lightning's ``state_dict`` with a ``student_model``.

    The configuration lies in another file, but follows from the shapes: attention is reused in layers without queries,
    and all published students have 12 heads. The linear maps to the teacher's width are left out, so that the hidden
    states are the layers' own. Students that shorten time inside the transformer are refused.
    """
    prefix = "student_model."
    everything = weights_of(content, "state_dict")
    weights = older_spelling({k.removeprefix(prefix): v for k, v in everything.items() if k.startswith(prefix)})
    if any(name.startswith("upsampler.") for name in weights):
        raise ValueError("this student shortens time inside its transformer (enable_tr_layer), which is not known here")
    conv_norm = "layer" if "feature_extractor.conv_layers.1.2.1.weight" in weights else "group"
    known = EncoderConfig(conv_norm=conv_norm)
    options = options_from_shapes(_shapes(weights, lambda ours: fairseq_name(ours, known)), num_heads or 12)
    config = EncoderConfig(**{**options, "conv_norm": conv_norm}, feature_dropout=0.05, activation_dropout=0.1)
    return config, from_foreign(weights, config, fairseq_name, ("proj_head.", "final_proj.", "mask_emb", "specaug"))


def _shapes(weights: Mapping[str, Any], rename: Callable[[str], str]) -> Callable[[str], tuple[int, ...] | None]:
    def shape(ours: str) -> tuple[int, ...] | None:
        try:
            value = weights.get(rename(ours))
        except ValueError:  # they have no such parameter
            return None
        return tuple(value.shape) if isinstance(value, Tensor) else None

    return shape
