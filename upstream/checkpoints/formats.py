"""Whose file it is, reading it, and writing our own.

A file is recognised by the keys of the dictionary it holds; see :data:`FORMATS`.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdistiller.common.files import write_atomically
from robustdistiller.upstream.checkpoints.distiller import read_distiller
from robustdistiller.upstream.checkpoints.fairseq import read_converted, read_fairseq, read_wavlm
from robustdistiller.upstream.checkpoints.files import CheckpointError, existing_file, load_with_names
from robustdistiller.upstream.checkpoints.huggingface import load_huggingface, read_huggingface
from robustdistiller.upstream.checkpoints.names import check_own
from robustdistiller.upstream.checkpoints.plain import options_of
from robustdistiller.upstream.checkpoints.torchaudio import read_armhubert, read_dphubert, read_torchaudio
from robustdistiller.upstream.checkpoints.torchaudio_options import read_factory_file
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder

FORMAT, FORMAT_VERSION = "robustdistiller", 1


@dataclass
class Checkpoint:
    """A checkpoint of any readable format, brought to ours.

    Attributes:
        format: whose file it was: a name of :data:`FORMATS`.
        config: the encoder it describes.
        state_dict: float32 tensors on the CPU under our names, checked against ``config``.
        metadata: what the writer noted; empty for foreign files.

    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> checkpoint = Checkpoint("example", config, SpeechEncoder(config).state_dict())
    >>> checkpoint.build(padding="reference").config.padding
    'reference'
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


def read_checkpoint(path: str | Path, **config_overrides: Any) -> Checkpoint:
    """Read a checkpoint of any known format. Nothing in the file is executed.

    Args:
        path: a file, or a Hugging Face folder.
        config_overrides: options of :class:`EncoderConfig` to replace; ``num_heads`` is also told to the readers of
            files that do not say it.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the format is unknown, a key is missing or unknown (all are listed), or the file is damaged.

    >>> from robustdistiller.upstream import mini_teacher
    >>> checkpoint = read_checkpoint(mini_teacher())
    >>> checkpoint.format, checkpoint.config.num_layers
    ('robustdistiller', 5)
    """
    try:
        found = open_source(path)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    hints = {"num_heads": config_overrides["num_heads"]} if "num_heads" in config_overrides else {}
    try:
        format_ = detect(found.content)
        config, weights = format_.read(found.content, **(hints if format_.takes_heads else {}))
        config = config.replace(**config_overrides)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        kind = type(error).__name__
        raise CheckpointError(f"{path}: an option has an unexpected type or shape ({kind}: {error})") from error
    metadata = found.content.get("metadata", {}) if format_.name == FORMAT else {}
    return Checkpoint(format_.name, config, weights, metadata)


def load_encoder(path: str | Path, **config_overrides: Any) -> SpeechEncoder:
    """Load an encoder, in eval mode, from a checkpoint of any known format.

    Args:
        path: the file, or a Hugging Face folder.
        config_overrides: options of :class:`EncoderConfig` to replace, such as ``padding="reference"``.

    >>> import tempfile
    >>> encoder = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", encoder, {"teacher": "none"})
    ...     load_encoder(f"{folder}/student.ckpt", padding="reference").config.padding
    'reference'
    """
    return read_checkpoint(path, **config_overrides).build()


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

    >>> import tempfile
    >>> encoder = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", encoder, {"recipe": "distilhubert"}, dtype=torch.float16)
    ...     read_checkpoint(f"{folder}/student.ckpt").metadata["recipe"]
    'distilhubert'
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
    config = EncoderConfig.from_dict(options_of(content, "config"))
    return config, check_own(content["state_dict"], config)


@dataclass(frozen=True)
class Source:
    """An opened file, nothing of it translated yet.

    Attributes:
        content: what it holds; of a Hugging Face folder, what :func:`load_huggingface` returns.
        named: classes in it that were not built.
    """

    content: dict[str, Any]
    named: set[str]


def open_source(path: str | Path) -> Source:
    """Open a file or a Hugging Face folder.

    Raises:
        FileNotFoundError: there is nothing at ``path``, or a folder of another kind.
        ValueError: it is damaged, not safe, or of another kind.
    """
    content = load_huggingface(path)
    if content is not None:
        return Source(content, set())
    return Source(*load_with_names(existing_file(path)))


@dataclass(frozen=True)
class Format:
    """One layout of checkpoint files.

    Attributes:
        name: what :class:`Checkpoint` calls it.
        about: whose it is, and the keys by which it is recognised.
        matches: whether a dictionary has this layout.
        read: translates it to a configuration and weights.
        takes_heads: whether ``read`` can be told ``num_heads``.
    """

    name: str
    about: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[..., tuple[EncoderConfig, dict[str, Tensor]]]
    takes_heads: bool = False


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda content: content.keys() >= set(keys)


def _is_wavlm(content: Mapping[str, Any]) -> bool:
    return {"cfg", "model"} <= content.keys() and isinstance(content["cfg"], Mapping) and "model" not in content["cfg"]


def _is_lightning_student(content: Mapping[str, Any]) -> bool:
    weights = content.get("state_dict")
    return isinstance(weights, Mapping) and any(str(name).startswith("student_model.") for name in weights)


def _is_torchaudio(content: Mapping[str, Any]) -> bool:
    return any(str(name).endswith("feature_extractor.conv_layers.0.conv.weight") for name in content) and any(
        ".transformer.layers." in str(name) or "encoder.transformer.layer_norm." in str(name) for name in content
    )


#: Every layout, in the order in which they are tried.
FORMATS = (
    Format(
        FORMAT,
        "this package's: format, config, state_dict",
        lambda content: _has("format", "config", "state_dict")(content) and content["format"] == FORMAT,
        _read_own,
    ),
    Format(
        "distiller",
        "s3prl's Distiller and RobustDistiller: Config, Distiller",
        _has("Config", "Distiller"),
        read_distiller,
    ),
    Format(
        "hubert",
        "s3prl's conversion of HuBERT: task_cfg, model_cfg, model_weight, dictionaries_symbols",
        _has("task_cfg", "model_cfg", "model_weight", "dictionaries_symbols"),
        read_converted,
    ),
    Format(
        "wav2vec2",
        "s3prl's conversion of wav2vec 2.0 or data2vec: task_cfg, model_cfg, model_weight",
        _has("task_cfg", "model_cfg", "model_weight"),
        read_converted,
    ),
    Format(
        "torchaudio-factory",
        "this package's export for torchaudio: factory, config, state_dict",
        _has("factory", "config", "state_dict"),
        read_factory_file,
    ),
    Format("dphubert", "DPHuBERT and DPWavLM: config, state_dict", _has("config", "state_dict"), read_dphubert),
    Format(
        "armhubert",
        "ARMHuBERT and STaRHuBERT: state_dict with a student_model",
        _is_lightning_student,
        read_armhubert,
        takes_heads=True,
    ),
    Format("wavlm", "Microsoft's WavLM: cfg (options of the model), model", _is_wavlm, read_wavlm),
    Format(
        "fairseq",
        "fairseq's own: model, and args or cfg",
        lambda content: "model" in content and not content.keys().isdisjoint(("args", "cfg")),
        read_fairseq,
    ),
    Format(
        "huggingface",
        "Hugging Face's: config.json beside the weights",
        _has("hf_config", "hf_weights"),
        read_huggingface,
    ),
    Format(
        "torchaudio", "torchaudio's state dict: the weights alone", _is_torchaudio, read_torchaudio, takes_heads=True
    ),
)


def detect(content: Mapping[str, Any]) -> Format:
    """The layout of an opened file.

    Raises:
        ValueError: it is none of :data:`FORMATS`; the message says what was looked for.

    >>> detect({"Config": {}, "Distiller": {}, "Optimizer": {}}).name
    'distiller'
    """
    for known in FORMATS:
        if known.matches(content):
            return known
    keys = [str(key) for key in content]
    listed = ", ".join(keys[:12]) + (f" and {len(keys) - 12} more" if len(keys) > 12 else "")
    if any(key.endswith("feature_projection.projection.weight") for key in keys):
        raise ValueError(f"a Hugging Face state dict without its config.json: put it beside the file (keys: {listed})")
    looked_for = "; ".join(f"{known.name} ({known.about})" for known in FORMATS)
    raise ValueError(f"unknown checkpoint format with the keys {listed or '(none)'}. Looked for: {looked_for}")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    try:
        versions["robustdistiller"] = version("robustdistiller")
    except PackageNotFoundError:
        versions["robustdistiller"] = "unknown"
    return versions
