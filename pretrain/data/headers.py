"""Headers of large collections of audio, read once and kept on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robustdistiller.acoustics import AudioInfo, Piece, audio_info
from robustdistiller.common.digests import file_stamps
from robustdistiller.common.files import write_text

logger = logging.getLogger(__name__)

UNREADABLE_SHARE = 0.01
"""Beyond it a folder or a shard is broken, not a file."""


def lists_folder(manifest_dir: str | None, out_dir: Path) -> Path:
    """Where a run in `out_dir` keeps its lists of audio files, if `data.manifest_dir` does not say."""
    return Path(manifest_dir or out_dir / "manifests").expanduser()


def read_headers(pieces: Iterable[Piece], cache: Path, where: str = "") -> tuple[dict[str, AudioInfo], dict[str, str]]:
    """The headers of the files that some recordings are in, and why others have none.

    What `cache` knows of a file is used as long as the file's size and modification time are what they were. Only files
    that are new or have changed are opened.

    Args:
        pieces: of one root.
        cache: `.json` file, written when something has changed: per file its size in bytes, its time in ns, and either
            rate, frames, channels and whether any sample can be read first, or the reason why it has no header.
        where: the root, for the error.

    Raises:
        ValueError: more than 1 % of the files (and more than one) cannot be read.
    """
    files = list(dict.fromkeys([str(piece.file) for piece in pieces]))
    stamps, known = file_stamps(files).tolist(), read_list(cache)
    facts = {file: known.get(file) for file in files}
    new = [(file, stamp) for file, stamp in zip(files, stamps) if facts[file] is None or facts[file][:2] != stamp]
    if new:
        logger.info("reading the headers of %d files", len(new))
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(_header, (file for file, _ in new))
            for (file, stamp), header in tqdm(zip(new, found), "headers", len(new), unit="file", disable=None):
                facts[file] = [*stamp, *header]
    if new or len(known) != len(files):
        write_text(cache, json.dumps(facts))
    unreadable = {file: fact[2] for file, fact in facts.items() if len(fact) == 3}
    if len(unreadable) > max(UNREADABLE_SHARE * len(files), 1) or len(unreadable) == len(files):
        first = next(iter(unreadable.values()))
        raise ValueError(f"{len(unreadable)} of {len(files)} files{where} cannot be read; first: {first}")
    # Many files have the same header, and need only one object.
    header: Callable[..., AudioInfo] = lru_cache(maxsize=None)(AudioInfo)
    return {file: header(*fact[2:]) for file, fact in facts.items() if len(fact) > 3}, unreadable


def read_list(cache: Path) -> dict[str, Any]:
    """What was found before; nothing if that is not there or damaged."""
    try:
        return json.loads(cache.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("headers are read again: %s cannot be used (%s)", cache, error)
        return {}


def _header(file: str) -> tuple:
    """What a header says, or the reason why there is none."""
    try:
        info = audio_info(file)
    except (OSError, ValueError) as error:
        return (str(error),)
    return info.sample_rate_hz, info.num_frames, info.num_channels, info.exact_seek
