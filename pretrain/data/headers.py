"""Headers of large collections of audio, read once and kept on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from robustdistiller.acoustics import AudioInfo, Piece, audio_info
from robustdistiller.acoustics.audio.listing import file_stamps
from robustdistiller.common.files import write_atomically

logger = logging.getLogger(__name__)

_UNREADABLE_SHARE = 0.01  # beyond it a folder is broken, not a file


@dataclass
class _Table:
    """What is known of files, as it is kept.

    Attributes:
        files: their paths.
        stamps: (N, 2) size and modification time when the header was read.
        facts: (N, 4) sampling rate, frames, channels, whether any sample can be read first; zeros without a header.
        reasons: why a file has no header, by position.
    """

    files: list[str] = field(default_factory=list)
    stamps: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    facts: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    reasons: dict[int, str] = field(default_factory=dict)

    @classmethod
    def load(cls, cache: Path) -> _Table:
        try:
            with np.load(cache, allow_pickle=False) as kept:
                files, reasons = (_unpack(kept[name]) for name in ("files", "reasons"))
                return cls(files, kept["stamps"], kept["facts"], {int(k): v for k, v in reasons.items()})
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, EOFError, AttributeError, BadZipFile) as error:
            logger.warning("headers are read again: %s cannot be used (%s)", cache, error)
            return cls()

    def save(self, cache: Path) -> None:
        parts = {"files": _pack(self.files), "reasons": _pack(self.reasons), "stamps": self.stamps, "facts": self.facts}

        def write(file: Path) -> None:
            with file.open("wb") as stream:
                np.savez(stream, **parts)

        write_atomically(cache, write)

    def known_at(self, files: Sequence[str], stamps: np.ndarray) -> np.ndarray:
        """(N,) position in this table of each file that is still what it was, -1 for others."""
        if files == self.files:
            places = np.arange(len(files))
        else:
            position = {file: index for index, file in enumerate(self.files)}
            places = np.array([position.get(file, -1) for file in files], np.int64)
        found = np.flatnonzero(places >= 0)
        places[found[(self.stamps[places[found]] != stamps[found]).any(axis=1)]] = -1
        return places


def read_headers(pieces: Iterable[Piece], cache: Path, where: str = "") -> tuple[dict[str, AudioInfo], dict[str, str]]:
    """The headers of the files that some recordings are in, and why others have none.

    What `cache` knows of a file is used as long as the file's size and modification time are what they were. Only
    files that are new or have changed are opened.

    Args:
        pieces: of one root.
        cache: `.npz` file, written when something has changed.
        where: the root, for the error.

    Raises:
        ValueError: more than 1 % of the files (and more than one) cannot be read.

    >>> import soundfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/rain.wav", [0.1] * 800, 8000)
    ...     headers, _ = read_headers([Piece("rain", Path(folder, "rain.wav"))], Path(folder, "headers.npz"))
    ...     [header.duration_s for header in headers.values()]
    [0.1]
    """
    files = list(dict.fromkeys([str(piece.file) for piece in pieces]))
    stamps, known = file_stamps(files), _Table.load(cache)
    places = known.known_at(files, stamps)
    new = np.flatnonzero(places < 0)
    if len(new) or len(known.files) != len(files):
        known = _updated(known, files, stamps, places, new)
        known.save(cache)
    unreadable = {files[index]: reason for index, reason in known.reasons.items()}
    if len(unreadable) > max(_UNREADABLE_SHARE * len(files), 1) or len(unreadable) == len(files):
        first = next(iter(unreadable.values()))
        raise ValueError(f"{len(unreadable)} of {len(files)} files{where} cannot be read; first: {first}")
    # Many files have the same header, and need only one object.
    header: Callable[..., AudioInfo] = lru_cache(maxsize=None)(AudioInfo)
    rate_hz, frames, channels, exact = known.facts.T.tolist()
    headers = dict(zip(files, map(header, rate_hz, frames, channels, map(bool, exact))))
    return {file: headers[file] for file in files if file not in unreadable} if unreadable else headers, unreadable


def _updated(known: _Table, files: list[str], stamps: np.ndarray, places: np.ndarray, new: np.ndarray) -> _Table:
    """A table of exactly these files, in their order."""
    facts = np.zeros((len(files), 4), np.int64)
    kept = np.flatnonzero(places >= 0)
    facts[kept] = known.facts[places[kept]]
    reasons = {int(i): known.reasons[int(places[i])] for i in kept if int(places[i]) in known.reasons}
    if len(new):
        logger.info("reading the headers of %d files", len(new))
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(_header, (files[index] for index in new))
            for index, header in tqdm(zip(new.tolist(), found), "headers", len(new), unit="file", disable=None):
                if isinstance(header, str):
                    reasons[index] = header
                else:
                    facts[index] = header.sample_rate_hz, header.num_frames, header.num_channels, header.exact_seek
    return _Table(files, stamps, facts, dict(sorted(reasons.items())))


def _header(file: str) -> AudioInfo | str:
    """A header, or the reason why there is none."""
    try:
        return audio_info(file)
    except (OSError, ValueError) as error:
        return str(error)


def _pack(value: list | dict) -> np.ndarray:
    """JSON as bytes, which NumPy reads without running anything."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _unpack(packed: np.ndarray) -> list | dict:
    return json.loads(packed.tobytes())
