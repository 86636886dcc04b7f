"""Archives from elsewhere, unpacked without trusting what they hold."""

from __future__ import annotations

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm


class ArchiveError(ValueError):
    """An archive is damaged, or holds what could do harm."""


_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


def unpack(archive: Path, folder: Path, progress: bool = True) -> int:
    """Unpack the files of a tar or zip archive, compressed or not, below a folder.

    Only contents are taken: owners and permissions are those of any new file.

    Args:
        archive: the archive; what it is its content says, not its name.
        folder: made where it is not there.
        progress: show a bar where there is a terminal.

    Returns:
        The number of files.

    Raises:
        ArchiveError: it is damaged, or it holds a link, a device or a path out of the folder; what was unpacked before
            that was found stays in the folder.
        OSError: a file cannot be written.

    Example:
        >>> import zipfile
        >>> with zipfile.ZipFile("a.zip", "w") as archive:
        ...     archive.writestr("noise/rain.txt", "rain")
        >>> unpack(Path("a.zip"), Path("out")), Path("out/noise/rain.txt").read_text()
        (1, 'rain')
    """
    count = 0
    try:
        with tqdm(desc="unpacking", unit=" files", disable=None if progress else True) as bar:
            for name, stream in _files(archive):
                target = folder / _inside(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as output:
                    shutil.copyfileobj(stream, output, 1 << 20)
                count += 1
                bar.update()
    except _DAMAGED as error:
        raise ArchiveError(f"it is damaged, or no archive ({error})") from error
    return count


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                if not member.is_dir():
                    _require_file(member.filename, kind in (0, stat.S_IFREG))
                    with opened.open(member) as stream:
                        yield member.filename, stream
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            if not member.isdir():
                _require_file(member.name, member.isfile())
                yield member.name, opened.extractfile(member)
        while opened.fileobj.read(1 << 20):  # up to the checksum of what is compressed
            pass


def _require_file(name: str, is_file: bool) -> None:
    if not is_file:
        raise ArchiveError(f"it holds {name!r}, which is a link or a device, and was not unpacked")


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or ":" in path.parts[0]
        or "\0" in name
    ):
        raise ArchiveError(f"it holds {name!r}, a path out of its folder, and was not unpacked")
    return path
