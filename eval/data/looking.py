"""Looking at folders: which level of a download was given, which files there are, what their headers say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from robustdistiller.acoustics.audio.listing import walk_audio
from robustdistiller.eval.data.plan import PrepareError

T, R = TypeVar("T"), TypeVar("R")


def locate(root: Path, parts: Iterable[str]) -> Path | None:
    """The folder that holds one of some parts: the given one, or the only folder directly below it that does.

    Downloads unpack into a folder of their own; people give either.

    Args:
        root: what was given.
        parts: names relative to the folder that is looked for; shell patterns are allowed.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "LibriSpeech" / "dev-clean").mkdir(parents=True)
        >>> locate(root, ["dev-clean", "test-clean"]).name
        'LibriSpeech'
        >>> locate(root, ["data/train_data.csv"]) is None
        True
    """
    if not root.is_dir():
        return None
    parts = list(parts)
    candidates = [root, *sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))]
    holding = [folder for folder in candidates if any(next(folder.glob(part), None) for part in parts)]
    if root in holding:
        return root
    return holding[0] if len(holding) == 1 else None


def audio_below(folder: Path, suffix: str) -> list[str]:
    """Audio files of one kind below a folder, links followed, relative to it, sorted.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("b.wav", "a.wav", "a.flac", "._a.wav"):
        ...     (folder / name).touch()
        >>> audio_below(folder, ".wav")
        ['a.wav', 'b.wav']
    """
    return sorted(name for name in walk_audio(folder) if name.lower().endswith(suffix)) if folder.is_dir() else []


def not_there(root: Path, names: Iterable[str]) -> list[str]:
    """Those of many files that do not exist, in order. Each folder is listed once, which is fast on network disks.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "a").mkdir()
        >>> (root / "a" / "x.wav").touch()
        >>> not_there(root, ["a/x.wav", "a/y.wav", "b/x.wav"])
        ['a/y.wav', 'b/x.wav']
    """
    listed: dict[str, set[str]] = {}
    missing = []
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in listed:
            try:
                with os.scandir(root / folder) as entries:
                    listed[folder] = {entry.name for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                listed[folder] = set()
        if file not in listed[folder]:
            missing.append(name)
    return missing


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        PrepareError: it is no UTF-8 text.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     print("a\\n\\n b ", file=file, flush=True)
        ...     lines_of(Path(file.name))
        ['a', 'b']
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PrepareError(f"{path} is no text file ({error.reason} at byte {error.start}); expected UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def is_git_lfs_pointer(path: Path) -> bool:
    """Whether a file is the small note that git leaves where a large file was not fetched.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     print("version https://git-lfs.github.com/spec/v1", file=file, flush=True)
        ...     is_git_lfs_pointer(Path(file.name))
        True
    """
    with path.open("rb") as stream:
        return stream.read(42) == b"version https://git-lfs.github.com/spec/v1"


def mapped(function: Callable[[T], R], items: Sequence[T], jobs: int = 8) -> Iterator[R]:
    """Results of a function on many items, in order, computed by a few threads; stops at once when it is interrupted.

    Example:
        >>> list(mapped(abs, [-1, 2, -3]))
        [1, 2, 3]
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
