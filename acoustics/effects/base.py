"""What an effect is: options that a condition or a policy sets, a draw, and what it does to a waveform."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from robustdistiller.common.audio import SAMPLE_RATE_HZ

from ..levels import LEVELS, level_of

if TYPE_CHECKING:
    from ..audio.sources import AudioSource
    from ..rooms import RIRSource

Parameters = Mapping[str, Any]
"""What was drawn: everything that `Effect.apply` needs beside the recordings, as JSON holds it."""

_UNITS = {"db": " dB", "hz": " Hz", "s": " s", "kbps": " kbit/s", "cents": " cents", "mel": " mel"}


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included; one number where they are the same.

    >>> str(Range(10.0, 20.0)), str(Range(-2.5, -2.5)), Range.parse("0.4..0.8").high
    ('10..20', '-2.5', 0.8)
    """

    low: float
    high: float

    @classmethod
    def parse(cls, text: str) -> Range:
        """Reads ``5`` or ``5..10``; ValueError for what is no number."""
        low, separator, high = text.partition("..")
        return cls(float(low), float(high if separator else low))

    @property
    def is_single(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high

    def __str__(self) -> str:
        return "..".join(_number(end) for end in dict.fromkeys((self.low, self.high)))


def number(low: float, high: float, default: Any = None, whole: bool = False, drawn: bool = True) -> Any:
    """An option that is a number, or a range of which one number is drawn for each utterance.

    Args:
        low, high: smallest and largest value allowed.
        default: a number or ``(lowest, highest)``; None leaves the option unset.
        whole: of a range, whole numbers are drawn.
        drawn: whether numbers are drawn at all; otherwise the effect looks at the range itself.
    """
    ends = default if isinstance(default, tuple) else (default, default)
    value = None if default is None else Range(*map(float, ends))
    return dataclasses.field(default=value, metadata={"limits": (low, high), "whole": whole, "drawn": drawn})


def choice(*values: str, default: str | None = None) -> Any:
    """An option that is one of several words."""
    return dataclasses.field(default=default, metadata={"choices": values})


@dataclass(frozen=True)
class Recordings:
    """What effects draw from, all at one sampling rate; None where there is none.

    Attributes:
        noise: recordings of noise.
        rir: room impulse responses.
        speech: voices for babble and for interfering talkers.
        music: recordings of music.
        sample_rate_hz: of these and of the waveforms.

    >>> Recordings().sample_rate_hz
    16000
    """

    noise: AudioSource | None = None
    rir: RIRSource | None = None
    speech: AudioSource | None = None
    music: AudioSource | None = None
    sample_rate_hz: int = SAMPLE_RATE_HZ


class Effect:
    """One thing that happens to speech on its way from the mouth to the model.

    A subclass is a frozen dataclass in a file of its own, listed in `effects.EFFECTS`. Its fields are the options that
    conditions and policies set (see `number` and `choice`; a plain ``str | None`` is a path or a name). It says what
    `draw` gives in `keys`.
    """

    name: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]  # of what `draw` gives; must be given, except those that end in "?"
    stream: ClassVar[str]  # names the random numbers; the name of the effect unless it says otherwise

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__dict__.get("stream") or setattr(cls, "stream", cls.__dict__.get("name", ""))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check(field, getattr(self, field.name))

    def needs(self) -> tuple[str, ...]:
        """The kinds of recordings that it draws from: attributes of `Recordings`."""
        return ()

    def check_sample_rate(self, sample_rate_hz: int) -> None:
        """Raises ValueError where an option does not go with the sampling rate."""

    def settled(self, rng: np.random.Generator) -> Effect:
        """The effect with a number drawn for each range."""
        drawn = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Range) and field.metadata["drawn"] and not value.is_single:
                if field.metadata["whole"]:
                    one = float(rng.integers(int(value.low), int(value.high), endpoint=True))
                else:
                    one = float(f"{rng.uniform(value.low, value.high):.4g}")  # for records that can be read
                drawn[field.name] = Range(one, one)
        return dataclasses.replace(self, **drawn) if drawn else self

    def draw(self, rng: np.random.Generator, num_samples: int, recordings: Recordings) -> dict[str, Any]:
        """What happens to one utterance; of an effect without recordings, its settled options.

        Args:
            rng: private to the utterance and to `stream`.
            num_samples: length of the utterance.
            recordings: what may be drawn from.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {key: value.low if isinstance(value, Range) else value for key, value in values.items()}
        return {key: value for key, value in plain.items() if value is not None}

    @staticmethod
    def recordings(parameters: Parameters) -> list[tuple[str, str]]:
        """Kind and name of every recording that was drawn."""
        return []

    @staticmethod
    def apply(wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The utterance after the effect.

        Args:
            wave: (samples,) float32, finite, at least one sample. It is not changed.
            parameters: what `draw` gave.
            recordings: what it was drawn from.

        Returns:
            (samples,) float32, as long and at the same places in time.
        """
        raise NotImplementedError

    def title(self) -> str:
        """Short human form, without options that are as usual."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        said = (spoken(key, value) for key, value in self.given() if value != usual[key])
        return " ".join([self.name.replace("_", " "), *said])

    def given(self) -> list[tuple[str, Any]]:
        """The options that are set."""
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return [(field.name, value) for field, value in values if value is not None]

    def _check(self, field: dataclasses.Field, value: Any) -> None:
        if value is None:
            return
        if "limits" in field.metadata:
            low, high = field.metadata["limits"]
            if not isinstance(value, Range):
                raise ValueError(f"{field.name} must be a number or a range as in 10..20, found {value!r}")
            for end in (value.low, value.high):
                if not math.isfinite(end) or not low <= end <= high:
                    raise ValueError(f"{field.name} must be between {low:g} and {high:g}, found {end:g}")
            if value.low > value.high:
                raise ValueError(f"{field.name} must rise from its lower to its upper end as in 10..20, found {value}")
            whole = value.low.is_integer() and value.high.is_integer()
            if field.metadata["whole"] and not value.is_single and not whole:
                raise ValueError(f"the ends of a range of {field.name} must be whole numbers, found {value}")
        elif "choices" in field.metadata:
            if value not in field.metadata["choices"]:
                raise ValueError(f"{field.name} must be one of {', '.join(field.metadata['choices'])}, found {value!r}")
        elif not isinstance(value, str) or not value or '"' in value:
            raise ValueError(f"{field.name} must be a path or a name without double quotes, found {value!r}")


class Sound(Effect):
    """An effect that adds something that sounds to the speech, at a ratio of their levels.

    Several sounds are each set against the speech alone.
    """

    @classmethod
    def sound(cls, speech: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """What is added to `speech`: (samples,) float32, scaled."""
        raise NotImplementedError

    @classmethod
    def apply(cls, wave: np.ndarray, parameters: Parameters, recordings: Recordings) -> np.ndarray:
        """The speech with the sound."""
        return wave + cls.sound(wave, parameters, recordings)


def speech_level() -> Any:
    """The option of what ratios to speech are over: ``rms`` counts pauses, ``active`` (ITU-T P.56) does not."""
    return choice(*LEVELS)


def scaled(
    sound: np.ndarray, sound_rms: float, ratio_db: float, speech: np.ndarray, parameters: Parameters, rate_hz: int
) -> np.ndarray:
    """A sound whose level lies `ratio_db` below that of the speech."""
    gain = level_of(speech, parameters.get("speech_level", "rms"), rate_hz) * 10 ** (-ratio_db / 20)
    return sound / np.float32(sound_rms or 1.0) * np.float32(gain)


def spoken(key: str, value: Any) -> str:
    """An option with its unit, as in ``10 to 20 dB``.

    >>> spoken("gain_db", Range(10, 20)), spoken("clipped_share", Range(0.05, 0.05)), spoken("codec", "mp3")
    ('10 to 20 dB', '5 %', 'mp3')
    """
    if not isinstance(value, Range):
        return str(value)
    unit = key.rpartition("_")[2]
    factor, sign = (100, " %") if unit == "share" else (1, _UNITS.get(unit) or f" {key.replace('_', ' ')}")
    return " to ".join(f"{factor * end:g}" for end in dict.fromkeys((value.low, value.high))) + sign


def upper_key(key: str) -> str:
    """Name of the upper end of a range where records name both ends.

    >>> upper_key("snr_db"), upper_key("talkers")
    ('snr_max_db', 'talkers_max')
    """
    return re.sub(r"_([a-z]+)$", r"_max_\1", key) if "_" in key else f"{key}_max"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
