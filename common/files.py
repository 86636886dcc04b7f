"""Files that are whole or absent, and their digests."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# .NAME.tmp-HOST-PID-RANDOM: says whose it is, to tell what a killed process left from what is being written. All that
# changes is behind the last dot: torch.save writes the name before it into the file, whose digest would change with it.
_TEMPORARY = re.compile(r"\..+\.tmp-(?P<host>\w+)-(?P<pid>\d+)-[0-9a-f]{8}")


def write_atomically(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then rename it.

    ``path`` is whole or as it was before, after a crash of the machine too. Its folder is made, an existing file keeps
    its mode, and a link stays a link.

    Args:
        path: the file; ``~`` is expanded.
        write: called with the path of the temporary file, which exists and is empty.

    Returns:
        ``path``.

    Raises:
        IsADirectoryError: ``path`` is a folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(f"{folder}/new/a.txt", lambda file: file.write_text("done")).read_text()
        'done'
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    target = path.resolve() if path.is_symlink() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    name = target.name.encode()[:150].decode(errors="ignore")  # file systems allow 255 bytes
    temporary = target.with_name(f".{name}.tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.touch(exist_ok=False)
        mode = (target if target.exists() else temporary).stat().st_mode & 0o777
        write(temporary)
        temporary.chmod(mode)  # some writers put a file of their own there
        _flush(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(target.parent)
    return path


def require_place(folder: Path) -> None:
    """Refuse a folder that results are to go to and that cannot be made, before anything long begins.

    Raises:
        ValueError: a file is there, or above it.

    Example:
        >>> require_place(write_text("note.txt", "done") / "below")
        Traceback (most recent call last):
        ValueError: note.txt/below must be a folder, found a file there or above it
    """
    place = folder.expanduser()
    if any(one.is_file() for one in (place, *place.parents)):
        raise ValueError(f"{folder} must be a folder, found a file there or above it")


def require_file_place(path: Path) -> None:
    """Refuse the name of a file that cannot be written, before anything long begins.

    Raises:
        ValueError: a folder is there, or a file is where a folder above it would be.

    Example:
        >>> require_file_place(Path("/"))
        Traceback (most recent call last):
        ValueError: / is a folder, expected the name of a file
    """
    if path.expanduser().is_dir():
        raise ValueError(f"{path} is a folder, expected the name of a file")
    require_place(path.parent)


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        ValueError: it is no text; the message names the file.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file ({error.reason} at byte {error.start}); expected UTF-8") from error


def write_text(path: str | Path, text: str) -> Path:
    """:func:`write_atomically` with a text, as UTF-8.

    Example:
        >>> write_text("note.txt", "done").read_text()
        'done'
    """
    return write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> Path:
    """:func:`write_atomically` with bytes."""
    return write_atomically(path, lambda file: file.write_bytes(data))


def remove_leftovers(folder: str | Path) -> list[Path]:
    """Remove temporary files of :func:`write_atomically` below ``folder`` whose processes were killed.

    Those of living processes, and of other machines that share the folder, stay.

    Returns:
        What was removed.
    """
    removed = []
    for file in Path(folder).rglob(".*.tmp-*"):
        owner = _TEMPORARY.fullmatch(file.name)
        if owner and owner["host"] == _host() and not _is_alive(int(owner["pid"])):
            file.unlink(missing_ok=True)
            removed.append(file)
    return removed


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """SHA-256, or another checksum, of a file's content, in hexadecimal.

    Example:
        >>> file_digest(write_text("empty.txt", ""))[:8]
        'e3b0c442'
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def slug(text: str) -> str:
    """A readable file name for any text; different texts give different names.

    Example:
        >>> slug("noise:snr_db=10"), slug("robustdistiller_local")
        ('noise~snr_db=10', 'robustdistiller_local')
    """
    name = re.sub(r"[^A-Za-z0-9_.,+=~-]", "_", text.replace(":", "~")).lstrip(".")
    faithful = name.replace("~", ":") == text and len(name) <= 80
    return name if faithful else f"{name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _host() -> str:
    return re.sub(r"[^\w]", "_", socket.gethostname()) or "host"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return True
    return True


def _flush(path: Path) -> None:
    """Have the system put a file, or the names in a folder, on the disk; folders cannot be flushed everywhere."""
    with contextlib.suppress(PermissionError, IsADirectoryError) if path.is_dir() else contextlib.nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def walk_files(root: str | Path) -> Iterator[str]:
    """The files below a folder, links followed, as paths relative to it with forward slashes.

    Hidden files and folders are left out: what a version control or a file manager keeps there is there twice.
    Of a folder and links to it the first by name is looked into, on every file system.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.txt").touch(), (folder / ".hidden").touch()
        (None, None)
        >>> list(walk_files(folder))
        ['a.txt']
    """
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that points back up
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if below == "." else f"{below}/"
        yield from (prefix + file for file in files if not file.startswith("."))
