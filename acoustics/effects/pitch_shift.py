"""Pitch shift that keeps length and timing: a phase vocoder, then resampling."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from ..levels import rms
from .base import Effect, Parameters, Recordings, number

WINDOW = 640
"""Samples of the analysis window: 40 ms at 16 kHz, so that the harmonics of a low voice are kept apart."""
HOP = WINDOW // 4

MAX_CENTS = 1200

_STEPS = 4096
"""Pitch ratios are multiples of one in so many: every ratio is met within 0.6 cents (0.3 cents at and above unison)."""
_LOCKED_BINS = 2
"""The main lobe of the window reaches so many bins to each side."""
_ZERO_CROSSINGS = 16
"""Of the resampling kernel, on each side."""
_ROLL_OFF = 0.95
"""Pass band of the resampling kernel, as a share of the lower of the two Nyquist frequencies."""


@dataclass(frozen=True)
class PitchShift(Effect):
    """Higher or lower, formants and all; length, timing and root mean square stay.

    Attributes:
        pitch_cents: 100 are a semitone; whole cents are drawn, and met within 0.6.

    >>> PitchShift().draw(np.random.default_rng(0), 16000, Recordings())["pitch_cents"]
    -500.0
    """

    name = "pitch_shift"
    keys = ("pitch_cents",)

    pitch_cents: Any = number(-MAX_CENTS, MAX_CENTS, default=(-500, 500), whole=True)

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """See `pitch_shift`."""
        return pitch_shift(wave, parameters["pitch_cents"])


def pitch_shift(signal: np.ndarray, cents: float) -> np.ndarray:
    """Shifts the pitch of a signal; length, timing and root mean square stay.

    The waveform is stretched in time by a phase vocoder (Flanagan & Golden 1966) and resampled back to its length with
    a Hann-windowed sinc. The vocoder interpolates magnitudes between frames, advances phases by the measured phase
    difference, and turns the bins of a lobe together, so that onsets stay sharp (the phase locking of Laroche & Dolson
    1999, without picking peaks). Formants move with the pitch, as they do in SoX's ``pitch``. In a shift up, what would
    land above half the sampling rate is lost; a shift down leaves the top of the spectrum empty.

    15 s take about 0.1 s. (``torchaudio.functional.pitch_shift`` was no choice: its resampler builds a kernel for each
    ratio, measured at 20 s and 5 GB for a shift by one semitone.)

    Args:
        signal: (samples,) float32. Not changed.
        cents: -1200 to 1200; 100 are a semitone. Met within 0.6.

    Returns:
        (samples,) float32.

    Raises:
        ValueError: cents out of range.

    >>> tone = np.sin(np.arange(16000, dtype=np.float32) * np.float32(2 * np.pi * 220 / 16000))
    >>> octave_up = pitch_shift(tone, 1200)
    >>> octave_up.shape, int(np.abs(np.fft.rfft(octave_up)).argmax())
    ((16000,), 440)
    """
    if not -MAX_CENTS <= cents <= MAX_CENTS:
        raise ValueError(f"a pitch shift must be between -{MAX_CENTS} and {MAX_CENTS} cents, found {cents!r}")
    up, down = _ratio(cents)
    length = len(signal)
    if up == down or not length:
        return signal.copy()
    stretched_length = -(-length * up // down)
    # Frame t is centred at t * HOP; frame t of the result is looked up at t * down / up.
    position = np.arange(-(-stretched_length // HOP) + 2) * down
    first, fraction = position // up, ((position % up) / up)[:, None]
    padded = np.zeros((first[-1] + 1) * HOP + WINDOW)
    padded[WINDOW // 2 :][:length] = signal
    window = scipy.signal.get_window("hann", WINDOW)
    spectra = scipy.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * window)
    magnitude = np.sqrt(np.square(spectra.real) + np.square(spectra.imag))
    phasor = np.where(magnitude > 0, spectra / np.where(magnitude > 0, magnitude, 1.0), 1.0)
    # The hop is the same before and after, so that no phase has to be unwrapped: what a frame of the result is turned
    # by, against the frame it is looked up at, is a product of phasors.
    turn = np.ones((len(first), spectra.shape[1]), spectra.dtype)
    turn[1:] = phasor[first[:-1] + 1] * phasor[first[1:]].conj()
    turn = _locked(np.cumprod(turn, axis=0) * np.square(magnitude[first]))
    magnitude = (1 - fraction) * magnitude[first] + fraction * magnitude[first + 1]
    frames = scipy.fft.irfft(magnitude * phasor[first] * turn, WINDOW) * window
    stretched = _overlap_add(frames)[WINDOW // 2 :][:stretched_length]
    weights = _overlap_add(np.tile(np.square(window), (len(frames), 1)))
    stretched /= weights[WINDOW // 2 :][:stretched_length]
    bandwidth, half_width = _kernel_shape(up, down)
    taps = math.ceil(half_width * down)
    kernel = _windowed_sinc(np.arange(-taps, taps + 1) / down, bandwidth, half_width)
    shifted = scipy.signal.resample_poly(stretched, down, up, window=kernel / down)[:length]
    return (shifted * (rms(signal) / (rms(shifted) or 1.0))).astype(np.float32)


def _ratio(cents: float) -> tuple[int, int]:
    up = round(_STEPS * 2 ** (cents / 1200))
    divisor = math.gcd(up, _STEPS)
    return up // divisor, _STEPS // divisor


def _kernel_shape(up: int, down: int) -> tuple[float, float]:
    """Bandwidth (1 is the Nyquist frequency before resampling) and half width in samples of the kernel."""
    bandwidth = _ROLL_OFF * min(1.0, down / up)
    return bandwidth, _ZERO_CROSSINGS / bandwidth


def _windowed_sinc(distance: np.ndarray, bandwidth: float, half_width: float) -> np.ndarray:
    weight = bandwidth * np.sinc(bandwidth * distance) * np.cos(np.pi / 2 * distance / half_width) ** 2
    return np.where(np.abs(distance) <= half_width, weight, 0.0)


def _locked(turn: np.ndarray) -> np.ndarray:
    """Unit phasors (frames, bins), each the direction of the sum of ``turn`` over ``_LOCKED_BINS`` on each side.

    The phases of neighbouring bins drift apart where there is little energy. Bins around a strong one have to be turned
    as it is, or else they cancel it when a sound sets in.
    """
    total, bins = turn.copy(), turn.shape[1]
    for shift in range(1, _LOCKED_BINS + 1):
        total[:, shift:] += turn[:, : bins - shift]
        total[:, : bins - shift] += turn[:, shift:]
    size = np.sqrt(np.square(total.real) + np.square(total.imag))
    return np.where(size > 0, total / np.where(size > 0, size, 1.0), 1.0)


def _overlap_add(frames: np.ndarray) -> np.ndarray:
    """(frames, WINDOW), each HOP samples after the one before, as one signal."""
    blocks = np.zeros((len(frames) + WINDOW // HOP - 1, HOP))
    for part in range(WINDOW // HOP):
        blocks[part : part + len(frames)] += frames[:, part * HOP : (part + 1) * HOP]
    return blocks.reshape(-1)
