"""torchaudio's wav2vec 2.0, HuBERT and WavLM: bare state dicts read, files with the factory's arguments written too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdistiller.upstream.checkpoints.formats.base import (
    Card,
    Checkpoint,
    Clues,
    Exported,
    Format,
    Target,
    has_keys,
    save_dictionary,
)
from robustdistiller.upstream.checkpoints.formats.limits import obstacle
from robustdistiller.upstream.checkpoints.formats.shapes import options_from_shapes, shapes_of
from robustdistiller.upstream.checkpoints.parameter_names import from_foreign, older_spelling, torchaudio_name
from robustdistiller.upstream.checkpoints.plain import options_of, weights_of
from robustdistiller.upstream.model.config import EncoderConfig

#: Parameters of pre-training losses and task heads (name prefixes).
TRAINING_ONLY = ("aux.", "mask_generator.", "logit_generator.")
_FACTORIES = {"wav2vec2_model": False, "wavlm_model": True}  # name to whether it has relative positions
#: Argument of both factories to our option, where the value is the same.
_SAME = {
    "extractor_conv_bias": "conv_bias",
    "encoder_embed_dim": "embed_dim",
    "encoder_projection_dropout": "feature_dropout",
    "encoder_pos_conv_kernel": "position_kernel",
    "encoder_pos_conv_groups": "position_groups",
    "encoder_num_layers": "num_layers",
    "encoder_attention_dropout": "attention_dropout",
    "encoder_ff_interm_dropout": "activation_dropout",
    "encoder_dropout": "dropout",
    "encoder_layer_norm_first": "norm_first",
    "encoder_layer_drop": "layerdrop",
}
_RELATIVE = {"encoder_num_buckets": "num_buckets", "encoder_max_distance": "max_distance"}


def read_torchaudio(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """A bare state dict of torchaudio's wav2vec 2.0, HuBERT or WavLM, pre-training and CTC models too.

    The configuration is inferred from the shapes. As in every model that torchaudio offers, extractors with layer norms
    come with pre-norm layers and normalised input, and the others with neither. What its bundles return is read as
    well: a wrapper around the model, which normalises for it.
    """
    wrapped = all(isinstance(name, str) and name.startswith("model.") for name in content)
    weights = {
        name.removeprefix("model." if wrapped else "").removeprefix("wav2vec2."): value
        for name, value in content.items()
        if isinstance(name, str)
    }
    weights = split_attention(older_spelling(weights))
    options = options_from_shapes(shapes_of(weights, torchaudio_name), clues)
    large = options["conv_norm"] == "layer"
    if not wrapped:
        words = "normalised, and layers are pre-norm" if large else "not normalised, and layers are post-norm"
        clues.guesses.append(f"the input is {words}, as in torchaudio's models with {options['conv_norm']} norm")
    config = EncoderConfig(**options, norm_first=large, normalize_waveform=large, reference_mask="conv")
    return config, from_foreign(weights, config, torchaudio_name, TRAINING_ONLY)


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


def read_factory_file(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict]:
    """Read ``factory``, ``config`` and ``state_dict``, the inverse of what ``robustdistiller convert`` writes."""
    factory, arguments = content["factory"], options_of(content, "config")
    if not isinstance(factory, str) or factory not in _FACTORIES:
        said = factory if isinstance(factory, str) else type(factory).__name__
        raise ValueError(f"'factory' is {said[:200]!r}; known are {', '.join(_FACTORIES)}")
    relative = _FACTORIES[factory]
    config = EncoderConfig(
        **shared_options(arguments),
        **({ours: arguments[theirs] for theirs, ours in _RELATIVE.items()} if relative else {}),
        num_heads=arguments["encoder_num_heads"],
        ffn_dim=arguments["encoder_ff_interm_features"],
        normalize_waveform=bool(content.get("normalize_waveform", False)),
        relative_position=relative,
        gated_relative_position=relative,
    )
    return config, from_foreign(
        split_attention(weights_of(content, "state_dict")), config, torchaudio_name, TRAINING_ONLY
    )


def shared_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the encoder that torchaudio's and DPHuBERT's factories share; the inverse of shared_arguments."""
    return {
        **{ours: arguments[theirs] for theirs, ours in _SAME.items()},
        "conv_norm": "layer" if arguments["extractor_mode"] == "layer_norm" else "group",
        "conv_layers": tuple(map(tuple, arguments["extractor_conv_layer_config"])),
        "projection": True,
        "reference_mask": "conv",
    }


def shared_arguments(config: EncoderConfig) -> dict[str, Any]:
    """The arguments that do not differ from layer to layer, which torchaudio's and DPHuBERT's factories share.

    >>> shared_arguments(EncoderConfig(conv_norm="layer"))["extractor_mode"]
    'layer_norm'
    """
    options = {**_SAME, **_RELATIVE} if config.relative_position else _SAME
    return {
        **{theirs: getattr(config, ours) for theirs, ours in options.items()},
        "extractor_mode": f"{config.conv_norm}_norm",
        "extractor_conv_layer_config": [list(layer) for layer in config.conv_layers],
        "aux_num_out": None,
    }


def _factory(config: EncoderConfig) -> str:
    return "wavlm_model" if config.relative_position else "wav2vec2_model"


def _write(checkpoint: Checkpoint, path: Path, notes: tuple[str, ...], card: Card) -> Exported:
    """``factory``, ``config`` (its keyword arguments) and ``state_dict``.

    Loaded with ``getattr(torchaudio.models, file["factory"])(**file["config"]).load_state_dict(file["state_dict"])``.
    """
    config = checkpoint.config
    factory = _factory(config)
    arguments = shared_arguments(config) | {
        "encoder_num_heads": config.heads[0],
        "encoder_ff_interm_features": config.ffn_dims[0],
    }
    weights = {torchaudio_name(name, config): value for name, value in checkpoint.state_dict.items()}
    if config.relative_position:
        weights = _fuse_projections(weights)
    content = {"factory": factory, "config": arguments, "normalize_waveform": config.normalize_waveform}
    save_dictionary(checkpoint, {**content, "state_dict": weights}, path, given=True)
    return Exported(path, f"torchaudio.models.{factory}", (*notes, *_differences(config)))


def _differences(config: EncoderConfig) -> Iterator[str]:
    if config.normalize_waveform:
        call = f"layer_norm(x, x.shape, eps={config.normalize_eps:g})"
        yield f"torchaudio's models do not normalise the waveform: apply {call} to each utterance"
    if config.relative_position:
        yield "torchaudio's wavlm_model has no mask: give it one utterance, or several of equal length"
    yield from last_layer_differs(config, "torchaudio")


def last_layer_differs(config: EncoderConfig, whose: str) -> Iterator[str]:
    """A note where the last layer's state is another than in the code that torchaudio and DPHuBERT share."""
    if config.norm_first and config.last_state_normed:
        yield (
            f"the last layer of {whose}'s extract_features is what enters the final layer norm "
            "(encoder.transformer.layer_norm); the model's own output is what leaves it"
        )


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


def _is_torchaudio(content: Mapping[str, Any]) -> bool:
    names = [name for name in content if isinstance(name, str)]
    return any(name.endswith("feature_extractor.conv_layers.0.conv.weight") for name in names) and any(
        ".transformer.layers." in name or "encoder.transformer.layer_norm." in name for name in names
    )


FACTORY_FORMATS = (
    Format(
        "torchaudio-factory",
        "this package's export for torchaudio: factory, config, state_dict",
        has_keys("factory", "config", "state_dict"),
        read_factory_file,
    ),
)
FORMATS = (Format("torchaudio", "torchaudio's state dict: the weights alone", _is_torchaudio, read_torchaudio),)
TARGET = Target(
    "torchaudio",
    "torchaudio.models.wav2vec2_model or wavlm_model: one file with their arguments and a state dict",
    "torchaudio",
    obstacle=lambda config: obstacle(config, "torchaudio", _factory(config)),
    write=_write,
)
