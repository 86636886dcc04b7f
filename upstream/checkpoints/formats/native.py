"""This package's own format: safetensors with configuration and notes in its metadata, once a ``torch.save`` file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from robustdistiller.common.files import write_atomically
from robustdistiller.upstream.checkpoints.formats.base import (
    Card,
    Checkpoint,
    Clues,
    Exported,
    Format,
    Target,
    has_keys,
)
from robustdistiller.upstream.checkpoints.parameter_names import check_own
from robustdistiller.upstream.checkpoints.plain import options_of, weights_of
from robustdistiller.upstream.checkpoints.safe_load import NATIVE_KEY
from robustdistiller.upstream.model.config import EncoderConfig

#: 1 was a ``torch.save`` file with the same entries.
FORMAT_VERSION = 2


def write_native(
    path: str | Path,
    config: EncoderConfig,
    state_dict: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write weights, configuration and notes to one safetensors file; equal ones give equal bytes.

    Raises:
        ValueError: ``metadata`` is not JSON-able, or a weight is not finite or does not fit ``dtype``.
    """
    weights = {}
    for name, value in state_dict.items():
        stored = value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
        if not torch.isfinite(stored).all():
            raise ValueError(f"{name} has values that are not finite{f' as {dtype}' if dtype else ''}; not saved")
        weights[name] = stored
    notes = {"format_version": FORMAT_VERSION, "config": config.to_dict(), "metadata": dict(metadata)}
    try:
        text = json.dumps(notes)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"checkpoint metadata must hold JSON values only: {error}") from error
    # One entry of metadata: safetensors writes several in no particular order.
    write_atomically(path, lambda file: save_file(weights, file, {NATIVE_KEY: text}))


def noted(content: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The notes of a native file, as far as they are JSON, and a sentence if they are not.

    >>> noted({"metadata": {"teacher": "wavlm"}})
    ({'teacher': 'wavlm'}, [])
    """
    metadata = content.get("metadata", {})
    try:
        return dict(json.loads(json.dumps(metadata))), []
    except (TypeError, ValueError, RecursionError):
        return {}, ["the metadata hold more than JSON values and are left out"]


def _matches(content: Mapping[str, Any]) -> bool:
    return (
        has_keys("format", "state_dict")(content)
        and isinstance(content["format"], str)
        and (content["format"] == NATIVE_KEY)
    )


def _read(content: Mapping[str, Any], clues: Clues) -> tuple[EncoderConfig, dict[str, Tensor]]:
    found = content.get("format_version")
    if type(found) is not int or not 1 <= found <= FORMAT_VERSION:
        said = found if isinstance(found, (int, str)) else type(found).__name__
        raise ValueError(
            f"format_version is {said!r}, this package reads 1 to {FORMAT_VERSION}; update robustdistiller"
        )
    config = EncoderConfig.from_dict(options_of(content, "config"))
    return config, check_own(weights_of(content, "state_dict"), config)


def _write(checkpoint: Checkpoint, path: Path, notes: tuple[str, ...], card: Card) -> Exported:
    write_native(path, checkpoint.config, checkpoint.state_dict, checkpoint.metadata)
    return Exported(path, "robustdistiller.upstream.load_encoder", notes)


FORMATS = (
    Format(NATIVE_KEY, "this package's: safetensors with its notes, or format, config, state_dict", _matches, _read),
)
TARGET = Target(
    "native",
    "this package: one file with configuration, weights and metadata",
    "this package",
    obstacle=lambda config: None,
    write=_write,
    keeps_heads=True,
)
