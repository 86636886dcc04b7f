"""The configuration of an encoder from the shapes of its weights, for files that hold nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from robustdistiller.upstream.checkpoints.formats.base import Clues

#: Stride in samples or frames of a convolution by its kernel, in every published extractor of the family.
_STRIDES = {10: 5, 8: 4, 4: 2, 3: 2, 2: 2, 1: 1}
#: Heads by width, in torchaudio's model factories (Base, Large, X-Large, 2B).
_HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}

#: From this distance in frames on, all distances share a bucket in every published WavLM.
MAX_DISTANCE = 800


def options_from_shapes(shape: Callable[[str], tuple[int, ...] | None], clues: Clues) -> dict[str, Any]:
    """Options of :class:`EncoderConfig` that fit the weights.

    Strides follow from the kernels of published extractors. Shapes do not tell the number of heads, except where there
    is a gate: if nobody tells, it is that of torchaudio's factories, else heads are 64 wide; that is noted as a guess.

    Args:
        shape: the shape of the parameter with our name, ``None`` if there is none.
        clues: the number of heads of a layer that is not pruned, and where guesses are noted.

    Raises:
        ValueError: a layer that cannot be made sense of, or nothing tells the number of heads.

    >>> from robustdistiller.upstream import EncoderConfig, SpeechEncoder
    >>> config = EncoderConfig(embed_dim=128, num_layers=2, num_heads=2, ffn_dim=(40, 0), position_kernel=9)
    >>> weights = SpeechEncoder(config).state_dict()
    >>> options = options_from_shapes(shapes_of(weights, str), Clues(num_heads=2))
    >>> EncoderConfig(**options).conv_layers == config.conv_layers, options["ffn_dim"], options["num_heads"]
    (True, (40, 0), (2, 2))
    """
    dim = _needed(shape, "transformer.norm.weight")[0]
    num_layers = _count(shape, "transformer.layers.{}.attention_norm.weight")
    layer = "transformer.layers.{}.{}.weight"
    inner = [(shape(layer.format(i, "attention.v_proj")) or (0,))[0] for i in range(num_layers)]
    gates = [shape(layer.format(i, "attention.gate.linear")) for i in range(num_layers)]
    table = shape("transformer.position_bias.table.weight")
    head_dim = next((gate[1] for gate in gates if gate), None) or _head_dim(dim, clues)
    if table is not None:
        clues.guesses.append(f"relative positions differ up to {MAX_DISTANCE} frames, as in every published WavLM")
    if any(width % head_dim for width in inner):
        raise ValueError(f"attention of widths {inner} does not divide into heads of width {head_dim}; give num_heads")
    return {
        "conv_layers": _conv_layers(shape),
        "conv_norm": "layer" if shape("extractor.layers.1.norm.weight") else "group",
        "conv_bias": shape("extractor.layers.0.conv.bias") is not None,
        "feature_scale": shape("extractor.scale") is not None,
        "feature_norm": shape("feature_norm.weight") is not None,
        "projection": shape("projection.weight") is not None,
        "embed_dim": dim,
        "num_layers": num_layers,
        "num_heads": tuple(width // head_dim for width in inner),
        "head_dim": head_dim,
        "ffn_dim": tuple((shape(layer.format(i, "up")) or (0,))[0] for i in range(num_layers)),
        "attention_reuse": tuple(
            i for i in range(num_layers) if inner[i] and not shape(layer.format(i, "attention.q_proj"))
        ),
        **_position(shape, dim),
        "relative_position": table is not None,
        "gated_relative_position": table is not None and any(gates),
        "num_buckets": 320 if table is None else table[0],
        "max_distance": MAX_DISTANCE,
    }


def _head_dim(dim: int, clues: Clues) -> int:
    num_heads = clues.num_heads or _HEADS.get(dim) or (dim // 64 if dim % 64 == 0 else None)
    if not num_heads or dim % num_heads:
        raise ValueError(
            f"the file does not say how many attention heads a width of {dim} has: give num_heads, as "
            "load_encoder(path, num_heads=...) or as an option of the upstream"
        )
    if clues.num_heads is None:
        whose = "as in torchaudio's models of this width" if dim in _HEADS else "each 64 wide"
        clues.guesses.append(f"there are {num_heads} attention heads, {whose}; num_heads would say it")
    return dim // num_heads


def _conv_layers(shape: Callable) -> tuple[tuple[int, int, int], ...]:
    layers = []
    for index in range(_count(shape, "extractor.layers.{}.conv.weight")):
        channels, _, kernel = _needed(shape, f"extractor.layers.{index}.conv.weight")
        if kernel not in _STRIDES:
            raise ValueError(f"conv layer {index} has kernel {kernel}; known are {', '.join(map(str, _STRIDES))}")
        layers.append((channels, kernel, _STRIDES[kernel]))
    return tuple(layers)


def _position(shape: Callable, dim: int) -> dict[str, int]:
    depth = _count(shape, "transformer.position.convs.{}.weight")
    name = (
        "transformer.position.convs.0.weight"
        if depth
        else "transformer.position.conv.parametrizations.weight.original1"
    )
    _, inputs, kernel = _needed(shape, name)
    return {"position_kernel": kernel, "position_groups": dim // inputs, "position_depth": depth or 1}


def _count(shape: Callable, name: str) -> int:
    number = 0
    while shape(name.format(number)):
        number += 1
    return number


def _needed(shape: Callable, name: str) -> tuple[int, ...]:
    found = shape(name)
    if not found or (name.endswith(("conv.weight", "original1", "convs.0.weight")) and len(found) != 3):
        raise ValueError(f"the weights lack what would be {name} here, or it has the unexpected shape {found}")
    return found


def shapes_of(weights: Mapping[str, Any], rename: Callable[[str], str]) -> Callable[[str], tuple[int, ...] | None]:
    """The shapes of a foreign state dict by our names; ``rename`` translates ours to theirs."""

    def shape(ours: str) -> tuple[int, ...] | None:
        try:
            value = weights.get(rename(ours))
        except ValueError:  # they have no such parameter
            return None
        return tuple(value.shape) if isinstance(value, Tensor) else None

    return shape
