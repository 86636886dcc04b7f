"""An interfering talker: somebody else speaks during a part of the utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..levels import rms
from .base import Parameters, Recordings, Sound, number, scaled, speech_level
from .noise import part_of


@dataclass(frozen=True)
class Talker(Sound):
    """Another voice overlaps a part of the utterance, as in the utterance mixing of WavLM (Chen et al. 2022).

    There, the overlap is up to half of the utterance, anywhere in it, at a ratio of -5 to 5 dB; these are the defaults.
    The ratio is that of the level of the utterance to the level of the other voice where it is heard.

    Attributes:
        sir_db: signal-to-interference ratio in dB.
        overlap_share: of the utterance.
        speech: path of the other voices; None takes the speech given.
        speech_level: ``rms`` or ``active``, as of noise.

    >>> Talker().needs()
    ('speech',)
    """

    name = "talker"
    keys = ("sir_db", "talker", "speech_level?")

    sir_db: Any = number(-40, 100, default=(-5, 5))
    overlap_share: Any = number(0.01, 1, default=(0.1, 0.5))
    speech: str | None = None
    speech_level: str | None = speech_level()

    def needs(self) -> tuple[str, ...]:
        """Voices."""
        return ("speech",)

    def draw(self, rng: np.random.Generator, num_samples: int, recordings: Recordings) -> dict[str, Any]:
        """A recording, where in it and where in the utterance the overlap begins, and how long it is."""
        length = max(round(num_samples * self.overlap_share.low), 1)
        begin = int(rng.integers(num_samples - length + 1))
        names, starts = recordings.speech.draw(rng, length)
        talker = {"name": names[0], "start": starts[0], "begin": begin, "num_samples": length}
        level = {"speech_level": self.speech_level} if self.speech_level else {}
        return {"sir_db": self.sir_db.low, "talker": talker, **level}

    @staticmethod
    def recordings(parameters: Parameters) -> list[tuple[str, str]]:
        """One voice."""
        return [("speech", parameters["talker"]["name"])]

    @classmethod
    def sound(cls, speech: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The other voice at its level, silence around it."""
        talker, heard = parameters["talker"], np.zeros(len(speech), np.float32)
        length = min(talker["num_samples"], len(speech) - talker["begin"])
        voice = part_of(recordings.speech, talker["name"], talker["start"], length)
        rate_hz = recordings.sample_rate_hz
        voice = scaled(voice, rms(voice), parameters["sir_db"], speech, parameters, rate_hz)
        heard[talker["begin"] :][:length] = voice
        return heard
