"""Reading and writing checkpoint files without ever running code found in them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from robustdistiller.common.files import file_digest
from robustdistiller.upstream.checkpoints.archive import read_archive
from robustdistiller.upstream.checkpoints.unpickle import HostilePickle


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint; the message says why, with the path, and can be shown to a user.

    >>> issubclass(CheckpointError, ValueError)
    True
    """


def safe_load(path: str | Path) -> dict[str, Any]:
    """Load a ``torch.save`` or safetensors file that holds a dictionary, without running anything it says.

    Objects of classes other than tensors, plain containers and numpy arrays become
    :class:`~robustdistiller.upstream.checkpoints.unpickle.Inert`. Tensors are views of the file, in its dtypes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, is damaged, asks for code to be run, or does not hold a dictionary.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"weight": torch.ones(2), "expdir": Path("exp")}, f"{folder}/a.pt")
    ...     safe_load(f"{folder}/a.pt")
    {'weight': tensor([1., 1.]), 'expdir': <pathlib.PosixPath, not built>}
    """
    return load_with_names(path)[0]


def load_with_names(path: str | Path) -> tuple[dict[str, Any], set[str]]:
    """:func:`safe_load`, and the names of the classes in the file that were not built."""
    path = existing_file(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path), set()
    try:
        content, named = read_archive(path)
    except HostilePickle as error:
        raise ValueError(f"{path} is not safe and was not read: {error}. Nothing in it was run.") from error
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{path} cannot be read as a checkpoint: expected a file written by torch.save with tensors and plain "
            f"containers; is the download complete? ({error})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a checkpoint, which is a dictionary")
    return content, named


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(f"{path} needs the package safetensors: pip install safetensors") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as safetensors; is the download complete? ({error})") from error


def existing_file(path: str | Path) -> Path:
    """``path`` as a :class:`~pathlib.Path`, with ``~`` expanded, if it is a file.

    Raises:
        FileNotFoundError: it is not.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"checkpoint {path}: expected a file, found {found} there")
    return path


def checkpoint_digest(path: str | Path) -> str:
    """SHA-256 of the file, in hexadecimal: the identity of a checkpoint in result records.

    Of a Hugging Face folder it is that of the names and digests of its configuration and weights.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     checkpoint_digest(file.name)[:8]
    'e3b0c442'
    """
    path = Path(path).expanduser()
    if not path.is_dir() or not (path / "config.json").is_file():
        return file_digest(existing_file(path))
    parts = sorted(file for file in path.iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    return hashlib.sha256("".join(f"{part.name} {file_digest(part)}\n" for part in parts).encode()).hexdigest()
