"""Gain: louder or quieter, and nothing else."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Effect, Parameters, Recordings, number


@dataclass(frozen=True)
class Gain(Effect):
    """All samples times one number; nothing is clipped.

    Attributes:
        gain_db: of the amplitude.

    >>> Gain.apply(np.array([0.5, -1.0], np.float32), {"gain_db": 20.0}, Recordings()).tolist()
    [5.0, -10.0]
    """

    name = "gain"
    keys = ("gain_db",)

    gain_db: Any = number(-80, 80, default=(-20, 20))

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """See the class."""
        return wave * np.float32(10 ** (parameters["gain_db"] / 20))
