"""Hugging Face's wav2vec2, hubert, wavlm and data2vec-audio: read and written without transformers; sew: read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from robustdistiller.common.files import write_atomically, write_text
from robustdistiller.upstream.checkpoints.formats.base import (
    Card,
    Checkpoint,
    Clues,
    Exported,
    Format,
    Target,
    has_keys,
    other_eps,
    own_notes,
)
from robustdistiller.upstream.checkpoints.formats.huggingface_files import FILES, write_folder
from robustdistiller.upstream.checkpoints.formats.limits import obstacle
from robustdistiller.upstream.checkpoints.model_card import model_card
from robustdistiller.upstream.checkpoints.parameter_names import from_foreign, huggingface_name, sew_name
from robustdistiller.upstream.model.config import EncoderConfig

#: ``model_type`` to the class that reads it.
_MODELS = {
    "hubert": "HubertModel",
    "wav2vec2": "Wav2Vec2Model",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
}
#: ``model_type`` to the prefix of the parameters when the encoder is part of a model with a task head.
PREFIXES = {"wav2vec2": "wav2vec2.", "hubert": "hubert.", "wavlm": "wavlm.", "data2vec-audio": "data2vec_audio."}
PREFIXES |= {"sew": "sew."}
_ACTIVATIONS = {"gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_ACTIVATIONS |= {"gelu_fast": "gelu_tanh", "relu": "relu"}
_SPELLED = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}
#: Parameters of pre-training losses and task heads (name prefixes).
_TRAINING_ONLY = (
    *("masked_spec_embed", "quantizer.", "project_q.", "project_hid.", "lm_head.", "projector."),
    *("classifier.", "layer_weights", "tdnn.", "objective."),
    # The last layer of ...ForXVector has the name of the conv extractor.
    *("feature_extractor.weight", "feature_extractor.bias"),
)
#: Options that change the network in ways this encoder does not know, with the value that it knows.
_FIXED = {
    "add_adapter": False,
    "adapter_attn_dim": None,
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
}
#: What transformers' feature extractor adds to the variance of a waveform.
_NORMALIZE_EPS = 1e-7
#: Options that differ in nothing but their name, with transformers' defaults; the first four have to be there.
_SAME: dict[str, tuple[str, Any]] = {
    "hidden_size": ("embed_dim", None),
    "num_hidden_layers": ("num_layers", None),
    "num_attention_heads": ("num_heads", None),
    "intermediate_size": ("ffn_dim", None),
    "do_stable_layer_norm": ("norm_first", False),
    "conv_bias": ("conv_bias", False),
    "num_conv_pos_embedding_groups": ("position_groups", 16),
    "hidden_dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.1),
    "feat_proj_dropout": ("feature_dropout", 0.0),
    "layerdrop": ("layerdrop", 0.1),
}
_RELATIVE = {"num_buckets": ("num_buckets", 320), "max_bucket_distance": ("max_distance", 800)}
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_CONV = {"conv_dim": (512,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
_SEW_CONV = {
    "conv_dim": (64, *(128,) * 4, *(256,) * 4, *(512,) * 4),
    "conv_kernel": (10, *(3, 1) * 4, *(2, 1) * 2),
    "conv_stride": (5, *(2, 1) * 6),
}


def read_huggingface(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """Translate what :func:`load_huggingface` found.

    The input is normalised if the folder says so (:func:`.files.input_options`); otherwise if the extractor has layer
    norms (Large models), which is noted as a guess.
    """
    cfg, weights = content["hf_config"], content["hf_weights"]
    kind = _kind(cfg)
    config = translate(cfg, content["hf_preprocessor"], clues)
    prefix = PREFIXES[kind]
    weights = {name.removeprefix(prefix): value for name, value in weights.items() if isinstance(name, str)}
    return config, from_foreign(weights, config, sew_name if kind == "sew" else huggingface_name, _TRAINING_ONLY)


def _kind(cfg: Mapping[str, Any]) -> str:
    kind = str(cfg.get("model_type"))
    if kind not in PREFIXES:
        raise ValueError(f"config.json: model_type is {kind[:200]!r}; this package reads {', '.join(PREFIXES)}")
    return kind


def translate(cfg: Mapping[str, Any], preprocessor: Mapping[str, Any], clues: Clues) -> EncoderConfig:
    """The encoder that ``config.json`` and ``preprocessor_config.json`` describe.

    >>> small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    >>> translate({"model_type": "hubert", **small}, {"do_normalize": True}, Clues()).normalize_eps
    1e-07
    """
    kind = _kind(cfg)
    for option, known in _FIXED.items():
        if cfg.get(option, known) != known:
            raise ValueError(f"config.json: {option} is {cfg[option]!r}; this encoder knows only {known!r}")
    if missing := [option for option in _NEEDED if option not in cfg]:
        raise ValueError(f"config.json: missing: {', '.join(missing)}")
    activation = cfg.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"config.json: hidden_act is {activation!r}; this encoder knows {', '.join(_ACTIVATIONS)}")
    conv = [tuple(cfg.get(option, default)) for option, default in (_SEW_CONV if kind == "sew" else _CONV).items()]
    if len({len(values) for values in conv}) != 1:
        raise ValueError(f"config.json: {', '.join(_CONV)} have different lengths")
    stack = kind == "data2vec-audio"
    conv_norm = "layer" if stack else str(cfg.get("feat_extract_norm", "group"))
    normalize = preprocessor.get("do_normalize")
    if normalize is None:
        normalize = conv_norm == "layer"
        said = "is" if normalize else "is not"
        clues.guesses.append(f"the input {said} normalised: preprocessor_config.json does not say do_normalize")
    options = {ours: cfg.get(theirs, default) for theirs, (ours, default) in _SAME.items()}
    options["norm_first"] = not stack and kind != "sew" and bool(options["norm_first"])
    if kind == "sew":
        options["squeeze"] = cfg.get("squeeze_factor", 2)
        if options["squeeze"] == 1:
            raise ValueError("config.json: squeeze_factor is 1; this package reads SEW with 2 or more")
    if kind == "wavlm":
        options |= {ours: cfg.get(theirs, default) for theirs, (ours, default) in _RELATIVE.items()}
    return EncoderConfig(
        **options,
        conv_layers=tuple(zip(*conv)),
        conv_norm=conv_norm,
        feature_norm=bool(cfg.get("feat_proj_layer_norm", True)),
        projection=None if kind == "sew" else True,
        normalize_waveform=bool(normalize),
        normalize_eps=_NORMALIZE_EPS,
        activation=_ACTIVATIONS[activation],
        position_kernel=cfg.get("conv_pos_kernel_size", 19) if stack else cfg.get("num_conv_pos_embeddings", 128),
        position_depth=cfg.get("num_conv_pos_embeddings", 5) if stack else 1,
        position_batch_norm=kind == "hubert" and bool(cfg.get("conv_pos_batch_norm", False)),
        relative_position=kind == "wavlm",
        gated_relative_position=kind == "wavlm",
    )


def huggingface_type(config: EncoderConfig) -> str:
    """The ``model_type`` of transformers that is this encoder, if nothing prevents it; its heads aside.

    >>> huggingface_type(EncoderConfig(feature_norm=False, num_layers=2))
    'hubert'
    """
    if config.position_depth > 1:
        return "data2vec-audio"
    if config.relative_position:
        return "wavlm"
    only_hubert = not config.feature_norm or config.position_batch_norm
    return "hubert" if config.reference_mask == "block" or only_hubert else "wav2vec2"


def _write(checkpoint: Checkpoint, path: Path, notes: tuple[str, ...], card: Card) -> Exported:
    config = checkpoint.config
    model_type = huggingface_type(config)
    model = _MODELS[model_type]
    notes = (*notes, *_differences(config))

    def write(folder: Path) -> None:
        weights = {huggingface_name(name, config): value.contiguous() for name, value in checkpoint.state_dict.items()}
        # Written by itself, safetensors would make the file private.
        write_atomically(folder / "model.safetensors", lambda file: save_file(weights, file, {"format": "pt"}))
        options = {"config": _options(config, model_type) | own_notes(checkpoint)}
        for name, values in (options | {"preprocessor_config": preprocessor(config.normalize_waveform)}).items():
            write_text(folder / f"{name}.json", json.dumps(values, indent=2) + "\n")
        usage = _usage(model, config, card.address)
        write_text(folder / "README.md", model_card(checkpoint, path.name, usage, notes, card.results))

    write_folder(path, FILES, write)
    return Exported(path, f"transformers.{model}", notes)


def _differences(config: EncoderConfig) -> tuple[str, ...]:
    notes = other_eps(config, _NORMALIZE_EPS, "transformers")
    if config.starts_projected:
        notes += ("the first of transformers' hidden states is the input of the first layer, not the projection",)
    if config.conv_norm == "group":
        notes += ("in batches of different lengths transformers normalises the first conv layer over the padding too",)
    if config.norm_first:
        notes += ("transformers 5 gives the last of hidden_states before the final norm, last_hidden_state after it",)
    return notes


def _options(config: EncoderConfig, model_type: str) -> dict[str, Any]:
    """``config.json``. What is not said has no influence on features."""
    channels, kernels, strides = zip(*config.conv_layers)
    options = {
        "architectures": [_MODELS[model_type]],
        "model_type": model_type,
        "torch_dtype": "float32",
        **{theirs: getattr(config, ours) for theirs, (ours, _) in _SAME.items()},
        "num_attention_heads": config.heads[0],
        "intermediate_size": config.ffn_dims[0],
        "hidden_act": _SPELLED[config.activation],
        "feat_extract_norm": config.conv_norm,
        "feat_extract_activation": "gelu",
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "num_feat_extract_layers": len(channels),
        "num_conv_pos_embeddings": config.position_kernel,
        "layer_norm_eps": 1e-5,
        # The network was not trained to see masked frames.
        **{"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "apply_spec_augment": False},
    }
    if model_type == "hubert":
        options |= {"feat_proj_layer_norm": config.feature_norm, "conv_pos_batch_norm": config.position_batch_norm}
    elif model_type == "wavlm":
        options |= {theirs: getattr(config, ours) for theirs, (ours, _) in _RELATIVE.items()}
    elif model_type == "data2vec-audio":
        options |= {"num_conv_pos_embeddings": config.position_depth, "conv_pos_kernel_size": config.position_kernel}
    return options


def _usage(model: str, config: EncoderConfig, address: str) -> str:
    scaled = "waveform"
    if config.normalize_waveform:
        scaled = f"torch.nn.functional.layer_norm(waveform, waveform.shape, eps={config.normalize_eps:g})"
    return f"""```python
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("{address}").eval()  # {model}
waveform = torch.randn(16000)  # one second at 16 kHz, as float
with torch.no_grad():
    output = model({scaled}[None], output_hidden_states=True)
output.hidden_states  # input of the first layer, then the output of each layer
```"""


def preprocessor(normalize: bool) -> dict[str, Any]:
    """``preprocessor_config.json``: what transformers' feature extractor does before the model."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16000,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": normalize,
        "return_attention_mask": True,
    }


FORMATS = (
    Format(
        "huggingface",
        "Hugging Face's: config.json beside the weights",
        has_keys("hf_config", "hf_weights"),
        read_huggingface,
    ),
)
TARGET = Target(
    "huggingface",
    "transformers.AutoModel.from_pretrained: a folder with model card",
    "transformers",
    obstacle=lambda config: obstacle(config, "transformers", _MODELS[huggingface_type(config)]),
    write=_write,
    files=FILES,
)
