"""Recordings decoded and resampled once, in memory-mapped files that all processes share."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from robustdistiller.common.locks import locked

if TYPE_CHECKING:
    from .sources import AudioSource

logger = logging.getLogger(__name__)

_VERSION = 1
_FULL_SCALE = 32768  # of 16-bit samples
_DTYPES = (np.dtype("<i2"), np.dtype("<f4"))
_ABSENT = -1
_AT_ONCE = 64


class DecodedAudio:
    """The samples of the recordings of one ``AudioSource``; made by :func:`decode`.

    Reading copies out of the page cache of the system: no file is opened, nothing is decoded or resampled, and however
    many processes there are, the samples are in memory once. Samples that 16 bits hold exactly take two bytes, others
    four; either way they are those that reading the file gives.

    Args:
        folder: what :func:`decode` wrote.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        # For each row its type (index in _DTYPES), first sample in the file of that type, and number of samples.
        self._rows = np.load(self.folder / "rows.npy")
        self._first_rows = np.load(self.folder / "first_rows.npy")
        self._of_channels = bool(_about(self.folder)["of_channels"])
        self._samples = [_open(self.folder / _file_name(dtype), dtype) for dtype in _DTYPES]

    def __reduce__(self):
        return DecodedAudio, (self.folder,)

    def read(self, piece: int, channel: int | None, start: int, num_samples: int) -> np.ndarray | None:
        """Part of a recording as (num_samples,) float32; None if it is not here.

        Args:
            piece: position of the recording in the source.
            channel: one channel, None for the mean of all; only one of the two kinds is here.
            start: first sample.
            num_samples: length; the part must lie within the recording.
        """
        if (channel is not None) != self._of_channels:
            return None
        row = self._first_rows[piece] + (channel or 0)
        if row >= self._first_rows[piece + 1]:
            return None
        kind, first, _ = self._rows[row]
        if kind == _ABSENT:
            return None
        part = self._samples[kind][first + start : first + start + num_samples]
        return np.multiply(part, np.float32(1 / _FULL_SCALE)) if _DTYPES[kind].kind == "i" else np.array(part)


def decode(
    source: "AudioSource",
    folder: Path,
    of_channels: bool = False,
    limit_bytes: int | None = None,
    progress: bool = True,
) -> DecodedAudio | None:
    """Decodes all recordings of a source into a folder, or opens what is there if the recordings are the same.

    They are the same while names, places, sizes and modification times are. The folder is written under another name
    and renamed; processes that want the same wait for the first one. Left out are recordings that cannot be read, so
    that reading their files will say what is wrong, and those whose parts would not equal the parts of the file (long
    ones in Ogg and MP3).

    Args:
        source: what to decode, at its own ``sample_rate_hz``.
        folder: where to.
        of_channels: keep each channel by itself (impulse responses) instead of their mean.
        limit_bytes: give up if more might be needed.
        progress: show a progress bar, where the output is a terminal.

    Returns:
        The samples; None if they would take more than ``limit_bytes``, or more than the disk has.

    >>> import soundfile
    >>> from robustdistiller.acoustics import AudioSource
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     soundfile.write(f"{folder}/rain.wav", np.arange(8) / 8, 16000, subtype="FLOAT")
    ...     decoded = decode(AudioSource.from_path(f"{folder}/rain.wav"), Path(folder, "decoded"))
    ...     decoded.read(0, None, start=2, num_samples=3).tolist()
    [0.25, 0.375, 0.5]
    """
    channels, needed = [], 0
    for name in source.names:
        channels.append(source.info(name).num_channels if of_channels else 1)
        needed += 4 * channels[-1] * source.num_samples(name)
        if limit_bytes is not None and needed > limit_bytes:
            return None
    folder = Path(folder)
    fingerprint = _fingerprint(source, of_channels)
    with locked(folder.with_name(f".{folder.name}.lock")):
        if _about(folder).get("fingerprint") == fingerprint:
            return DecodedAudio(folder)
        _refuse_others(folder)
        free = shutil.disk_usage(folder.parent).free
        if needed > free // 2:
            logger.warning("not decoded: it may take %.1f GiB, %s has %.1f", needed / 2**30, folder, free / 2**30)
            return None
        logger.info("decoding %d recordings into %s, at most %.2f GiB", len(source), folder, needed / 2**30)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            rows = _write_samples(source, channels, of_channels, temporary, progress)
            np.save(temporary / "rows.npy", rows)
            np.save(temporary / "first_rows.npy", np.cumsum([0, *channels]))
            about = {"version": _VERSION, "fingerprint": fingerprint, "of_channels": of_channels}
            (temporary / "about.json").write_text(json.dumps(about))
            if folder.exists():
                shutil.rmtree(folder)
            temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return DecodedAudio(folder)


def _refuse_others(folder: Path) -> None:
    """Only what was made here, whole or damaged, is replaced."""
    ours = {"about.json", "rows.npy", "first_rows.npy", *map(_file_name, _DTYPES)}
    if folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= ours):
        raise FileExistsError(f"{folder} holds something else than decoded audio; name another folder, or remove it")


def _write_samples(
    source: "AudioSource", channels: list[int], of_channels: bool, folder: Path, progress: bool
) -> np.ndarray:
    wanted = (
        (name, channel if of_channels else None) for name, n in zip(source.names, channels) for channel in range(n)
    )
    rows, written = [], [0] * len(_DTYPES)
    files = [(folder / _file_name(dtype)).open("wb") for dtype in _DTYPES]
    bar = tqdm(total=sum(channels), desc="decoding", unit="rec", disable=None if progress else True)
    try:
        for samples in _decoded(source, wanted):
            bar.update()
            if samples is None:
                rows.append((_ABSENT, 0, 0))
                continue
            scaled = samples * np.float32(_FULL_SCALE)
            exact = (
                np.array_equal(scaled, np.rint(scaled)) and scaled.max() < _FULL_SCALE and scaled.min() >= -_FULL_SCALE
            )
            kind = 0 if exact else 1
            files[kind].write((scaled if exact else samples).astype(_DTYPES[kind]).tobytes())
            rows.append((kind, written[kind], len(samples)))
            written[kind] += len(samples)
    finally:
        bar.close()
        for file in files:
            file.close()
    return np.array(rows, np.int64)


def _decoded(source: "AudioSource", wanted: Iterator[tuple[str, int | None]]) -> Iterator[np.ndarray | None]:
    def read(one: tuple[str, int | None]) -> np.ndarray | None:
        try:
            # Of impulse responses no parts are read.
            whole = one[1] is not None or source.reads_exactly(one[0])
            return source.read(one[0], channel=one[1]) if whole else None
        except (OSError, ValueError):
            return None

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        while some := list(islice(wanted, _AT_ONCE)):
            yield from pool.map(read, some)


def _fingerprint(source: "AudioSource", of_channels: bool) -> str:
    digest = hashlib.sha256(repr((_VERSION, source.sample_rate_hz, of_channels)).encode())
    stats: dict[str, tuple[int, int]] = {}
    for piece in source.pieces:
        file = str(piece.file)
        if file not in stats:
            stat = os.stat(file)  # noqa: PTH116
            stats[file] = (stat.st_size, stat.st_mtime_ns)
        digest.update(repr((piece.name, file, piece.frame_offset, piece.num_frames, *stats[file])).encode())
    return digest.hexdigest()


def _about(folder: Path) -> dict:
    try:
        return json.loads((folder / "about.json").read_text())
    except (OSError, ValueError):
        return {}


def _file_name(dtype: np.dtype) -> str:
    return f"samples.{dtype.name}"


def _open(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype)
