"""Reverberation by measured or simulated room impulse responses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from ..levels import rms
from ..responses import with_drr
from .base import Effect, Parameters, Recordings, choice, number, spoken
from .filtering import convolved

LEVELS = ("rms", "direct", "file")


@dataclass(frozen=True)
class Reverb(Effect):
    """Convolution with a response whose direct path acts at lag 0; the result is cut to its own length.

    Attributes:
        rt60_s: reverberation time in seconds; rooms measured within 15 % of it are used. Of a range, the rooms measured
            in it. None uses every room.
        drr_db: direct-to-reverberant ratio; the direct path is made stronger or weaker until the ratio is met (as Bryan
            2020, arXiv 1909.03642, does). None leaves it as it is.
        rir: path of room impulse responses; None takes those given.
        reverb_level: ``rms`` (scaled to the root mean square of the dry speech, so that loudness tells nothing; the
            usual), ``direct`` (the direct sound keeps the level of the dry speech, reflections come on top) or
            ``file`` (the level that the response has in its file).

    >>> Reverb(rir="rooms").needs()
    ('rir',)
    """

    name = "reverb"
    stream = "rir"
    keys = ("rir",)

    rt60_s: Any = number(0.05, 10, drawn=False)
    drr_db: Any = number(-40, 60)
    rir: str | None = None
    reverb_level: str | None = choice(*LEVELS)

    def needs(self) -> tuple[str, ...]:
        """Rooms."""
        return ("rir",)

    def draw(self, rng: np.random.Generator, num_samples: int, recordings: Recordings) -> dict[str, Any]:
        """A response and its channel."""
        rt60_s = self.rt60_s
        wanted = (rt60_s.low, None if rt60_s.is_single else rt60_s.high) if rt60_s else ()
        name, channel = recordings.rir.pick(rng, *wanted)
        drr = {"drr_db": self.drr_db.low} if self.drr_db else {}
        return {"rir": {"name": name, "channel": channel, "level": self.reverb_level or "rms", **drr}}

    @staticmethod
    def recordings(parameters: Parameters) -> list[tuple[str, str]]:
        """One response."""
        return [("rir", parameters["rir"]["name"])]

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """See the class."""
        rir, rirs = parameters["rir"], recordings.rir
        if rirs is None:
            raise ValueError(f"parameters name the impulse response {rir['name']!r}, no rir source was given")
        response = rirs.read(rir["name"], rir["channel"])
        if "drr_db" in rir:
            response = with_drr(response, rirs.lead, rir["drr_db"])
        if rir["level"] != "file":
            response = response / rirs.direct_gain(rir["name"], response)
        wet = convolved(wave, response, rirs.lead)
        return wet * np.float32(rms(wave) / (rms(wet) or 1.0)) if rir["level"] == "rms" else wet

    def title(self) -> str:
        """As in ``reverb 0.4 to 0.8 s``."""
        numbers = [spoken(key, value) for key, value in (("rt60_s", self.rt60_s), ("drr_db", self.drr_db)) if value]
        level = f"({self.reverb_level} level)" if self.reverb_level else ""
        return " ".join(filter(None, ("reverb", PurePath(self.rir or "").name, *numbers, level)))
