"""Reading checkpoints of every known format, and writing our own."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from robustdistiller.upstream.checkpoints.files import CheckpointError, existing_file
from robustdistiller.upstream.checkpoints.formats import detect
from robustdistiller.upstream.checkpoints.formats.base import Checkpoint, Clues, apply_own_notes
from robustdistiller.upstream.checkpoints.formats.huggingface_files import load_huggingface
from robustdistiller.upstream.checkpoints.formats.native import noted, write_native
from robustdistiller.upstream.checkpoints.parameter_names import check_own
from robustdistiller.upstream.checkpoints.plain import options_of
from robustdistiller.upstream.checkpoints.safe_load import NATIVE_KEY, has_safetensors, safe_load
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import SpeechEncoder
from robustdistiller.upstream.pretrained.names import expanded
from robustdistiller.upstream.pretrained.whisper.recognise import NO_STUDENT, ctranslate2_file

_LOGGER = logging.getLogger(__name__)
#: What a file of unexpected content makes its reader raise.
_UNEXPECTED = (TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError, OSError)


@dataclass(frozen=True)
class Source:
    """An opened file, nothing of it translated yet.

    Attributes:
        content: what it holds; of a Hugging Face folder, what :func:`.huggingface_files.load_huggingface` returns.
        named: classes in it that were not built.
    """

    content: dict[str, Any]
    named: frozenset[str] = frozenset()


def open_source(path: str | Path) -> Source:
    """Open a file or a Hugging Face folder.

    Raises:
        FileNotFoundError: there is nothing at ``path``, or a folder of another kind.
        CheckpointError: it is damaged, not safe, or of another kind.
    """
    try:
        path = expanded(path)
        if ctranslate2_file(path):
            raise ValueError(f"{path} is {NO_STUDENT}")
        content = None if _is_own(path) else load_huggingface(path)
        if content is not None:
            return Source(content)
        content, named = safe_load(existing_file(path))
        return Source(content, frozenset(named))
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise CheckpointError(str(error)) from error.__cause__
    except _UNEXPECTED as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {str(error)[:500]})") from error


def _is_own(path: Path) -> bool:
    """Whether it is a safetensors file of our own, whatever it is called and whatever lies beside it."""
    if not path.is_file() or not has_safetensors(path):
        return False
    with path.open("rb") as file:
        return f'"{NATIVE_KEY}"'.encode() in file.read(1 << 12)


def read_checkpoint(path: str | Path, num_heads: int | None = None, **config_overrides: Any) -> Checkpoint:
    """Read a checkpoint of any known format. Nothing in the file is executed.

    What the file does not say and had to be guessed is logged, and stands in ``guesses``.

    Args:
        path: a file, or a Hugging Face folder.
        num_heads: attention heads of a layer that is not pruned, for files that do not say.
        config_overrides: options of :class:`EncoderConfig` to replace.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the format is unknown, a key is missing or unknown (all are listed), the file is damaged, or
            it has another number of heads or another shape than asked for.

    >>> from robustdistiller.upstream import mini_teacher
    >>> checkpoint = read_checkpoint(mini_teacher())
    >>> checkpoint.format, checkpoint.config.num_layers
    ('robustdistiller', 5)
    """
    checkpoint = translate(open_source(path), path, num_heads, config_overrides)
    if checkpoint.guesses:
        _LOGGER.warning("%s does not say all of its encoder; guessed: %s", path, "; ".join(checkpoint.guesses))
    return checkpoint


def translate(
    source: Source, path: str | Path, num_heads: int | None = None, overrides: Mapping[str, Any] | None = None
) -> Checkpoint:
    """:func:`read_checkpoint` of an opened file."""
    clues = Clues(num_heads)
    try:
        if num_heads is not None and (type(num_heads) is not int or num_heads < 1):
            raise ValueError(f"num_heads is {num_heads!r}; expected a positive integer")
        layout = detect(source.content)
        config, weights = layout.read(source.content, clues)
        _check_heads(config, num_heads)
        notes = source.content
        if layout.name != NATIVE_KEY:
            config = apply_own_notes(config, notes)
            notes = options_of(notes, NATIVE_KEY) if NATIVE_KEY in notes else {}
        metadata, complaints = noted(notes)
        if overrides:
            config = config.replace(**overrides)
            weights = check_own(weights, config)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except KeyError as error:
        raise CheckpointError(f"{path}: the checkpoint lacks {str(error)[:500]}") from error
    except _UNEXPECTED as error:
        kind, said = type(error).__name__, str(error)[:500]
        raise CheckpointError(f"{path}: an option has the wrong type or shape ({kind}: {said})") from error
    return Checkpoint(layout.name, config, weights, metadata, (*clues.guesses, *complaints))


def _check_heads(config: EncoderConfig, num_heads: int | None) -> None:
    if num_heads is None or num_heads == config.total_heads or set(config.heads) == {num_heads}:
        return
    raise ValueError(f"num_heads is {num_heads}, but the file has {config.total_heads} attention heads of a layer")


def load_encoder(path: str | Path, num_heads: int | None = None, **config_overrides: Any) -> SpeechEncoder:
    """Load an encoder, in eval mode, from a checkpoint of any known format.

    Args:
        path: the file, or a Hugging Face folder.
        num_heads: attention heads of a layer that is not pruned, for files that do not say.
        config_overrides: options of :class:`EncoderConfig` to replace, such as ``padding="reference"``.

    >>> import tempfile
    >>> encoder = SpeechEncoder(EncoderConfig.tiny(num_layers=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", encoder, {"teacher": "none"})
    ...     load_encoder(f"{folder}/student.ckpt", padding="reference").config.padding
    'reference'
    """
    return read_checkpoint(path, num_heads, **config_overrides).build()


def save_checkpoint(
    path: str | Path, encoder: SpeechEncoder, metadata: Mapping[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write an encoder in our own format, atomically: safetensors, with configuration and notes in its metadata.

    Equal weights and notes give equal bytes.

    Args:
        path: the file, with any suffix; missing folders are made.
        encoder: the encoder.
        metadata: JSON-able notes, such as teacher, recipe and corruption. The versions of Python, PyTorch and this
            package are added under ``"versions"``.
        dtype: store the weights as, for example, ``torch.float16``, at half the size. They are read back as float32.

    Raises:
        ValueError: ``metadata`` is not JSON-able, or a weight is not finite or does not fit ``dtype``.

    >>> import tempfile
    >>> encoder = SpeechEncoder(EncoderConfig.tiny(num_layers=1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/student.ckpt", encoder, {"recipe": "distilhubert"}, dtype=torch.float16)
    ...     read_checkpoint(f"{folder}/student.ckpt").metadata["recipe"]
    'distilhubert'
    """
    write_native(path, encoder.config, encoder.state_dict(), {"versions": _versions(), **metadata}, dtype)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    try:
        versions["robustdistiller"] = version("robustdistiller")
    except PackageNotFoundError:
        versions["robustdistiller"] = "unknown"
    return versions
