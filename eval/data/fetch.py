"""Fetching corpora: resumable, checked, unpacked beside what is there, which is never replaced or removed."""

from __future__ import annotations

import errno
import filecmp
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from robustdistiller.common.download import ChecksumError, download, remove_part, verify
from robustdistiller.common.errors import RunFailed
from robustdistiller.common.files import write_text
from robustdistiller.common.locks import Busy, locked
from robustdistiller.common.unpack import ArchiveError, unpack
from robustdistiller.eval.data.archives import Archive
from robustdistiller.eval.data.checks import audio_below
from robustdistiller.eval.data.plan import PrepareError, named

NOTE, LOCK = ".downloads.json", ".downloads.lock"
_GB = 1_000_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT)


def folder_of(archives: Sequence[Archive], root: Path) -> Path:
    """Where archives are unpacked: ``root``, or the folder around it where it is one that they hold."""
    own = {archive.folder.split("/")[0] for archive in archives if archive.folder}
    return root.absolute().parent if root.absolute().name in own else root.absolute()


def to_fetch(archives: Sequence[Archive], root: Path) -> list[Archive]:
    """The archives whose content is not there yet."""
    folder = folder_of(archives, root)
    noted = _noted(folder)

    def is_there(archive: Archive) -> bool:
        place = folder / (archive.folder or archive.name)
        if not archive.folder or archive.name in noted:
            return place.exists()
        return sum(len(audio_below(place, suffix)) for suffix in (".wav", ".flac")) >= archive.files

    return [archive for archive in archives if not is_there(archive)]


def fetch(archives: Sequence[Archive], root: Path, mirror: str = "", progress: bool = True) -> list[str]:
    """Fetch and unpack what is not there yet, from its publisher, or a `mirror` that holds all archives by their names.

    Returns:
        Names of the archives that were fetched.

    Raises:
        PrepareError: too little space, a file of somebody else's in the way, or another process that is fetching.
        RunFailed: the connection broke for good, the disk is full (what was downloaded is kept for the next time), or
            an archive is not the published one, damaged or dangerous (it is removed).
    """
    folder = folder_of(archives, root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / LOCK, wait=False):
            todo = to_fetch(archives, root)
            _require_space(folder, todo)
            for archive in todo:
                _fetch_one(archive, folder, mirror, progress)
    except Busy as error:
        raise PrepareError(f"another process is fetching into {folder}; wait for it") from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise RunFailed(f"the disk of {folder} is full; free some space, the same command goes on") from error
    return [archive.name for archive in todo]


def _require_space(folder: Path, archives: Sequence[Archive]) -> None:
    """Archives are removed one by one when they are unpacked; what of them is there already needs no space."""
    loaded = sum(part.stat().st_size for one in archives if (part := _part(folder, one)).exists())
    kept = sum(archive.unpacked_gb or archive.size_gb for archive in archives)
    passing = max((archive.size_gb for archive in archives if archive.unpacked_gb), default=0.0)
    needed, free = kept + passing - loaded / _GB, shutil.disk_usage(folder).free / _GB
    if needed > free:
        what = named([archive.name for archive in archives])
        space = f"{folder} has {free:.1f} GB of space, and about {needed:.1f} GB are needed"
        raise PrepareError(f"{space} for {what}; free some, or choose another folder")


def _part(folder: Path, archive: Archive) -> Path:
    return folder / f".{archive.name}.part"  # browsers call theirs NAME.part


def _fetch_one(archive: Archive, folder: Path, mirror: str, progress: bool) -> None:
    file, part = folder / archive.name, _part(folder, archive)
    if file.is_file():  # fetched by hand: it stays
        try:
            verify(file, archive.checksum)
            _unpack(file, archive, folder, progress)
        except (ChecksumError, ArchiveError) as error:
            fix = "move it away, and it is fetched"
            raise PrepareError(f"{file} is not the published one: {error}; {fix}") from error
        return
    url = f"{mirror.rstrip('/')}/{archive.name}" if mirror else archive.url
    try:
        _download(url, part, archive, progress)
        if archive.folder:
            _unpack(part, archive, folder, progress)
        else:
            part.replace(file)
    except (ChecksumError, ArchiveError) as error:
        remove_part(part)
        raise RunFailed(f"{url} was fetched and removed again: {error}; try again, or another --mirror") from error
    remove_part(part)


def _download(url: str, part: Path, archive: Archive, progress: bool) -> None:
    try:
        download(url, part, archive.checksum, progress, keep=True)
    except OSError as error:
        if isinstance(error, ChecksumError) or error.errno in _FULL:
            raise
        raise RunFailed(f"{url} could not be fetched: {error}; the same command goes on from there") from error


def _unpack(file: Path, archive: Archive, folder: Path, progress: bool) -> None:
    """Unpack beside what is there, which stays: files of the archive's own folder must then be the same."""
    staging = folder / f".{archive.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        unpack(file, staging / archive.folder if archive.bare else staging, progress)
        if not (staging / archive.folder).is_dir():
            raise ArchiveError(f"it holds no folder {archive.folder}")
        names = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
        there = {name for name in names if (folder / name).exists()}
        own = sorted(name for name in there if name.is_relative_to(archive.folder))
        other = [str(name) for name in own if not filecmp.cmp(staging / name, folder / name, shallow=False)]
        if other:
            raise PrepareError(f"{named(other)} in {folder} differ from those of {archive.name}; move them away")
        for name in (name for name in names if name not in there):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).replace(folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    write_text(folder / NOTE, json.dumps(sorted({*_noted(folder), archive.name}), indent=1) + "\n")


def _noted(folder: Path) -> list[str]:
    """Archives that were unpacked here."""
    try:
        return json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except json.JSONDecodeError as error:
        raise PrepareError(f"{folder / NOTE} is not what this command writes ({error}); delete it") from error
