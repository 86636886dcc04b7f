"""Music in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..levels import rms
from .base import Parameters, Recordings, Sound, number, scaled, speech_level
from .noise import part_of


@dataclass(frozen=True)
class Music(Sound):
    """A piece of music at a ratio of the speech to it; apart from noise, so that both can be had at once.

    Attributes:
        music_snr_db: ratio of the speech to the music in dB; of a range, whole numbers are drawn.
        music: path of music; None takes the music given.
        speech_level: ``rms`` or ``active``, as of noise.

    >>> Music(music="musan").needs()
    ('music',)
    """

    name = "music"
    keys = ("music_snr_db", "music", "speech_level?")

    music_snr_db: Any = number(-40, 100, default=(5, 15), whole=True)
    music: str | None = None
    speech_level: str | None = speech_level()

    def needs(self) -> tuple[str, ...]:
        """Music."""
        return ("music",)

    def draw(self, rng: np.random.Generator, num_samples: int, recordings: Recordings) -> dict[str, Any]:
        """A recording and where in it the part begins."""
        names, starts = recordings.music.draw(rng, num_samples)
        level = {"speech_level": self.speech_level} if self.speech_level else {}
        return {"music_snr_db": self.music_snr_db.low, "music": {"name": names[0], "start": starts[0]}, **level}

    @staticmethod
    def recordings(parameters: Parameters) -> list[tuple[str, str]]:
        """One piece of music."""
        return [("music", parameters["music"]["name"])]

    @classmethod
    def sound(cls, speech: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The music at its level."""
        music = part_of(recordings.music, parameters["music"]["name"], parameters["music"]["start"], len(speech))
        return scaled(music, rms(music), parameters["music_snr_db"], speech, parameters, recordings.sample_rate_hz)
