"""An effect of your own: the beginning of a recording is missing."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from robustdistiller.acoustics.effects import Recordings
from robustdistiller.acoustics.effects.base import Effect, Parameters, number


@dataclass(frozen=True)
class CutStart(Effect):
    """The beginning of the recording is missing."""

    name = "cut_start"
    keys = ("missing_s",)

    missing_s: Any = number(0, 5, default=(0.05, 0.2))  # noqa: RUF009 - a field

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings):
        silent = round(parameters["missing_s"] * recordings.sample_rate_hz)
        return np.concatenate([np.zeros_like(wave[:silent]), wave[silent:]])


rng, recordings = np.random.default_rng(0), Recordings()
wave = np.ones(16000, np.float32)
drawn = CutStart().draw(rng, len(wave), recordings)
print(f"{drawn['missing_s']:.2f} s are missing: {np.sum(CutStart.apply(wave, drawn, recordings) == 0)} samples")
