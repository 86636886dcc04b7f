"""A condition, written on one line: ``noise+reverb:snr_db=10,rt60_s=0.6``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from robustdistiller.common.names import did_you_mean, refuse_unknown

from .effects import EFFECTS, Effect, Range, in_order, joined
from .effects.base import upper_key

SOURCES = ("noise", "rir", "speech", "music")
_SIDES = ("test",)
_FIRST = ("snr_db", "rt60_s")  # of the options of a condition, as records have always named it
# What is a name rather than a path: it means the same on every machine.
_NAME = re.compile(r"[A-Za-z0-9_-]+")
# key, '=', then a value in double quotes or up to the next comma
_OPTION = re.compile(r'\s*([^=,]*?)\s*=\s*("[^"]*"|[^",]*)\s*(,|$)')


@dataclass(frozen=True, init=False)
class Condition:
    """What is done to audio: nothing, one effect, or several in a row.

    Effects may be written in any order; they act in the order in which sound travels (that of `effects.EFFECTS`): the
    voice and its room, other sounds, the microphone, the line. So in ``noise+reverb`` the speech is reverberated first
    and the noise is then added as it is: the ratio of the *reverberant* speech to the noise is ``snr_db``. (A noise
    recording brings its own room.) What comes later, such as a codec, distorts the noise too. ``noise_added=first``
    adds the noise before everything else.

    Args:
        kind: ``clean``, or effects joined by ``+``.
        options: of the effects, see their classes: numbers, ``Range``, ``(lowest, highest)``, or text as on the line.
            A number may be a range, ``snr_db=10..20``, of which one is drawn for every utterance. ``side="test"``
            corrupts only the test side of the trials of a task that compares two recordings (speaker verification).

    Attributes:
        kind: effects joined by ``+``, those that add sound first.
        options: those that are set, in canonical order.

    Raises:
        ValueError: unknown effect or option (the nearest known one is named), a value out of range or of another type.

    >>> condition = Condition.parse("reverb+noise:rt60_s=0.6, snr_db=10..20")
    >>> str(condition), condition["snr_db"].high
    ('noise+reverb:snr_db=10..20,rt60_s=0.6', 20.0)
    >>> str(Condition("codec", codec="opus", bitrate_kbps=12))
    'codec:codec=opus,bitrate_kbps=12'
    >>> Condition.parse("noise:snr=5")
    Traceback (most recent call last):
    ValueError: unknown key 'snr' in condition 'noise'; did you mean 'snr_db'?
    """

    kind: str
    options: tuple[tuple[str, Any], ...]

    def __init__(self, kind: str = "clean", **options: Any):
        names = kind.split("+")
        if kind != "clean" and "clean" in names:
            raise ValueError(f"condition {kind!r} joins clean to effects; clean stands alone")
        unknown = [name for name in names if name not in EFFECTS and kind != "clean"]
        if unknown:
            raise ValueError(f"unknown condition {unknown[0]!r}{did_you_mean(unknown[0], ['clean', *EFFECTS])}")
        if len(set(names)) < len(names):
            raise ValueError(f"condition {kind!r} names an effect twice")
        set_ = object.__setattr__
        set_(self, "kind", joined(set(names) & set(EFFECTS)))
        given = {key: value for key, value in options.items() if value is not None}
        known = [*dict.fromkeys(key for name in self._written() for key in _fields(name))]
        refuse_unknown(given, [*known, "side"] if known or kind != "clean" else [], "key", f"condition {self.kind!r}")
        if given.get("side", "test") not in _SIDES:
            raise ValueError(f"side must be {' or '.join(_SIDES)}, found {given['side']!r}")
        ordered = sorted((*known, "side"), key=lambda key: key not in _FIRST)
        values = {key: _value(key, given[key]) for key in ordered if key in given}
        set_(self, "options", tuple(values.items()))
        self.effects  # noqa: B018  checks the options

    @cached_property
    def effects(self) -> dict[str, Effect]:
        """The effects in the order in which they act."""
        options = dict(self.options)
        return {
            name: EFFECTS[name](**{key: options[key] for key in _fields(name) if key in options})
            for name in in_order(set(self._written()), "noise" if "noise_added" in options else "")
        }

    def get(self, key: str) -> Any:
        """An option: `Range` or text; None where it is not set."""
        return dict(self.options).get(key)

    def __getitem__(self, key: str) -> Any:
        return dict(self.options)[key]

    def __contains__(self, key: str) -> bool:
        return key in dict(self.options)

    def replace(self, **options: Any) -> Condition:
        """The condition with other options; None takes one away.

        >>> str(Condition.parse("noise:snr_db=5,noise=musan").replace(noise=None))
        'noise:snr_db=5'
        """
        return Condition(self.kind, **{**dict(self.options), **options})

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Reads the one-line form: effects, then ``:key=value,key=value``; a value with a comma goes in double quotes.

        Raises:
            ValueError: as of the class, or not of this form.

        >>> Condition.parse('noise:snr_db=0,noise="rain, heavy.wav"')["noise"]
        'rain, heavy.wav'
        """
        kind, _, options = text.strip().partition(":")
        values: dict[str, str] = {}
        position = 0
        while position < len(options):
            match = _OPTION.match(options, position)
            if not match:
                raise ValueError(f"condition {text!r}: expected key=value at {options[position:]!r}")
            if match[1] in values:
                raise ValueError(f"condition {text!r}: {match[1]} is given twice")
            values[match[1]] = match[2].strip().strip('"')
            position = match.end()
        return cls(kind, **values)

    def __str__(self) -> str:
        """The canonical one-line form; ``Condition.parse`` reads it back to an equal condition."""
        return self.spelled()

    def spelled(self, without: Iterable[str] = ()) -> str:
        """The one-line form without some of the options.

        >>> Condition.parse("noise:snr_db=5,noise=white").spelled(without=["snr_db"])
        'noise:noise=white'
        """
        options = []
        for key, value in self.options:
            text = str(value)
            if text != text.strip() or "," in text:
                text = f'"{text}"'
            if key not in without:
                options.append(f"{key}={text}")
        return f"{self.kind}:{','.join(options)}" if options else self.kind

    @property
    def label(self) -> str:
        """The one-line form without paths: the same on every machine. Bare names are kept.

        >>> Condition.parse("noise:snr_db=5,noise=/data/musan").label
        'noise:snr_db=5'
        >>> Condition.parse("noise:snr_db=5,noise=musan").label
        'noise:snr_db=5,noise=musan'
        """
        return self.spelled([key for key in SOURCES if not _NAME.fullmatch(self.get(key) or "")])

    @property
    def title(self) -> str:
        """Short human form.

        >>> Condition.parse("noise+reverb:snr_db=10..20,noise=chime,rt60_s=0.6,side=test").title
        'chime noise 10 to 20 dB + reverb 0.6 s, test side'
        """
        titles = " + ".join(self.effects[name].title() for name in self._written()) or "clean"
        return titles + (f", {self['side']} side" if "side" in self else "")

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of recordings that are drawn from: some of `SOURCES`.

        >>> sorted(Condition.parse("noise+reverb:snr_db=5,noise=babble").needs)
        ['rir', 'speech']
        """
        return frozenset(kind for effect in self.effects.values() for kind in effect.needs())

    def source(self, kind: str) -> str | None:
        """The path or name that the condition itself gives of recordings that it needs."""
        value = self.get(kind)
        return value if kind in self.needs else None

    def to_dict(self) -> dict:
        """What is set, JSON-able; a range has a key for each end.

        >>> Condition.parse("noise:snr_db=10..20").to_dict()
        {'kind': 'noise', 'snr_db': 10.0, 'snr_max_db': 20.0}
        """
        values: dict[str, Any] = {"kind": self.kind}
        for key, value in self.options:
            values[key] = value.low if isinstance(value, Range) else value
            if isinstance(value, Range) and not value.is_single:
                values[upper_key(key)] = value.high
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Condition:
        """The inverse of :meth:`to_dict`; unknown keys are refused.

        >>> str(Condition.from_dict({"kind": "noise", "snr_db": 0}))
        'noise:snr_db=0'
        """
        options = {key: value for key, value in values.items() if key != "kind"}
        for key in list(options):
            if (upper := upper_key(key)) in options and upper != key:
                options[key] = (options[key], options.pop(upper))
        return cls(values.get("kind", "clean"), **options)

    def choose(self, rng: Any, step: int | None = None) -> Condition:
        """Itself: what a policy draws from is fixed here."""
        return self

    def _written(self) -> list[str]:
        return self.kind.split("+") if self.kind != "clean" else []


def _fields(effect: str) -> list[str]:
    return [field.name for field in dataclasses.fields(EFFECTS[effect])]


_NUMBERS = {
    field.name for effect in EFFECTS.values() for field in dataclasses.fields(effect) if "limits" in field.metadata
}


def _value(key: str, value: Any) -> Any:
    """A number as `Range`, whatever it is written as; a path as text."""
    if isinstance(value, PurePath):
        return str(value)
    if key not in _NUMBERS or isinstance(value, Range):
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        if isinstance(value, str):
            return Range.parse(value)
        low, high = value if isinstance(value, (tuple, list)) else (value, value)
        return Range(float(low), float(high))
    except (TypeError, ValueError):
        raise ValueError(f"{key} must be a number, or a range as in 10..20, found {value!r}") from None
