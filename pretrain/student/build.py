"""Building a student from its teacher, or taking one from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from robustdistiller.common.settings import SettingsError
from robustdistiller.upstream import SpeechEncoder, read_checkpoint, resolve

INITS = ("distilhubert", "truncated", "random")


def make_student(
    teacher: SpeechEncoder,
    num_layers: int | None = 2,
    prediction_layers: Sequence[int] = (4, 8, 12),
    init: str = "distilhubert",
    relative_position: str = "drop",
    source_layers: str | Sequence[int] = "first",
    embed_dim: int | None = None,
    num_heads: int | None = None,
    ffn_dim: int | None = None,
    **config_overrides: Any,
) -> SpeechEncoder:
    """A student with the teacher's conv extractor, fewer or thinner layers, and one head per predicted teacher layer.

    What is copied from the teacher:

    - `init="distilhubert"`: the extractor, the projection, the positional convolution and the layers named by
      `source_layers`. As in the published students there is no norm between extractor and projection, and the norm
      before the first layer starts as new. From a Base teacher that makes 23,491,200 parameters, 27,034,752 with heads.
    - `init="truncated"`: both norms too, so that with the first layers the untrained student computes exactly the
      teacher's first hidden states (given `relative_position="keep"` where the teacher has one).
    - `init="random"`: nothing.
    - With another `embed_dim` than the teacher's, the extractor and the norm after it ("thin and deep": nothing behind
      them fits). Other `num_heads` or `ffn_dim` leave what has another meaning or shape at random: all of attention, or
      the feed-forward parts.

    The heads always start at random, from PyTorch's global generator.

    Args:
        teacher: in any configuration.
        num_layers: transformer layers of the student; `None` is as many as the teacher has.
        prediction_layers: teacher layers to predict with heads, from 0 (input of the first layer) to the last; none
            makes a student without heads.
        init: `distilhubert`, `truncated` or `random`.
        relative_position: `drop` or `keep` WavLM's relative position bias and its gates.
        source_layers: teacher layers, from 1, that the student's start from: `first`, `every_other` (1, 3, 5 ...) or
            a list of `num_layers` of them.
        embed_dim: width of the transformer; `None` is the teacher's.
        num_heads: attention heads per layer; `None` is the teacher's.
        ffn_dim: feed-forward width; `None` is the teacher's.
        config_overrides: further options of `EncoderConfig`, such as `dropout`.

    Raises:
        SettingsError: layers that the teacher does not have, widths that do not fit, or an unknown choice.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> teacher = SpeechEncoder(EncoderConfig(embed_dim=32, num_layers=4, num_heads=4, ffn_dim=64, position_groups=4))
    >>> student = make_student(teacher, num_layers=1, prediction_layers=[2, 4])
    >>> student.config.num_layers, student.config.prediction_layers, student.config.feature_norm
    (1, (2, 4), False)
    >>> thin = make_student(teacher, 4, [4], embed_dim=16, ffn_dim=32)
    >>> thin.config.embed_dim, thin.config.prediction_dim, thin.config.num_layers
    (16, 32, 4)
    """
    shape = teacher.config
    num_layers = shape.num_layers if num_layers is None else num_layers
    _check(teacher, num_layers, prediction_layers, init, relative_position)
    sources = _source_layers(source_layers, num_layers, shape.num_layers)
    options = {
        "num_layers": num_layers,
        "num_heads": _chosen(shape.num_heads, sources) if num_heads is None else num_heads,
        "ffn_dim": _chosen(shape.ffn_dim, sources) if ffn_dim is None else ffn_dim,
        "feature_norm": shape.feature_norm and init == "truncated",
        "prediction_layers": tuple(prediction_layers),
        "prediction_dim": shape.embed_dim if prediction_layers else None,
        "layerdrop": 0.0,
        "padding": "masked",
    }
    if embed_dim is not None:
        options["embed_dim"] = embed_dim
    if num_heads is not None or embed_dim is not None:
        options["head_dim"] = None
    if relative_position == "drop":
        options |= {"relative_position": False, "gated_relative_position": False, "position_bias_heads": None}
    elif shape.position_bias_heads is not None:
        options["position_bias_heads"] = _chosen(shape.position_bias_heads, sources)
    try:
        student = SpeechEncoder(shape.replace(**{**options, **config_overrides}))
    except ValueError as error:
        raise SettingsError(f"student: {error}") from error
    if init != "random":
        _copy(teacher, student, sources, with_norm=init == "truncated")
    return student


def load_student(path: str, prediction_layers: Sequence[int], prediction_dim: int, **options: Any) -> SpeechEncoder:
    """A student from a file, to be trained on in its own shape.

    Its heads are kept if they predict `prediction_layers`; otherwise they are dropped, and new ones start at random.

    Args:
        path: a model's name, see :func:`~robustdistiller.upstream.resolve`, of any readable format.
        prediction_layers: teacher layers to predict; none makes a student without heads.
        prediction_dim: width of the teacher.
        options: of `EncoderConfig` that training decides, such as `dropout`.

    Raises:
        FileNotFoundError, ValueError: the file does not exist or cannot be read as an encoder.

    >>> import tempfile
    >>> from robustdistiller.upstream import EncoderConfig, save_checkpoint
    >>> encoder = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", encoder, {})
    ...     student = load_student(f"{folder}/student.ckpt", [2, 4], 48, dropout=0.0)
    >>> student.config.prediction_layers, student.config.dropout
    ((2, 4), 0.0)
    """
    source = read_checkpoint(resolve(path)).build()
    layers = tuple(prediction_layers)
    keeps_heads = source.config.prediction_layers == layers
    heads = {} if keeps_heads else {"prediction_layers": layers, "prediction_dim": prediction_dim if layers else None}
    # Without heads of its own the file may be a pruned teacher, whose first hidden state is another one.
    config = source.config.replace(**{**options, **heads, "padding": "masked", "layerdrop": 0.0})
    student = SpeechEncoder(config)
    weights = {
        name: value for name, value in source.state_dict().items() if keeps_heads or not name.startswith("heads.")
    }
    student.load_state_dict({**student.state_dict(), **weights})
    return student


def copied_weights(teacher: SpeechEncoder, student: SpeechEncoder, sources: Sequence[int], with_norm: bool) -> dict:
    """Which weight of the teacher each of the student's starts from: names of the student to names of the teacher.

    Args:
        teacher: as given to `make_student`.
        student: as made by it.
        sources: teacher layer, from 1, of each student layer.
        with_norm: whether the norm before the first layer is among them.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> teacher = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=3, num_heads=2, ffn_dim=32, position_groups=4))
    >>> student = make_student(teacher, 1, [3], source_layers=[3])
    >>> copied_weights(teacher, student, [3], with_norm=False)["transformer.layers.0.up.weight"]
    'transformer.layers.2.up.weight'
    """
    there, here = teacher.config, student.config
    pairs = {}
    weights = teacher.state_dict()
    for name, value in student.state_dict().items():
        origin = name
        if name.startswith("transformer.layers."):
            layer, _, rest = name.removeprefix("transformer.layers.").partition(".")
            origin = f"transformer.layers.{sources[int(layer)] - 1}.{rest}"
            other_heads = here.heads[int(layer)] != there.heads[sources[int(layer)] - 1]
            if rest.startswith("attention.") and (other_heads or here.width_per_head != there.width_per_head):
                continue
        fits = origin in weights and weights[origin].shape == value.shape
        behind = not name.startswith(("extractor.", "feature_norm."))
        if name.startswith("heads.") or not fits or (behind and here.embed_dim != there.embed_dim):
            continue
        if name.startswith("transformer.norm.") and not with_norm:
            continue
        pairs[name] = origin
    return pairs


def _copy(teacher: SpeechEncoder, student: SpeechEncoder, sources: Sequence[int], with_norm: bool) -> None:
    weights, places = teacher.state_dict(), student.state_dict()
    with torch.no_grad():
        for name, origin in copied_weights(teacher, student, sources, with_norm).items():
            places[name].copy_(weights[origin])


def _source_layers(chosen: str | Sequence[int], num_layers: int, depth: int) -> list[int]:
    """Teacher layer, from 1, of each student layer."""
    if chosen == "first":
        return list(range(1, num_layers + 1))
    if chosen == "every_other":
        sources = list(range(1, 2 * num_layers, 2))
        if num_layers and sources[-1] > depth:
            raise SettingsError(
                f"student.source_layers: every other of the teacher's {depth} layers makes at most {(depth + 1) // 2}, "
                f"found student.num_layers={num_layers}"
            )
        return sources
    sources = [int(layer) for layer in chosen] if not isinstance(chosen, str) else []
    if len(sources) != num_layers or not all(1 <= layer <= depth for layer in sources):
        raise SettingsError(
            f"student.source_layers: expected first, every_other, or a list of {num_layers} teacher layers from 1 to "
            f"{depth}, found {chosen!r}"
        )
    return sources


def _chosen(per_layer: Any, sources: Sequence[int]) -> Any:
    """The part of a per-layer option that belongs to the chosen layers."""
    return tuple(per_layer[layer - 1] for layer in sources) if isinstance(per_layer, tuple) else per_layer


def _check(teacher: SpeechEncoder, num_layers: int, prediction_layers: Sequence[int], init: str, position: str) -> None:
    depth = teacher.config.num_layers
    missing = [layer for layer in prediction_layers if not 0 <= layer <= depth]
    if missing:
        raise SettingsError(f"prediction_layers: the teacher has layers 0 to {depth}, found {missing}")
    if not 0 <= num_layers <= depth:
        raise SettingsError(f"student.num_layers: found {num_layers}, expected 0 to {depth}, what the teacher has")
    if init not in INITS:
        raise SettingsError(f"student.init: found {init!r}, expected one of {', '.join(INITS)}")
    if position not in ("drop", "keep"):
        raise SettingsError(f"student.relative_position: found {position!r}, expected drop or keep")
