"""Clipping: an amplifier or a converter that was turned up too far."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Effect, Parameters, Recordings, number


@dataclass(frozen=True)
class Clipping(Effect):
    """The loudest samples are cut off at the level that the given share of the samples exceeds.

    Attributes:
        clipped_share: of the samples that are not zero, so that something is left where much is silent.

    >>> Clipping.apply(np.array([0.1, -0.8, 0.3, 0.9], np.float32), {"clipped_share": 0.5}, Recordings()).round(2)
    array([ 0.1, -0.3,  0.3,  0.3], dtype=float32)
    """

    name = "clipping"
    keys = ("clipped_share",)

    clipped_share: Any = number(0, 0.9, default=(0.01, 0.2))

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The limit is the loudest sample that is not clipped."""
        magnitude = np.abs(wave[wave != 0])
        if not len(magnitude):
            return wave
        first_kept = len(magnitude) - 1 - int(len(magnitude) * parameters["clipped_share"])
        limit = np.partition(magnitude, first_kept)[first_kept]
        return np.clip(wave, -limit, limit)
