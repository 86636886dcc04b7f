"""Which files are checkpoints: whether they are there, and their identity."""

from __future__ import annotations

import hashlib
from pathlib import Path

from robustdistiller.common.files import file_digest


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint; the message says why, with the path, and can be shown to a user.

    >>> issubclass(CheckpointError, ValueError)
    True
    """


def existing_file(path: str | Path) -> Path:
    """``path`` as a :class:`~pathlib.Path`, with ``~`` expanded, if it is a file.

    Raises:
        FileNotFoundError: it is not.
    """
    path = expanded(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"checkpoint {path}: expected a file, found {found} there")
    return path


def expanded(path: str | Path) -> Path:
    """``path`` with ``~`` expanded, where there is such a home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def checkpoint_digest(path: str | Path) -> str:
    """SHA-256 of the file, in hexadecimal: the identity of a checkpoint in result records.

    Of a Hugging Face folder it is that of the names and digests of its configuration and weights.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     checkpoint_digest(file.name)[:8]
    'e3b0c442'
    """
    path = expanded(path)
    if not path.is_dir() or not (path / "config.json").is_file():
        return file_digest(existing_file(path))
    parts = sorted(file for file in path.iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    return hashlib.sha256("".join(f"{part.name} {file_digest(part)}\n" for part in parts).encode()).hexdigest()
