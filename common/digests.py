"""Sizes, times and digests of many files; digests are remembered as long as the files stay as they are."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np

from robustdistiller.common.files import file_digest

logger = logging.getLogger(__name__)

_AT_ONCE = 1000  # files asked for in one query
_SETTLED_NS = 2 * 10**9  # a file that was written just now may change again without its time changing
_MANY_BYTES = 10**9


def content_digests(files: Sequence[str | Path]) -> list[str]:
    """SHA-256 of each file's bytes, in hexadecimal.

    Digests are remembered by path, size and modification time in ``$XDG_CACHE_HOME/robustdistiller/digests.sqlite``
    (by default below ``~/.cache``), so that 300,000 recordings are read once and then only looked up. Where that file
    cannot be used they are computed each time.

    Raises:
        OSError: a file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "empty")
        >>> path.touch()
        >>> content_digests([path])[0][:8]
        'e3b0c442'
    """
    paths = [os.path.abspath(file) for file in files]  # noqa: PTH100 - ten times as fast, for some 100,000 of them
    stamps = {path: tuple(stamp) for path, stamp in zip(paths, file_stamps(paths).tolist())}
    known = _remembered(list(stamps))
    found = {path: known[path][2] for path, stamp in stamps.items() if known.get(path, ())[:2] == stamp}
    missing = [path for path in stamps if path not in found]
    if sum(stamps[path][0] for path in missing) > _MANY_BYTES:
        logger.info("reading %d files for their digests, once", len(missing))
    with ThreadPoolExecutor(8) as pool:
        computed = dict(zip(missing, pool.map(file_digest, missing)))
    settled = time.time_ns() - _SETTLED_NS
    _remember([(_key(path), *stamps[path], digest) for path, digest in computed.items() if stamps[path][1] < settled])
    return [found.get(path) or computed[path] for path in paths]


def file_stamps(files: Sequence[str]) -> np.ndarray:
    """Size in bytes and modification time in ns of files, (N, 2) int64; 0 and 0 where there is none.

    Several are looked up at once, which counts on file systems that are far away.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"audio"), file.flush()
        ...     file_stamps([file.name, "/no/such/file"])[:, 0].tolist()
        [5, 0]
    """
    chunks = [files[start : start + _AT_ONCE] for start in range(0, len(files), _AT_ONCE)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(_stamps, chunks))
    return np.concatenate([*found, np.zeros((0, 2), np.int64)])


def _stamps(files: Sequence[str]) -> np.ndarray:
    stamps = []
    for file in files:
        try:
            stat = os.stat(file)  # noqa: PTH116
            stamps.append((stat.st_size, stat.st_mtime_ns))
        except OSError:
            stamps.append((0, 0))
    return np.array(stamps, np.int64)


def _key(path: str) -> str | bytes:
    """A path as the database takes it: as bytes where it is no text, as names of corpora older than UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def _remembered(paths: list[str]) -> dict[str, tuple[int, int, str]]:
    found = {}
    try:
        with closing(_database()) as database:
            for start in range(0, len(paths), _AT_ONCE):
                some = {_key(path): path for path in paths[start : start + _AT_ONCE]}
                query = f"SELECT * FROM digests WHERE path IN ({','.join('?' * len(some))})"
                found |= {some[key]: known for key, *known in database.execute(query, list(some))}
    except (sqlite3.Error, OSError) as error:
        logger.debug("no digests are remembered: %s", error)
    return {path: tuple(known) for path, known in found.items()}


def _remember(rows: list[tuple[str | bytes, int, int, str]]) -> None:
    if not rows:
        return
    try:
        with closing(_database()) as database, database:
            database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", rows)
    except (sqlite3.Error, OSError) as error:
        logger.warning("digests of %d files are computed again next time: %s", len(rows), error)


def _database() -> sqlite3.Connection:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robustdistiller"
    folder.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(folder / "digests.sqlite", timeout=30)
    database.execute("CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, size INT, mtime INT, digest TEXT)")
    return database
