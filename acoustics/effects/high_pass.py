"""High-pass: a small loudspeaker, or a microphone that cuts off rumble and more."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .base import Effect, Parameters, Recordings, number
from .filtering import convolved, linear_phase
from .low_pass import TRANSITION_HZ


@dataclass(frozen=True)
class HighPass(Effect):
    """A linear-phase filter: -6 dB at the cut-off, nothing changed 100 Hz above, 60 dB less 100 Hz below.

    Attributes:
        low_cutoff_hz: where half of the amplitude is left.

    >>> wave = np.sin(2 * np.pi * 200 * np.arange(16000, dtype=np.float32) / 16000)
    >>> bool(np.abs(HighPass.apply(wave, {"low_cutoff_hz": 500.0}, Recordings())[1000:-1000]).max() < 1e-3)
    True
    """

    name = "high_pass"
    keys = ("low_cutoff_hz",)

    low_cutoff_hz: Any = number(100, 24000, default=(200, 1000))

    def check_sample_rate(self, sample_rate_hz: int) -> None:
        """Something is left."""
        if self.low_cutoff_hz.high >= sample_rate_hz / 2:
            raise ValueError(f"low_cutoff_hz must be below {sample_rate_hz / 2:g}, found {self.low_cutoff_hz.high:g}")

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The middle tap of the filter acts at lag 0."""
        response = _filter(parameters["low_cutoff_hz"], recordings.sample_rate_hz)
        return convolved(wave, response, len(response) // 2)


@lru_cache(maxsize=64)
def _filter(cutoff_hz: float, sample_rate_hz: int) -> np.ndarray:
    return linear_phase([cutoff_hz], False, TRANSITION_HZ, sample_rate_hz)
