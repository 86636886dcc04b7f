"""Whisper's encoder from Hugging Face folders, OpenAI's ``.pt`` files and CTranslate2's ``model.bin``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustdistiller.upstream.checkpoints.files import CheckpointError
from robustdistiller.upstream.checkpoints.load import open_source
from robustdistiller.upstream.checkpoints.parameter_names import match_weights
from robustdistiller.upstream.checkpoints.plain import options_of, weights_of
from robustdistiller.upstream.model.values import fill, without_values
from robustdistiller.upstream.pretrained.whisper.config import WhisperConfig
from robustdistiller.upstream.pretrained.whisper.ctranslate2 import read_variables
from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder
from robustdistiller.upstream.pretrained.whisper.recognise import ctranslate2_file, layout_of

#: Parts of our names, of Hugging Face's, OpenAI's and, but for the stacked attention, CTranslate2's.
_NAMES = (
    ("attention.q_proj", "self_attn.q_proj", "attn.query", None),
    ("attention.k_proj", "self_attn.k_proj", "attn.key", None),
    ("attention.v_proj", "self_attn.v_proj", "attn.value", None),
    ("attention.out_proj", "self_attn.out_proj", "attn.out", "self_attention/linear_1"),
    ("attention_norm", "self_attn_layer_norm", "attn_ln", "self_attention/layer_norm"),
    ("up", "fc1", "mlp.0", "ffn/linear_0"),
    ("down", "fc2", "mlp.2", "ffn/linear_1"),
    ("ffn_norm", "final_layer_norm", "mlp_ln", "ffn/layer_norm"),
    ("norm", "layer_norm", "ln_post", "layer_norm"),
    ("positions", "embed_positions.weight", "positional_embedding", "position_encodings/encodings"),
    ("conv1", "conv1", "conv1", "conv1"),
    ("conv2", "conv2", "conv2", "conv2"),
)
_LAYER = re.compile(r"layers\.(\d+)\.")
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}


@dataclass
class WhisperCheckpoint:
    """A Whisper encoder, read; the counterpart of :class:`~robustdistiller.upstream.Checkpoint`.

    Attributes:
        format: ``whisper_huggingface``, ``whisper_openai`` or ``whisper_ctranslate2``.
        config: the encoder's shape.
        state_dict: float32 tensors on the CPU under our names, checked against ``config``.
        metadata: empty: these files note nothing.
        guesses: what of the shape the file does not say; nothing.

    >>> config = WhisperConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32)
    >>> checkpoint = WhisperCheckpoint("whisper_openai", config, WhisperEncoder(config).state_dict())
    >>> checkpoint.build(pad_to_30_s=True).config.pad_to_30_s, checkpoint.is_student
    (True, False)
    """

    format: str
    config: WhisperConfig
    state_dict: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    guesses: tuple[str, ...] = ()

    @property
    def is_student(self) -> bool:
        """Whether it was distilled: no."""
        return False

    def build(self, **config_overrides: Any) -> WhisperEncoder:
        """The encoder with these weights, in eval mode; ``pad_to_30_s`` can be replaced."""
        with without_values():
            encoder = WhisperEncoder(self.config.replace(**config_overrides))
        return fill(encoder, self.state_dict).eval()


def is_whisper(path: str | Path) -> bool:
    """Whether a file or folder holds a Whisper model.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        CheckpointError: it cannot be opened.

    >>> from robustdistiller.upstream import mini_teacher
    >>> is_whisper(mini_teacher())
    False
    """
    return ctranslate2_file(path) is not None or layout_of(open_source(path).content) is not None


def read_whisper(path: str | Path) -> WhisperCheckpoint | None:
    """Read the encoder of a Whisper model; None where the file or folder holds something else. Nothing in it is run.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        CheckpointError: it cannot be read, its weights are quantised, or a weight is missing, unknown or of another
            shape than the file says; in one sentence.
    """
    try:
        if file := ctranslate2_file(path):
            return WhisperCheckpoint("whisper_ctranslate2", *_of_ctranslate2(read_variables(file)))
        content = open_source(path).content
        layout = layout_of(content)
        if layout is None:
            return None
        read = _of_huggingface if layout == "huggingface" else _of_openai
        return WhisperCheckpoint(f"whisper_{layout}", *read(content))
    except CheckpointError:
        raise
    except ValueError as error:
        said = str(error)
        raise CheckpointError(said if said.startswith(str(path)) else f"{path}: {said}") from error


def _of_huggingface(content: Mapping[str, Any]) -> tuple[WhisperConfig, dict[str, Tensor]]:
    """``config.json``'s options are those of transformers' WhisperConfig."""
    cfg = content["hf_config"]
    activation = str(cfg.get("activation_function", "gelu"))
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"config.json: activation_function is {activation[:200]!r}; this encoder knows {', '.join(_ACTIVATIONS)}"
        )
    config = WhisperConfig(
        num_mel_bins=_option(cfg, "num_mel_bins", 80),
        embed_dim=_option(cfg, "d_model"),
        num_layers=_option(cfg, "encoder_layers"),
        num_heads=_option(cfg, "encoder_attention_heads"),
        ffn_dim=_option(cfg, "encoder_ffn_dim"),
        max_frames=_option(cfg, "max_source_positions", 1500),
        activation=_ACTIVATIONS[activation],
    )
    prefixes = "model.encoder.", "encoder."
    return config, _matched(_below(weights_of(content, "hf_weights"), *prefixes), config, 0)


def _of_openai(content: Mapping[str, Any]) -> tuple[WhisperConfig, dict[str, Tensor]]:
    """``dims`` are those of OpenAI's ModelDimensions."""
    dims = options_of(content, "dims")
    width = _option(dims, "n_audio_state")
    config = WhisperConfig(
        num_mel_bins=_option(dims, "n_mels"),
        embed_dim=width,
        num_layers=_option(dims, "n_audio_layer"),
        num_heads=_option(dims, "n_audio_head"),
        ffn_dim=4 * width if type(width) is int else width,
        max_frames=_option(dims, "n_audio_ctx"),
    )
    return config, _matched(_below(weights_of(content, "model_state_dict"), "encoder."), config, 1)


def _of_ctranslate2(variables: Mapping[str, np.ndarray]) -> tuple[WhisperConfig, dict[str, Tensor]]:
    """Shapes tell all but the number of heads, which is a variable."""
    encoder = {name.removeprefix("encoder/"): value for name, value in variables.items() if name.startswith("encoder/")}
    heads = encoder.pop("num_heads", None)
    kept, shape = {}, {name: value.shape for name, value in encoder.items()}
    for name, value in encoder.items():
        if value.dtype.str not in ("<f4", "<f2"):
            kind = "bfloat16" if value.dtype.str == "|V2" else value.dtype.name
            raise ValueError(
                f"the variable encoder/{name[:200]} holds {kind}; this package reads float32 and float16: convert the "
                "model with --quantization float16"
            )
        kept[name] = torch.from_numpy(value.astype(np.float32))
    if heads is None or heads.size != 1 or heads.dtype.kind != "i":
        raise ValueError("the variable encoder/num_heads is missing, or no whole number")
    for name, rank in (("conv1/weight", 3), ("position_encodings/encodings", 2), ("layer_0/ffn/linear_0/weight", 2)):
        if len(shape.get(name, ())) != rank:
            raise ValueError(f"the variable encoder/{name} is missing, or has not {rank} dimensions")
    config = WhisperConfig(
        num_mel_bins=shape["conv1/weight"][1],
        embed_dim=shape["conv1/weight"][0],
        num_layers=len({name.partition("/")[0] for name in shape if re.match(r"layer_\d+/", name)}),
        num_heads=int(heads.reshape(())),
        ffn_dim=shape["layer_0/ffn/linear_0/weight"][0],
        max_frames=shape["position_encodings/encodings"][0],
    )
    return config, _matched(_unstacked(kept), config, 2)


def _unstacked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With queries, keys and values apart. CTranslate2 gives keys a bias of zero; a bias there changes nothing."""
    parts = {}
    for name, value in weights.items():
        stacked = re.fullmatch(r"(layer_\d+)/self_attention/linear_0/(weight|bias)", name)
        if stacked is None or value.shape[:1].numel() % 3 or not len(value):
            parts[name] = value
            continue
        layer, which = stacked.groups()
        rows = zip(("q_proj", "k_proj", "v_proj"), value.chunk(3))
        parts |= {f"{layer}/{part}/{which}": row for part, row in rows if (part, which) != ("k_proj", "bias")}
    return parts


def _option(options: Mapping[str, Any], name: str, default: int | None = None) -> Any:
    if options.get(name, default) is None:
        raise ValueError(f"the option {name} is missing, which says the encoder's shape")
    return options.get(name, default)


def _below(weights: Mapping[str, Any], *prefixes: str) -> dict[str, Any]:
    """What lies below the first of `prefixes` under which there is something."""
    for prefix in prefixes:
        if found := {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}:
            return found
    raise ValueError(f"the weights hold no encoder, whose names would begin with {' or '.join(prefixes)}")


def _matched(weights: Mapping[str, Any], config: WhisperConfig, family: int) -> dict[str, Tensor]:
    with without_values():
        expected = WhisperEncoder(config).state_dict()
    return match_weights(weights, expected, lambda ours: _their_name(ours, family))


def _their_name(ours: str, family: int) -> str:
    """The name of our parameter in Hugging Face's (0), OpenAI's (1) or CTranslate2's (2) encoder.

    >>> [_their_name("layers.3.up.weight", family) for family in range(3)]
    ['layers.3.fc1.weight', 'blocks.3.mlp.0.weight', 'layer_3/ffn/linear_0/weight']
    """
    layer = _LAYER.match(ours)
    part = ours[layer.end() :] if layer else ours
    begin = ("layers.{}.", "blocks.{}.", "layer_{}/")[family].format(layer.group(1)) if layer else ""
    own, *theirs = next(row for row in _NAMES if part == row[0] or part.startswith(f"{row[0]}."))
    name, rest = theirs[family] or own.removeprefix("attention."), part.removeprefix(own)
    if family == 2:
        is_norm = name.endswith("layer_norm")
        rest = rest.replace(".weight", "/gamma" if is_norm else "/weight")
        rest = rest.replace(".bias", "/beta" if is_norm else "/bias")
    return begin + name + rest
