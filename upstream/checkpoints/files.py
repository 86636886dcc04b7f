"""Reading and writing checkpoint files without ever running code found in them."""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Inert:
    """Stands for an object of a class that is not needed, such as the ``argparse.Namespace`` in s3prl's checkpoints.

    Keeps what the file gave to the class; calls nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self.args, self.kwargs = args, kwargs

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _plain_dict(*_: Any) -> dict:
    return {}


def safe_load(path: str | Path) -> dict[str, Any]:
    """Load a ``torch.save`` file that holds a dictionary; classes other than tensors and containers become inert.

    torch's own restricted unpickler does the work: what it does not allow by itself is mapped by name to
    :class:`Inert`, so neither the class nor any function named in the file is looked up, imported or called.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a ``torch.save`` file, is damaged, or does not hold a dictionary.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"weight": torch.ones(2), "expdir": Path("exp")}, f"{folder}/a.pt")
    ...     safe_load(f"{folder}/a.pt")["expdir"].args
    ('exp',)
    """
    path = existing_file(path)
    # Mapping the file leaves what is not used, such as optimizer states, on the disk.
    options = {"map_location": "cpu", "weights_only": True, "mmap": zipfile.is_zipfile(path)}
    try:
        try:
            content = torch.load(path, **options)
        except pickle.UnpicklingError:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            stand_ins = [(_plain_dict if name == "collections.defaultdict" else Inert, name) for name in names]
            with torch.serialization.safe_globals(stand_ins):
                content = torch.load(path, **options)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        # torch wraps the reason in advice to load the file without protection.
        wrapped = isinstance(error, pickle.UnpicklingError) and error.__context__
        cause = error.__context__ if wrapped else error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint: expected a file written by torch.save with tensors and plain "
            f"containers; is the download complete? ({reason})"
        ) from cause
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a checkpoint, which is a dictionary")
    return content


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


def write_atomically(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it: ``path`` is whole or absent.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(f"{folder}/new/a.txt", lambda file: file.write_text("done"))
    ...     Path(f"{folder}/new/a.txt").read_text()
    'done'
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's files are private
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def checkpoint_digest(path: str | Path) -> str:
    """SHA-256 of the file, in hexadecimal: the identity of a checkpoint in result records.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     checkpoint_digest(file.name)[:8]
    'e3b0c442'
    """
    digest = hashlib.sha256()
    with existing_file(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
