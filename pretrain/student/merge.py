"""Between two students of one shape: a weighted mean of their weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from robustdistiller.common.settings import SettingsError
from robustdistiller.upstream import (
    Checkpoint,
    EncoderConfig,
    SpeechEncoder,
    checkpoint_digest,
    read_checkpoint,
    resolve,
    save_checkpoint,
)
from robustdistiller.upstream.checkpoints.files import is_part_of
from robustdistiller.upstream.model.values import fill, without_values

#: What two students may differ in and still be of one shape: only training asks for it.
_TRAINING = ("dropout", "attention_dropout", "activation_dropout", "feature_dropout", "layerdrop", "feature_grad_mult")


def merge_students(a: SpeechEncoder, b: SpeechEncoder, weight: float = 0.5) -> SpeechEncoder:
    """An encoder whose every parameter is `(1 - weight) * A + weight * B`, norms and prediction heads included.

    It means something where both began as one student, such as one trained on clean speech and one trained on from it
    in noise: between them the path is flat, and the weight moves along the front of clean against noisy accuracy
    without any training (WiSE-FT, arXiv 2109.01903). Students of different starts average to nothing. Dropout and the
    like, in which they may differ, are A's.

    Returns:
        A new encoder in eval mode, on A's device. At weight 0 and 1 its weights are A's and B's bit for bit.

    Raises:
        SettingsError: the weight is outside its range, or the shapes differ; the first three differences are named.

    >>> a, b = (SpeechEncoder(EncoderConfig.tiny()) for _ in range(2))
    >>> middle = merge_students(a, b, 0.5).transformer.layers[0].up.weight
    >>> bool(torch.allclose(2 * middle, a.transformer.layers[0].up.weight + b.transformer.layers[0].up.weight))
    True
    >>> merge_students(a, SpeechEncoder(EncoderConfig.tiny(num_heads=4)))
    Traceback (most recent call last):
    robustdistiller.common.settings.SettingsError: the students differ in num_heads (2 and 4), so that their weights \
    have no mean; merge students of one shape
    """
    if not 0 <= weight <= 1:
        raise SettingsError(f"weight is {weight}, expected 0 (all of the first student) to 1 (all of the second)")
    _refuse_other_shapes(a.config, b.config)
    device = next(a.parameters()).device
    theirs = {name: value.to(device) for name, value in b.state_dict().items()}
    means = {name: _between(value, theirs[name], weight) for name, value in a.state_dict().items()}
    with without_values():
        merged = SpeechEncoder(a.config)
    return fill(merged, means).to(device).eval()


def merge_checkpoints(a: str, b: str, target: str | Path, weight: float = 0.5, overwrite: bool = False) -> Path:
    """:func:`merge_students` of two checkpoints, written to a third, in our own format.

    The metadata of `target` name both, their digests and the weight, and have what the metadata of both agree in, such
    as the teacher.

    Raises:
        FileNotFoundError, ValueError: a model does not exist or cannot be read.
        FileExistsError: something is at `target`, and `overwrite` is false or it is a folder or one of the students.
        SettingsError: the students do not fit together.
    """
    target, paths = Path(target).expanduser(), [resolve(name) for name in (a, b)]
    if target.is_dir() or (target.exists() and not overwrite):
        kind = "is a folder, expected a file" if target.is_dir() else "exists already"
        raise FileExistsError(
            f"{target} {kind}; choose another name{'' if target.is_dir() else ', or give --overwrite'}"
        )
    if any(is_part_of(target, path) for path in paths):
        raise FileExistsError(f"{target} is one of the students to merge; give another place for the result")
    read = [read_checkpoint(path) for path in paths]
    merged = merge_students(read[0].build(), read[1].build(), weight)
    save_checkpoint(target, merged, _metadata(read, paths, weight))
    return target


def _metadata(read: list[Checkpoint], paths: list[Path], weight: float) -> dict[str, Any]:
    one, other = (checkpoint.metadata for checkpoint in read)
    common = {key: value for key, value in one.items() if key != "versions" and key in other and other[key] == value}
    sources = [
        {"name": path.name, "format": checkpoint.format, "sha256": checkpoint_digest(path)}
        for path, checkpoint in zip(paths, read, strict=True)
    ]
    is_student = any(checkpoint.is_student for checkpoint in read)
    return {**common, "student": is_student, "merged": {"weight": weight, "sources": sources}}


def _between(one: torch.Tensor, other: torch.Tensor, weight: float) -> torch.Tensor:
    if weight in (0, 1) or not one.is_floating_point():  # counters of norms are not averaged
        return other if weight == 1 else one
    return torch.lerp(one.double(), other.double(), weight).to(one.dtype)


def _refuse_other_shapes(a: EncoderConfig, b: EncoderConfig) -> None:
    names = [field.name for field in dataclasses.fields(a) if field.name not in _TRAINING]
    values = {name: (getattr(a, name), getattr(b, name)) for name in names}
    for name in ("num_heads", "ffn_dim"):  # one number, or the same one for each layer
        per_layer = "heads" if name == "num_heads" else "ffn_dims"
        values[name] = values[name] if getattr(a, per_layer) != getattr(b, per_layer) else (None, None)
    other = [
        f"{name} ({one} and {two})" if len(f"{one}{two}") < 80 else name
        for name, (one, two) in values.items()
        if one != two
    ]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise SettingsError(
            f"the students differ in {', '.join(other[:3])}{more}, so that their weights have no mean; merge students "
            "of one shape"
        )
