"""Low-pass: a microphone or a line without treble."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .base import Effect, Parameters, Recordings, number
from .filtering import convolved, linear_phase

TRANSITION_HZ = 200.0


@dataclass(frozen=True)
class LowPass(Effect):
    """A linear-phase filter: -6 dB at the cut-off, nothing changed 100 Hz below, 60 dB less 100 Hz above.

    Attributes:
        cutoff_hz: where half of the amplitude is left; at half the sampling rate or above nothing is changed.

    >>> wave = np.sin(2 * np.pi * 3000 * np.arange(16000, dtype=np.float32) / 16000)
    >>> bool(np.abs(LowPass.apply(wave, {"cutoff_hz": 2000.0}, Recordings())[1000:-1000]).max() < 1e-3)
    True
    """

    name = "low_pass"
    keys = ("cutoff_hz",)

    cutoff_hz: Any = number(200, 24000, default=(1000, 4000))

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The middle tap of the filter acts at lag 0."""
        if parameters["cutoff_hz"] >= recordings.sample_rate_hz / 2:
            return wave
        response = _filter(parameters["cutoff_hz"], recordings.sample_rate_hz)
        return convolved(wave, response, len(response) // 2)


@lru_cache(maxsize=64)
def _filter(cutoff_hz: float, sample_rate_hz: int) -> np.ndarray:
    return linear_phase([cutoff_hz], True, TRANSITION_HZ, sample_rate_hz)
