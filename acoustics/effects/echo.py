"""Echo: a delayed, weaker copy, as of a loudspeaker that is heard again or a badly terminated line."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Effect, Parameters, Recordings, number


@dataclass(frozen=True)
class Echo(Effect):
    """One copy of the signal comes again, later and weaker.

    Attributes:
        echo_delay_s: how much later.
        echo_db: level of the copy against the signal.

    >>> parameters = {"echo_delay_s": 2 / 16000, "echo_db": -20.0}
    >>> Echo.apply(np.array([1, 0, 0, 1], np.float32), parameters, Recordings()).round(3).tolist()
    [1.0, 0.0, 0.10000000149011612, 1.0]
    """

    name = "echo"
    keys = ("echo_delay_s", "echo_db")

    echo_delay_s: Any = number(0.001, 5, default=(0.05, 0.3))
    echo_db: Any = number(-80, 0, default=(-20, -6))

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """What would come after the end is cut off."""
        delay = round(parameters["echo_delay_s"] * recordings.sample_rate_hz)
        echoed = wave.copy()
        echoed[delay:] += wave[: max(len(wave) - delay, 0)] * np.float32(10 ** (parameters["echo_db"] / 20))
        return echoed
