"""Resampling: the speech once went through a lower sampling rate."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Effect, Parameters, Recordings, number


@dataclass(frozen=True)
class Resampling(Effect):
    """Down to a lower rate and back (soxr): nothing is left above half of that rate.

    Attributes:
        rate_hz: the lower rate; whole numbers are drawn. One that is not lower changes nothing.

    >>> Resampling.apply(np.ones(1001, np.float32), {"rate_hz": 8000.0}, Recordings()).shape
    (1001,)
    """

    name = "resampling"
    keys = ("rate_hz",)

    rate_hz: Any = number(1000, 48000, default=8000, whole=True)

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """soxr delays nothing; what it gives is cut to the length of the wave."""
        from ..audio.files import resample  # records of this effect are read where there is no audio

        rate_hz, sample_rate_hz = int(parameters["rate_hz"]), recordings.sample_rate_hz
        if rate_hz >= sample_rate_hz:
            return wave
        return resample(resample(wave, sample_rate_hz, rate_hz), rate_hz, sample_rate_hz)[: len(wave)]
