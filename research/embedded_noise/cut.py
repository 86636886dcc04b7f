"""Pieces of recordings: read, joined, filtered, set to one level, and measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustdistiller.acoustics.audio.files import read_audio
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.mini.pack import Row

JOIN_S = 0.25
LOWEST_HZ = 60.0
"""What lies below is taken out: in some of the recordings it is most of the power, and would count in an SNR."""
LEVEL = 0.05
PEAK = 0.9


def find_recording(package: Path, file: str) -> Path:
    """The one recording in an unpacked package whose path ends in `file`.

    Raises:
        FileNotFoundError: there is none, or more than one.
    """
    found = [path for path in sorted(package.rglob(Path(file).name)) if path.as_posix().endswith(f"/{file}")]
    if len(found) != 1:
        raise FileNotFoundError(f"{len(found)} recordings in {package} are called {file}, expected one; see fetch.sh")
    return found[0]


def cut(packages: Path, parts: Sequence[Row]) -> np.ndarray:
    """One piece: parts of recordings joined with crossfades, without what is below `LOWEST_HZ`, at one level.

    Args:
        packages: folder of unpacked packages.
        parts: rows of `pieces.tsv` that have the piece's name.

    Returns:
        (samples,) float32: RMS of `LEVEL`, or less where the peak would be above `PEAK`.

    Raises:
        FileNotFoundError: a recording is missing.
        ValueError: a recording is shorter than the table says.
    """
    piece = np.zeros(0, np.float32)
    for part in parts:
        path = find_recording(packages / part["package"], part["file"])
        start, length = (round(float(part[key]) * SAMPLE_RATE_HZ) for key in ("start_s", "length_s"))
        samples = read_audio(path)[start : start + length]
        if len(samples) < length:
            raise ValueError(f"{path} ends before {part['start_s']} s + {part['length_s']} s")
        samples = without_rumble(samples)
        piece = joined(piece, samples * np.float32(LEVEL / np.sqrt(np.mean(samples**2)))) if len(piece) else samples
        piece *= np.float32(LEVEL / np.sqrt(np.mean(piece**2)))
    return piece * np.float32(min(1.0, PEAK / np.abs(piece).max()))


def without_rumble(samples: np.ndarray) -> np.ndarray:
    """Takes out what is below `LOWEST_HZ`, by a filter of zero phase that is flat above.

    >>> float(abs(without_rumble(np.ones(1600, np.float32))).max())
    0.0
    """
    spectrum = np.fft.rfft(samples)
    hz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ)
    gain = np.sin(np.pi / 2 * np.clip(2 * hz / LOWEST_HZ - 1, 0, 1)) ** 2
    return np.fft.irfft(spectrum * gain, len(samples)).astype(np.float32)


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two recordings, one after the other, with a crossfade of constant power and `JOIN_S`.

    >>> joined(np.ones(8000, np.float32), np.ones(8000, np.float32)).shape
    (12000,)
    """
    length = round(JOIN_S * SAMPLE_RATE_HZ)
    phase = np.linspace(0, np.pi / 2, length, dtype=np.float32)
    middle = first[-length:] * np.cos(phase) + second[:length] * np.sin(phase)
    return np.concatenate([first[:-length], middle, second[length:]])


def measures(samples: np.ndarray) -> dict[str, float]:
    """What tells continuous noise from clicks and silence.

    Returns:
        `p5_db` and `p95_db`, percentiles of the level of 100 ms against that of the whole; `quiet`, the share of 100 ms
        that are more than 20 dB below it; `crest_db`; `centroid_hz` of the power spectrum.

    >>> measures(np.sin(np.arange(16000) / 8).astype(np.float32))["crest_db"]
    3.0
    """
    tenths = samples[: len(samples) // 1600 * 1600].reshape(-1, 1600)
    rms_db = 10 * np.log10(np.mean(samples**2))
    levels_db = 10 * np.log10(np.mean(tenths**2, axis=1) + 1e-12) - rms_db
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE_HZ)
    return {
        "p5_db": round(float(np.percentile(levels_db, 5)), 1),
        "p95_db": round(float(np.percentile(levels_db, 95)), 1),
        "quiet": round(float(np.mean(levels_db < -20)), 3),
        "crest_db": round(float(20 * np.log10(np.abs(samples).max()) - rms_db), 1),
        "centroid_hz": round(float((power * hz).sum() / power.sum())),
    }
