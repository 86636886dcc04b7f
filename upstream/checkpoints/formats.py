"""Whose file it is, reading it, and writing our own.

A file is recognised by the keys of the dictionary it holds:

- ``robustdistiller``, ours: ``format``, ``config``, ``state_dict``
- ``distiller``, by s3prl (DistilHuBERT) and the released RobustDistiller: ``Config``, ``Distiller``
- ``wavlm``, by Microsoft: ``cfg``, ``model``
- ``hubert``, by s3prl's converter: ``task_cfg``, ``model_cfg``, ``model_weight``, ``dictionaries_symbols``
- ``wav2vec2``, by s3prl's converter: ``task_cfg``, ``model_cfg``, ``model_weight``
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import EncoderConfig
from ..encoder import SpeechEncoder
from .fairseq import read_distiller, read_hubert, read_wav2vec2, read_wavlm
from .files import safe_load, write_atomically
from .names import check_own

FORMAT, FORMAT_VERSION = "robustdistiller", 1


@dataclass
class Checkpoint:
    """A checkpoint of any readable format, brought to ours.

    Attributes:
        format: whose file it was: a name of the list above.
        config: the encoder it describes.
        state_dict: float32 tensors on the CPU under our names, checked against ``config``.
        metadata: what the writer noted; empty for foreign files.
    """

    format: str
    config: EncoderConfig
    state_dict: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)

    def build(self, **config_overrides: Any) -> SpeechEncoder:
        """The encoder with these weights, in eval mode; options such as ``padding`` or ``dropout`` can be replaced."""
        encoder = SpeechEncoder(self.config.replace(**config_overrides))
        encoder.load_state_dict(self.state_dict)
        return encoder.eval()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of any known format. Nothing in the file is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the format is unknown, a key is missing or unknown (all are listed), or the file is damaged.
    """
    content = safe_load(path)
    try:
        name, read = _detect(content)
        config, weights = read(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Checkpoint(name, config, weights, content.get("metadata", {}) if name == FORMAT else {})


def load_encoder(path: str | Path, **config_overrides: Any) -> SpeechEncoder:
    """Load an encoder, in eval mode, from a checkpoint of any known format.

    Args:
        path: the file.
        config_overrides: options of :class:`EncoderConfig` to replace, such as ``padding="reference"``.

    >>> import tempfile
    >>> encoder = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", encoder, {"teacher": "none"})
    ...     load_encoder(f"{folder}/student.ckpt", padding="reference").config.padding
    'reference'
    """
    return read_checkpoint(path).build(**config_overrides)


def save_checkpoint(
    path: str | Path, encoder: SpeechEncoder, metadata: Mapping[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write an encoder in our own format, atomically; ``torch.load(path, weights_only=True)`` reads it.

    Args:
        path: the file; missing folders are made.
        encoder: the encoder.
        metadata: JSON-able notes, such as teacher, recipe and corruption. The versions of Python, PyTorch and this
            package are added under ``"versions"``.
        dtype: store the weights as, for example, ``torch.float16``, at half the size. They are read back as float32.

    Raises:
        ValueError: ``metadata`` is not JSON-able, or a weight is not finite or does not fit ``dtype``.
    """
    try:
        metadata = json.loads(json.dumps({"versions": _versions(), **metadata}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"checkpoint metadata must hold JSON values only: {error}") from error
    weights = {}
    for name, value in encoder.state_dict().items():
        stored = value.detach().to("cpu", dtype or value.dtype).contiguous().clone()
        if not torch.isfinite(stored).all():
            raise ValueError(f"{name} has values that are not finite{f' as {dtype}' if dtype else ''}; not saved")
        weights[name] = stored
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": encoder.config.to_dict(),
        "state_dict": weights,
        "metadata": metadata,
    }
    write_atomically(path, lambda file: torch.save(content, file))


def _read_own(content: Mapping[str, Any]) -> tuple[EncoderConfig, dict[str, Tensor]]:
    found = content.get("format_version")
    if found != FORMAT_VERSION:
        raise ValueError(f"format_version is {found!r}, this package reads {FORMAT_VERSION}; update robustdistiller")
    config = EncoderConfig.from_dict(content["config"])
    return config, check_own(content["state_dict"], config)


_READERS = [
    (FORMAT, {"format", "config", "state_dict"}, _read_own),
    ("distiller", {"Config", "Distiller"}, read_distiller),
    ("hubert", {"task_cfg", "model_cfg", "model_weight", "dictionaries_symbols"}, read_hubert),
    ("wav2vec2", {"task_cfg", "model_cfg", "model_weight"}, read_wav2vec2),
    ("wavlm", {"cfg", "model"}, read_wavlm),
]


def _detect(content: Mapping[str, Any]):
    if {"model", "optimizer_history"} <= content.keys() or {"model", "args"} <= content.keys():
        raise ValueError(
            "this is fairseq's own file; use the one that s3prl converted from it, at "
            "https://huggingface.co/s3prl/converted_ckpts"
        )
    for name, keys, read in _READERS:
        if keys <= content.keys() and (name != FORMAT or content["format"] == FORMAT):
            return name, read
    known = "; ".join(f"{name}: {', '.join(sorted(keys))}" for name, keys, _ in _READERS)
    raise ValueError(f"unknown checkpoint format with the keys {', '.join(map(str, content))}; known: {known}")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    try:
        versions["robustdistiller"] = version("robustdistiller")
    except PackageNotFoundError:
        versions["robustdistiller"] = "unknown"
    return versions
