"""Reader for Hugging Face's wav2vec2, hubert, wavlm and data2vec-audio, without transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustdistiller.upstream.checkpoints.files import existing_file, safe_load
from robustdistiller.upstream.checkpoints.names import from_foreign, huggingface_name
from robustdistiller.upstream.model.config import EncoderConfig

#: ``model_type`` to the prefix of the parameters when the encoder is part of a model with a task head.
PREFIXES = {"wav2vec2": "wav2vec2.", "hubert": "hubert.", "wavlm": "wavlm.", "data2vec-audio": "data2vec_audio."}
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_ACTIVATIONS |= {"gelu_fast": "gelu_tanh", "relu": "relu"}
#: Parameters of pre-training losses and task heads (name prefixes).
_TRAINING_ONLY = ("masked_spec_embed", "quantizer.", "project_q.", "project_hid.", "lm_head.", "projector.")
_TRAINING_ONLY += ("classifier.", "layer_weights", "tdnn.", "objective.")
#: The last layer of ...ForXVector has the name of the conv extractor.
_TRAINING_ONLY += ("feature_extractor.weight", "feature_extractor.bias")
#: Options that change the network in ways this encoder does not know, with the value that it knows.
_FIXED = {
    "add_adapter": False,
    "adapter_attn_dim": None,
    "conv_pos_batch_norm": False,
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
}
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_CONV = {"conv_dim": (512,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}


def load_huggingface(path: str | Path) -> dict[str, Any] | None:
    """What a Hugging Face folder, or a weight file with ``config.json`` beside it, holds; ``None`` if it is neither.

    Returns:
        ``"hf_config"``, ``"hf_weights"`` and ``"hf_preprocessor"`` (empty if there is no such file).

    Raises:
        ValueError: the folder is incomplete, or one of its files is damaged.
        FileNotFoundError: a part of a model in several files is missing.
    """
    path = Path(path).expanduser()
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        return None
    if path.is_dir():
        weights = _find_weights(folder)
    elif path.name.startswith(("model", "pytorch_model")) and path.suffix in (".safetensors", ".bin"):
        weights = safe_load(path)
    else:
        return None
    preprocessor = folder / "preprocessor_config.json"
    return {
        "hf_config": _read_json(folder / "config.json"),
        "hf_weights": weights,
        "hf_preprocessor": _read_json(preprocessor) if preprocessor.is_file() else {},
    }


def _find_weights(folder: Path) -> dict[str, Any]:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return safe_load(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = _read_json(index).get("weight_map", {})
            if not isinstance(parts, Mapping) or not all(
                isinstance(p, str) and Path(p).name == p for p in parts.values()
            ):
                raise ValueError(f"{index}: weight_map should name files of this folder")
            return {
                k: v for part in sorted(set(parts.values())) for k, v in safe_load(existing_file(folder / part)).items()
            }
    raise ValueError(f"{folder} has a config.json but no weights; expected {' or '.join(WEIGHT_FILES)}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def read_huggingface(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """Translate what :func:`load_huggingface` found.

    The input is normalised if ``preprocessor_config.json`` says so; without that file, if the extractor has layer
    norms (Large models).
    """
    cfg, weights = content["hf_config"], content["hf_weights"]
    kind = str(cfg.get("model_type"))
    if kind not in PREFIXES:
        raise ValueError(f"config.json: model_type is {kind!r}; this package reads {', '.join(PREFIXES)}")
    config = _translate(kind, cfg, content["hf_preprocessor"])
    prefix = PREFIXES[kind]
    weights = {str(name).removeprefix(prefix): value for name, value in weights.items()}
    return config, from_foreign(weights, config, huggingface_name, _TRAINING_ONLY)


def _translate(kind: str, cfg: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> EncoderConfig:
    for option, known in _FIXED.items():
        if cfg.get(option, known) != known:
            raise ValueError(f"config.json: {option} is {cfg[option]!r}; this encoder knows only {known!r}")
    if missing := [option for option in _NEEDED if option not in cfg]:
        raise ValueError(f"config.json: missing: {', '.join(missing)}")
    activation = cfg.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"config.json: hidden_act is {activation!r}; this encoder knows {', '.join(_ACTIVATIONS)}")
    conv = [tuple(cfg.get(option, default)) for option, default in _CONV.items()]
    if len({len(values) for values in conv}) != 1:
        raise ValueError(f"config.json: {', '.join(_CONV)} have different lengths")
    stack = kind == "data2vec-audio"
    conv_norm = "layer" if stack else str(cfg.get("feat_extract_norm", "group"))
    normalize = preprocessor.get("do_normalize", conv_norm == "layer")
    try:
        return EncoderConfig(
            conv_layers=tuple(zip(*conv)),
            conv_norm=conv_norm,
            conv_bias=bool(cfg.get("conv_bias", False)),
            feature_norm=bool(cfg.get("feat_proj_layer_norm", True)),
            projection=True,
            normalize_waveform=bool(normalize),
            embed_dim=cfg["hidden_size"],
            num_layers=cfg["num_hidden_layers"],
            num_heads=cfg["num_attention_heads"],
            ffn_dim=cfg["intermediate_size"],
            activation=_ACTIVATIONS[activation],
            norm_first=not stack and bool(cfg.get("do_stable_layer_norm", False)),
            position_kernel=cfg.get("conv_pos_kernel_size", 19) if stack else cfg.get("num_conv_pos_embeddings", 128),
            position_groups=cfg.get("num_conv_pos_embedding_groups", 16),
            position_depth=cfg.get("num_conv_pos_embeddings", 5) if stack else 1,
            relative_position=kind == "wavlm",
            gated_relative_position=kind == "wavlm",
            num_buckets=cfg.get("num_buckets", 320),
            max_distance=cfg.get("max_bucket_distance", 800),
            dropout=cfg.get("hidden_dropout", 0.1),
            attention_dropout=cfg.get("attention_dropout", 0.1),
            activation_dropout=cfg.get("activation_dropout", 0.1),
            feature_dropout=cfg.get("feat_proj_dropout", 0.0),
            layerdrop=cfg.get("layerdrop", 0.1),
        )
    except TypeError as error:
        raise ValueError(f"config.json: an option has the wrong type: {error}") from error
