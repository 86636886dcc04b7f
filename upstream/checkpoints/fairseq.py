"""Readers for the fairseq family: fairseq's own files, Microsoft's WavLM, s3prl's conversions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.upstream.checkpoints.names import fairseq_name, from_foreign
from robustdistiller.upstream.checkpoints.plain import options_of, parse_conv_layers, plain
from robustdistiller.upstream.checkpoints.unpickle import Inert
from robustdistiller.upstream.model.config import EncoderConfig

DEFAULT_CONV = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
_ACTIVATIONS = {"gelu": "gelu", "gelu_accurate": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu": "relu"}
#: Parameters used by pre-training losses only (name prefixes). ``_ema`` is data2vec's teacher.
_TRAINING_ONLY = ("mask_emb", "final_proj.", "label_embs_concat", "target_glu.", "quantizer.", "project_q.", "_ema")
_TRAINING_ONLY += ("input_quantizer.", "project_inp.")
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


def read_wavlm(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
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
    return config, from_foreign(weights, config, fairseq_name, _TRAINING_ONLY)


def read_converted(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """s3prl's conversions of HuBERT, wav2vec 2.0 and data2vec: ``task_cfg``, ``model_cfg``, ``model_weight``."""
    normalize = bool(options_of(content, "task_cfg").get("normalize", False))
    mask = "block" if "dictionaries_symbols" in content else "conv"
    config = shared_options(options_of(content, "model_cfg"), normalize_waveform=normalize, reference_mask=mask)
    return config, from_foreign(weights_of(content, "model_weight"), config, fairseq_name, _TRAINING_ONLY)


def read_fairseq(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """fairseq's own files: ``model``, with options in ``args`` (a Namespace, before 2021) or ``cfg`` (omegaconf).

    A model fine-tuned with CTC is read as the encoder inside it.
    """
    model, task = fairseq_options(content)
    weights = weights_of(content, "model")
    if any(str(name).startswith(_FINE_TUNED) for name in weights):
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
    return config, from_foreign(weights, config, fairseq_name, _TRAINING_ONLY)


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


def weights_of(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The state dict under ``key``.

    Raises:
        ValueError: there is none.
    """
    weights = content.get(key)
    if not isinstance(weights, Mapping) or not weights:
        found = weights.name if isinstance(weights, Inert) else type(weights).__name__
        raise ValueError(f"the checkpoint's {key!r} should hold the weights, found {found}")
    return {str(name): value for name, value in weights.items()}


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
        raise ValueError(f"activation_fn is {activation!r}; this encoder knows {', '.join(_ACTIVATIONS)}")
    depth, kernel = int(cfg.get("pos_conv_depth", 1)), int(cfg.get("conv_pos", 128))
    try:
        return EncoderConfig(
            conv_layers=parse_conv_layers(str(cfg.get("conv_feature_layers", DEFAULT_CONV))),
            conv_norm="layer" if cfg.get("extractor_mode", "default") == "layer_norm" else "group",
            conv_bias=bool(cfg.get("conv_bias", False)),
            embed_dim=int(cfg.get("encoder_embed_dim", 768)),
            num_layers=int(cfg.get("encoder_layers", 12)),
            num_heads=int(cfg.get("encoder_attention_heads", 12)),
            ffn_dim=int(cfg.get("encoder_ffn_embed_dim", 3072)),
            activation=_ACTIVATIONS[activation],
            norm_first=bool(cfg.get("layer_norm_first", False)),
            position_kernel=kernel if depth == 1 else max(3, kernel // depth),
            position_groups=int(cfg.get("conv_pos_groups", 16)),
            position_depth=depth,
            dropout=float(cfg.get("dropout", 0.1)),
            attention_dropout=float(cfg.get("attention_dropout", 0.1)),
            activation_dropout=float(cfg.get("activation_dropout", 0.0)),
            feature_dropout=float(cfg.get("dropout_input", 0.0)),
            layerdrop=float(cfg.get("encoder_layerdrop", 0.0)),
            feature_grad_mult=float(cfg.get("feature_grad_mult", 1.0)),
            **more,
        )
    except TypeError as error:
        raise ValueError(f"a model option has the wrong type: {error}") from error
