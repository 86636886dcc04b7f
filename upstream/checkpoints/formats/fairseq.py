"""Readers for fairseq's own files and for Microsoft's WavLM, and the options that their family spells alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from robustdistiller.upstream.checkpoints.formats.base import Clues, Format
from robustdistiller.upstream.checkpoints.parameter_names import fairseq_name, from_foreign
from robustdistiller.upstream.checkpoints.plain import options_of, plain, weights_of
from robustdistiller.upstream.model.config import EncoderConfig

DEFAULT_CONV = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
#: A list of triples, and how often it is repeated, without spaces.
_CONV_LAYERS = re.compile(r"[\[(]((?:[\[(]\d{1,6},\d{1,6},\d{1,6}[\])],?)*)[\])](?:\*(\d{1,2}))?")
_ACTIVATIONS = {"gelu": "gelu", "gelu_accurate": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu": "relu"}
#: Options that differ in nothing but their name, with fairseq's defaults.
_SAME: dict[str, tuple[str, Any]] = {
    "conv_bias": ("conv_bias", False),
    "conv_pos_groups": ("position_groups", 16),
    "conv_pos_batch_norm": ("position_batch_norm", False),
    "encoder_layers": ("num_layers", 12),
    "encoder_embed_dim": ("embed_dim", 768),
    "encoder_ffn_embed_dim": ("ffn_dim", 3072),
    "encoder_attention_heads": ("num_heads", 12),
    "layer_norm_first": ("norm_first", False),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "dropout_input": ("feature_dropout", 0.0),
    "encoder_layerdrop": ("layerdrop", 0.0),
    "feature_grad_mult": ("feature_grad_mult", 1.0),
}
_SPELLED = {"gelu": "gelu", "gelu_tanh": "gelu_accurate", "relu": "relu"}
#: Parameters used by pre-training losses only (name prefixes). ``_ema`` is data2vec's teacher.
TRAINING_ONLY = (
    *("mask_emb", "final_proj.", "label_embs_concat", "target_glu.", "quantizer.", "project_q.", "_ema"),
    *("input_quantizer.", "project_inp."),
)
_FINE_TUNED = "w2v_encoder.w2v_model."
#: Options that change the network in ways this encoder does not know, with the value that it knows.
_FIXED = {
    "layer_type": "transformer",
    "crop_seq_to_multiple": 1,
    "quantize_input": False,
    "attention_type": "original",
}
#: Frames of a padded batch that fairseq counts as valid; see ``EncoderConfig.reference_mask``.
_MASKS = {"hubert": "block", "wav2vec2": "conv", "data2vec_audio": "conv"}


def read_wavlm(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """Microsoft's files (and s3prl's copies of them): ``cfg`` and ``model``."""
    cfg = options_of(content, "cfg")
    relative = bool(cfg.get("relative_position_embedding", False))
    config = shared_options(
        cfg,
        normalize_waveform=bool(cfg.get("normalize", False)),
        relative_position=relative,
        # Without the bias there is nothing to gate, though the file may hold the gates.
        gated_relative_position=relative and bool(cfg.get("gru_rel_pos", False)),
        num_buckets=int(cfg.get("num_buckets", 320)),
        max_distance=int(cfg.get("max_distance", 1280)),
        reference_mask="block",
    )
    weights = weights_of(content, "model")
    if not relative:
        weights = {name: value for name, value in weights.items() if ".self_attn.grep_" not in name}
    return config, from_foreign(weights, config, fairseq_name, TRAINING_ONLY)


def read_fairseq(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """fairseq's own files: ``model``, with options in ``args`` (a Namespace, before 2021) or ``cfg`` (omegaconf).

    A model fine-tuned with CTC is read as the encoder inside it.
    """
    model, task = fairseq_options(content)
    weights = weights_of(content, "model")
    if any(name.startswith(_FINE_TUNED) for name in weights):
        inner = model.get("w2v_args")
        if not isinstance(inner, dict):
            raise ValueError("this model is fine-tuned, and 'w2v_args', the options of the encoder inside, are missing")
        model, _ = fairseq_options({"cfg": inner} if "model" in inner else {"args": inner})
        weights = {
            name.removeprefix(_FINE_TUNED): value
            for name, value in weights.items()
            if not name.startswith(("w2v_encoder.proj.", "w2v_encoder.final_proj."))
        }
    family = fairseq_family(model, weights)
    config = shared_options(model, normalize_waveform=bool(task.get("normalize", False)), reference_mask=_MASKS[family])
    return config, from_foreign(weights, config, fairseq_name, TRAINING_ONLY)


def fairseq_options(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the model and of the task in one of fairseq's own files.

    >>> fairseq_options({"args": {"arch": "wav2vec2", "normalize": True}})[1]["normalize"]
    True
    """
    if content.get("cfg") is not None:
        cfg = options_of(content, "cfg")
        return options_of(cfg, "model"), options_of(cfg, "task")
    args = options_of(content, "args")
    return args, args


def fairseq_family(model: Mapping[str, Any], weights: Mapping[str, Any]) -> str:
    """Which model it is: ``"hubert"``, ``"wav2vec2"`` or ``"data2vec_audio"``.

    Raises:
        ValueError: another one.
    """
    name = str(model.get("arch") or model.get("_name") or "")
    for family in _MASKS:
        if name.startswith(family):
            return family
    if not name or name.startswith("wav2vec_ctc"):
        marks = {"label_embs_concat": "hubert", "_ema": "data2vec_audio", "quantizer.vars": "wav2vec2"}
        return next((family for mark, family in marks.items() if mark in weights), "wav2vec2")
    raise ValueError(f"fairseq's model {name!r} is not known here; known are {', '.join(_MASKS)}")


def shared_options(cfg: Mapping[str, Any], **more: Any) -> EncoderConfig:
    """The options that the whole family spells alike, with fairseq's defaults.

    >>> shared_options({"encoder_layers": 2, "conv_pos": 95, "pos_conv_depth": 5}).position_kernel
    19
    """
    cfg = plain(cfg)
    for option, known in _FIXED.items():
        if cfg.get(option, known) != known:
            raise ValueError(f"model option {option} is {cfg[option]!r}; this encoder knows only {known!r}")
    activation = str(cfg.get("activation_fn", "gelu"))
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation_fn is {activation[:200]!r}; this encoder knows {', '.join(_ACTIVATIONS)}")
    depth, kernel = int(cfg.get("pos_conv_depth", 1)), int(cfg.get("conv_pos", 128))
    options = {ours: type(default)(cfg.get(theirs, default)) for theirs, (ours, default) in _SAME.items()}
    return EncoderConfig(
        **options,
        conv_layers=parse_conv_layers(str(cfg.get("conv_feature_layers", DEFAULT_CONV))),
        conv_norm="layer" if cfg.get("extractor_mode", "default") == "layer_norm" else "group",
        activation=_ACTIVATIONS[activation],
        position_kernel=kernel if depth == 1 else max(3, kernel // depth),
        position_depth=depth,
        **more,
    )


def spelled_options(config: EncoderConfig) -> dict[str, Any]:
    """The inverse of :func:`shared_options`, for encoders without pruned parts."""
    return {
        **{theirs: getattr(config, ours) for theirs, (ours, _) in _SAME.items()},
        "encoder_attention_heads": config.heads[0],
        "encoder_ffn_embed_dim": config.ffn_dims[0],
        "extractor_mode": "layer_norm" if config.conv_norm == "layer" else "default",
        "conv_feature_layers": str([tuple(layer) for layer in config.conv_layers]),
        "conv_pos": config.position_kernel,
        "activation_fn": _SPELLED[config.activation],
    }


def parse_conv_layers(text: str) -> tuple[tuple[int, int, int], ...]:
    """Read fairseq's description of the conv layers, a Python expression of lists, ``+`` and ``*``, without ``eval``.

    >>> parse_conv_layers("[(512,10,5)] + [(512,3,2)] * 2")
    ((512, 10, 5), (512, 3, 2), (512, 3, 2))
    """
    pieces = re.sub(r"\s", "", text[:2001]).split("+")
    layers: list[tuple[int, int, int]] = []
    for piece in pieces:
        found = _CONV_LAYERS.fullmatch(piece)
        if found is None or len(text) > 2000:
            raise ValueError(f"conv layers {text[:200]!r}: expected a list of (channels, kernel, stride)")
        triples = [(int(c), int(k), int(s)) for c, k, s in re.findall(r"(\d+),(\d+),(\d+)", found[1])]
        layers += triples * int(found[2] or 1)
    return tuple(layers)


def _is_wavlm(content: Mapping[str, Any]) -> bool:
    return {"cfg", "model"} <= content.keys() and isinstance(content["cfg"], Mapping) and "model" not in content["cfg"]


def _is_fairseq(content: Mapping[str, Any]) -> bool:
    return "model" in content and not content.keys().isdisjoint(("args", "cfg"))


FORMATS = (
    Format("wavlm", "Microsoft's WavLM: cfg (options of the model), model", _is_wavlm, read_wavlm),
    Format("fairseq", "fairseq's own: model, and args or cfg", _is_fairseq, read_fairseq),
)
