"""The arguments of ``torchaudio.models.wav2vec2_model`` and ``wavlm_model``, and the configuration they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robustdistiller.upstream.checkpoints.names import from_foreign, torchaudio_name
from robustdistiller.upstream.checkpoints.plain import options_of
from robustdistiller.upstream.checkpoints.torchaudio import split_attention
from robustdistiller.upstream.model.config import EncoderConfig

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


def factory_arguments(config: EncoderConfig) -> tuple[str, dict[str, Any]]:
    """The factory that builds an encoder without pruned parts, and its arguments.

    >>> name, arguments = factory_arguments(EncoderConfig())
    >>> name, arguments["encoder_num_heads"], arguments["extractor_mode"]
    ('wav2vec2_model', 12, 'group_norm')
    """
    arguments = {
        **shared_arguments(config),
        "encoder_num_heads": config.heads[0],
        "encoder_ff_interm_features": config.ffn_dims[0],
    }
    return ("wavlm_model" if config.relative_position else "wav2vec2_model"), arguments


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


def read_factory_file(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict]:
    """Read ``factory``, ``config`` and ``state_dict``, the inverse of what ``robustdistiller convert`` writes.

    >>> from robustdistiller.upstream import SpeechEncoder
    >>> from robustdistiller.upstream.checkpoints import Checkpoint
    >>> from robustdistiller.upstream.checkpoints.to_torchaudio import torchaudio_content
    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> content, _ = torchaudio_content(Checkpoint("robustdistiller", config, SpeechEncoder(config).state_dict()))
    >>> read_factory_file(content)[0] == config.replace(projection=True)
    True
    """
    factory, arguments = content["factory"], options_of(content, "config")
    if factory not in _FACTORIES:
        raise ValueError(f"'factory' is {factory!r}; known are {', '.join(_FACTORIES)}")
    relative = _FACTORIES[factory]
    options = {**_SAME, **_RELATIVE} if relative else _SAME
    try:
        config = EncoderConfig(
            **{ours: arguments[theirs] for theirs, ours in options.items()},
            conv_norm="layer" if arguments["extractor_mode"] == "layer_norm" else "group",
            conv_layers=tuple(map(tuple, arguments["extractor_conv_layer_config"])),
            num_heads=arguments["encoder_num_heads"],
            ffn_dim=arguments["encoder_ff_interm_features"],
            projection=True,
            normalize_waveform=bool(content.get("normalize_waveform", False)),
            relative_position=relative,
            gated_relative_position=relative,
            reference_mask="conv",
        )
    except KeyError as error:
        raise ValueError(f"the checkpoint's 'config' lacks {error.args[0]!r}") from error
    except TypeError as error:
        raise ValueError(f"the checkpoint's 'config' has an option of the wrong type: {error}") from error
    return config, from_foreign(split_attention(content["state_dict"]), config, torchaudio_name, ("aux.",))
