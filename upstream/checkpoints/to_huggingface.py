"""Folders for Hugging Face's transformers, which is not needed to write them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from robustdistiller.common.files import write_atomically
from robustdistiller.upstream.checkpoints.formats import Checkpoint
from robustdistiller.upstream.checkpoints.model_card import model_card
from robustdistiller.upstream.checkpoints.names import huggingface_name
from robustdistiller.upstream.checkpoints.obstacles import refuse, require_regular
from robustdistiller.upstream.model.config import EncoderConfig

#: ``model_type`` to the class that reads it.
MODELS = {
    "hubert": "HubertModel",
    "wav2vec2": "Wav2Vec2Model",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
}
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}


def write_huggingface(
    checkpoint: Checkpoint, path: Path, notes: tuple[str, ...] = (), results: str = ""
) -> tuple[str, tuple[str, ...]]:
    """Write ``config.json``, ``model.safetensors``, ``preprocessor_config.json`` and ``README.md`` into a folder.

    The folder appears when it is complete; one that was there is replaced.

    Args:
        checkpoint: an encoder without prediction heads.
        path: the folder.
        notes: what was left out so far, for the model card.
        results: Markdown for the model card's section of results.

    Returns:
        The class of transformers that reads it, and notes on what differs there.

    Raises:
        NotExportable: transformers has no such model.

    >>> from robustdistiller.upstream import SpeechEncoder
    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint("robustdistiller", config, SpeechEncoder(config).state_dict())
    ...     write_huggingface(checkpoint, Path(folder) / "model")[0], len(list(Path(folder, "model").iterdir()))
    ('Wav2Vec2Model', 4)
    """
    from safetensors.torch import save_file

    config = checkpoint.config
    model_type = huggingface_type(config)
    model, more = MODELS[model_type], _differences(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as workplace:
        folder = Path(workplace) / "new"
        folder.mkdir()
        weights = {huggingface_name(name, config): value.contiguous() for name, value in checkpoint.state_dict.items()}
        # Written by itself, safetensors would make the file private.
        write_atomically(folder / "model.safetensors", lambda file: save_file(weights, file, {"format": "pt"}))
        _write_json(folder / "config.json", _options(config, model_type))
        _write_json(folder / "preprocessor_config.json", _preprocessor(config))
        card = model_card(checkpoint, path.name, model, (*notes, *more), results)
        (folder / "README.md").write_text(card, encoding="utf-8")
        _replace_folder(folder, path, aside=Path(workplace) / "old")
    return model, more


def huggingface_type(config: EncoderConfig) -> str:
    """The ``model_type`` of transformers that is this encoder, its prediction heads aside.

    Raises:
        NotExportable: there is none.

    >>> huggingface_type(EncoderConfig(feature_norm=False, num_layers=2))
    'hubert'
    """
    require_regular(config)
    if config.position_depth > 1:
        model_type = "data2vec-audio"
    elif config.relative_position:
        model_type = "wavlm"
    else:
        model_type = "hubert" if config.reference_mask == "block" or not config.feature_norm else "wav2vec2"
    model = MODELS[model_type]
    refuse(
        not config.feature_norm and model_type != "hubert",
        f"it has no layer norm between the conv extractor and the projection, which {model} always has",
    )
    refuse(not config.has_projection, f"it has no projection after the conv extractor, which {model} always has")
    stack = model_type == "data2vec-audio"
    refuse(stack and config.relative_position, f"it has a relative position bias, which {model} lacks")
    refuse(
        config.relative_position and not config.gated_relative_position,
        f"its relative position bias has no gates, which {model} always has",
    )
    refuse(
        stack and (config.conv_norm != "layer" or config.norm_first),
        f"{model} has layer norms in its conv extractor and after the transformer's parts, not "
        f"conv_norm {config.conv_norm!r} and norm_first {config.norm_first}",
    )
    return model_type


def _differences(config: EncoderConfig) -> tuple[str, ...]:
    notes = ()
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
        "architectures": [MODELS[model_type]],
        "model_type": model_type,
        "torch_dtype": "float32",
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.heads[0],
        "intermediate_size": config.ffn_dims[0],
        "hidden_act": _ACTIVATIONS[config.activation],
        "do_stable_layer_norm": config.norm_first,
        "feat_extract_norm": config.conv_norm,
        "feat_extract_activation": "gelu",
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": config.conv_bias,
        "num_feat_extract_layers": len(channels),
        "num_conv_pos_embeddings": config.position_kernel,
        "num_conv_pos_embedding_groups": config.position_groups,
        "layer_norm_eps": 1e-5,
        "hidden_dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "feat_proj_dropout": config.feature_dropout,
        "layerdrop": config.layerdrop,
        "mask_time_prob": 0.0,  # the network was not trained to see masked frames
        "mask_feature_prob": 0.0,
        "apply_spec_augment": False,
    }
    if model_type == "hubert":
        options |= {"feat_proj_layer_norm": config.feature_norm, "conv_pos_batch_norm": False}
    elif model_type == "wavlm":
        options |= {"num_buckets": config.num_buckets, "max_bucket_distance": config.max_distance}
    elif model_type == "data2vec-audio":
        options |= {"num_conv_pos_embeddings": config.position_depth, "conv_pos_kernel_size": config.position_kernel}
    return options


def _preprocessor(config: EncoderConfig) -> dict[str, Any]:
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16000,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": config.normalize_waveform,
        "return_attention_mask": True,
    }


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _replace_folder(new: Path, path: Path, aside: Path) -> None:
    """Rename ``new`` to ``path``; a folder cannot be renamed over one with files in it, so that one steps aside."""
    if path.exists():
        path.rename(aside)
    try:
        new.rename(path)
    except OSError:
        if aside.exists():
            aside.rename(path)
        raise
