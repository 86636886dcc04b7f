"""Building a student from its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from robustdistiller.upstream import SpeechEncoder

from .settings import SettingsError

INITS = ("distilhubert", "truncated", "random")


def make_student(
    teacher: SpeechEncoder,
    num_layers: int = 2,
    prediction_layers: Sequence[int] = (4, 8, 12),
    init: str = "distilhubert",
    relative_position: str = "drop",
    **config_overrides: Any,
) -> SpeechEncoder:
    """A student with the teacher's conv extractor and widths, fewer layers, and one head per predicted teacher layer.

    With `init="distilhubert"` the extractor, the projection, the positional convolution and the first layers are copies
    of the teacher's. As in the published students there is no norm between extractor and projection, and the norm
    before the first layer starts as new. From a Base teacher that makes 23,491,200 parameters, 27,034,752 with heads.
    With `init="truncated"` both norms are the teacher's too, so that the untrained student computes exactly the
    teacher's first hidden states (given `relative_position="keep"` where the teacher has one). The heads start at
    random, from PyTorch's global generator.

    Args:
        teacher: in any configuration.
        num_layers: transformer layers of the student.
        prediction_layers: teacher layers to predict, from 0 (input of the first layer) to the last.
        init: `distilhubert`, `truncated` or `random`.
        relative_position: `drop` or `keep` WavLM's relative position bias and its gates.
        config_overrides: further options of `EncoderConfig`, such as `dropout`.

    Raises:
        SettingsError: layers that the teacher does not have, or an unknown choice.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> teacher = SpeechEncoder(EncoderConfig(embed_dim=32, num_layers=4, num_heads=4, ffn_dim=64, position_groups=4))
    >>> student = make_student(teacher, num_layers=1, prediction_layers=[2, 4])
    >>> student.config.num_layers, student.config.prediction_layers, student.config.feature_norm
    (1, (2, 4), False)
    """
    _check(teacher, num_layers, prediction_layers, init, relative_position)
    shape = teacher.config
    options = {
        "num_layers": num_layers,
        "num_heads": _first(shape.num_heads, num_layers),
        "ffn_dim": _first(shape.ffn_dim, num_layers),
        "feature_norm": shape.feature_norm and init == "truncated",
        "prediction_layers": tuple(prediction_layers),
        "prediction_dim": shape.embed_dim,
        "layerdrop": 0.0,
        "padding": "masked",
    }
    if relative_position == "drop":
        options |= {"relative_position": False, "gated_relative_position": False, "position_bias_heads": None}
    elif shape.position_bias_heads is not None:
        options["position_bias_heads"] = shape.position_bias_heads[:num_layers]
    student = SpeechEncoder(shape.replace(**{**options, **config_overrides}))
    if init != "random":
        _copy(teacher, student, leave_out=() if init == "truncated" else ("transformer.norm.",))
    return student


def _copy(teacher: SpeechEncoder, student: SpeechEncoder, leave_out: tuple[str, ...]) -> None:
    """Give the student every weight of the teacher that it has a place for."""
    weights = teacher.state_dict()
    with torch.no_grad():
        for name, value in student.state_dict().items():
            if name in weights and not name.startswith(("heads.", *leave_out)):
                value.copy_(weights[name])


def _first(per_layer: Any, num_layers: int) -> Any:
    """The part of a per-layer option that belongs to the first layers."""
    return per_layer[:num_layers] if isinstance(per_layer, tuple) else per_layer


def _check(teacher: SpeechEncoder, num_layers: int, prediction_layers: Sequence[int], init: str, position: str) -> None:
    depth = teacher.config.num_layers
    missing = [layer for layer in prediction_layers if not 0 <= layer <= depth]
    if missing:
        raise SettingsError(
            f"student.prediction_layers: the teacher has layers 0 to {depth}, found {missing}: choose among them, "
            f"for example [{', '.join(str(round(depth * part / 3)) for part in (1, 2, 3))}]"
        )
    if not prediction_layers or len(set(prediction_layers)) < len(prediction_layers):
        raise SettingsError(
            f"student.prediction_layers: expected one or more different layers, found {list(prediction_layers)}"
        )
    if not 0 <= num_layers <= depth:
        raise SettingsError(f"student.num_layers: found {num_layers}, expected 0 to {depth}, what the teacher has")
    if init not in INITS:
        raise SettingsError(f"student.init: found {init!r}, expected one of {', '.join(INITS)}")
    if position not in ("drop", "keep"):
        raise SettingsError(f"student.relative_position: found {position!r}, expected drop or keep")
