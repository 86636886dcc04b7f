"""Headers of large collections of noise, rooms and babble speech, read once and kept on disk."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

from robustdistiller.acoustics import AudioInfo, Piece, audio_info
from robustdistiller.upstream.checkpoints.files import write_atomically

logger = logging.getLogger(__name__)

_UNREADABLE_SHARE = 0.01  # beyond it a folder is broken, not a file


def read_headers(pieces: Iterable[Piece], cache: Path) -> tuple[dict[str, AudioInfo], dict[str, str]]:
    """The headers of the files that some recordings are in, and why others have none.

    What `cache` knows of a file is used as long as the file's size and modification time are what they were. Only
    files that are new or have changed are opened.

    Args:
        pieces: of one root.
        cache: JSON file, written when something has changed.

    Raises:
        ValueError: more than 1 % of the files (and more than one) cannot be read.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/rain.wav", [0.1] * 800, 8000)
    ...     headers, _ = read_headers([Piece("rain", Path(folder, "rain.wav"))], Path(folder, "headers.json"))
    ...     [header.duration_s for header in headers.values()]
    [0.1]
    """
    known = _load(cache)
    facts: dict[str, list] = {}
    unknown: list[tuple[str, list]] = []
    for path in dict.fromkeys(str(piece.file) for piece in pieces):
        try:
            stat = os.stat(path)  # noqa: PTH116
            when = [stat.st_size, stat.st_mtime_ns]
        except OSError:
            when = [0, 0]  # what is wrong with it, reading it will say
        old = known.get(path)
        if old is not None and old[:2] == when:
            facts[path] = old
        else:
            facts[path] = when  # keeps the order
            unknown.append((path, when))
    if unknown:
        logger.info("reading the headers of %d files", len(unknown))
        with ThreadPoolExecutor(8) as pool:
            for (path, when), header in zip(unknown, pool.map(_header, unknown, chunksize=64)):
                facts[path] = [*when, header]
    if unknown or len(known) != len(facts):
        text = json.dumps(facts, separators=(",", ":"))
        write_atomically(cache, lambda file: file.write_text(text, encoding="utf-8"))
    headers = {path: AudioInfo(*fact[2]) for path, fact in facts.items() if not isinstance(fact[2], str)}
    unreadable = {path: fact[2] for path, fact in facts.items() if isinstance(fact[2], str)}
    if len(unreadable) > max(_UNREADABLE_SHARE * len(facts), 1) or not headers:
        first = next(iter(unreadable.values()))
        raise ValueError(f"{len(unreadable)} of {len(facts)} files cannot be read; first: {first}")
    return headers, unreadable


def _header(file: tuple[str, list]) -> list | str:
    try:
        return list(astuple(audio_info(file[0])))
    except (OSError, ValueError) as error:
        return str(error)


def _load(cache: Path) -> dict[str, list]:
    try:
        return json.loads(cache.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("headers are read again: %s cannot be used (%s)", cache, error)
        return {}
