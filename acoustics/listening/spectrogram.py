"""Spectrograms as small images."""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib
import numpy as np
from PIL import Image

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.page.render import data_uri

#: FFT size, hop and window (Hann) in samples.
STFT = (512, 160, 400)
RANGE_DB = 70.0

_WIDTH, _ROWS = 800, 128  # most columns, and rows of an image
_COLOURS = 64


@dataclass(frozen=True)
class Spectrogram:
    """An image from 0 to 8 kHz, low frequencies at the bottom, and where its seconds are.

    Attributes:
        image: address that holds it, a PNG.
        ticks: of the time axis: the place from 0 to 1 and the number of seconds.
    """

    image: str
    ticks: tuple[tuple[float, str], ...]


def magnitudes(waveform: np.ndarray) -> np.ndarray:
    """The magnitude spectrum of (samples,) at 16 kHz: (spectra, 257), one spectrum each 10 ms.

    >>> magnitudes(np.zeros(16000, np.float32)).shape
    (101, 257)
    """
    size, hop, window = STFT
    padded = np.pad(waveform, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    return np.abs(np.fft.rfft(frames * np.hanning(window + 1)[:-1], size))


def draw_spectrogram(magnitude: np.ndarray, loudest: float) -> Spectrogram:
    """A magnitude spectrum as an image, from 70 dB below `loudest` (dark) to `loudest` (bright).

    Args:
        magnitude: (spectra, 257), one spectrum each 10 ms.
        loudest: the magnitude that is 0 dB; 0 makes everything dark.
    """
    # Means of neighbours in power: of time where there are more spectra than an image has columns, and of frequencies.
    power = magnitude[:, 1:].astype(np.float64) ** 2
    step = -(-len(power) // _WIDTH)
    starts = np.arange(0, len(power), step)
    power = np.add.reduceat(power, starts) / np.diff(starts, append=len(power))[:, None]
    power = power.reshape(len(power), _ROWS, -1).mean(-1)
    level_db = 10 * np.log10(np.maximum(power, 1e-30) / max(loudest, 1e-15) ** 2)
    index = np.clip((level_db / RANGE_DB + 1) * (_COLOURS - 1), 0, _COLOURS - 1).round().astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(index.T[::-1]), "P")
    palette = matplotlib.colormaps["magma"](np.linspace(0, 1, _COLOURS), bytes=True)[:, :3]
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return Spectrogram(data_uri(file.getvalue(), "image/png"), _ticks(len(magnitude) * STFT[1] / SAMPLE_RATE_HZ))


def _ticks(duration_s: float) -> tuple[tuple[float, str], ...]:
    step_s = next((one for one in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0) if duration_s / one <= 6), 60.0)
    return tuple((i * step_s / duration_s, f"{i * step_s:g}") for i in range(int(duration_s / step_s) + 1))
