"""A test condition, written on one line: ``noise+reverb:snr_db=10,rt60_s=0.6``."""

import dataclasses
import re
from dataclasses import dataclass

from robustdistiller.common.names import did_you_mean, refuse_unknown
from robustdistiller.common.settings import read

from .options import check_range
from .plan import COLORS, REVERB_LEVELS, Plan

_KEYS = {
    "clean": (),
    "noise": ("snr_db", "noise", "speech", "talkers", "side"),
    "reverb": ("rt60_s", "rir", "reverb_level", "side"),
    "noise+reverb": ("snr_db", "rt60_s", "noise", "speech", "talkers", "rir", "reverb_level", "side"),
}
_NUMBERS = {"snr_db": float, "rt60_s": float, "talkers": int}
_UPPER = {"snr_db": "snr_max_db", "rt60_s": "rt60_max_s"}
_SIDES = ("test",)
# What is a name rather than a path: it means the same on every machine.
_NAME = re.compile(r"[A-Za-z0-9_-]+")
# key, '=', then a value in double quotes or up to the next comma
_OPTION = re.compile(r'\s*([^=,]*?)\s*=\s*("[^"]*"|[^",]*)\s*(,|$)')


@dataclass(frozen=True)
class Condition:
    """What is done to the test audio.

    In ``noise+reverb`` the speech is reverberated first; the noise is then added as it is, so that the ratio of the
    *reverberant* speech to the noise is ``snr_db``. (A noise recording brings its own room; the ratio holds at the
    input of the model.)

    Attributes:
        kind: ``clean``, ``noise``, ``reverb`` or ``noise+reverb`` (the other operations are for training).
        snr_db: signal-to-noise ratio in dB (-40 to 100) over the whole utterance, pauses included. The one-line form
            ``snr_db=10..20`` draws a whole number, both ends included, for every utterance; `snr_db` is then 10.
        rt60_s: reverberation time in seconds; rooms measured within 15 % of it are used. The one-line form
            ``rt60_s=0.4..0.8`` uses the rooms measured in this band; `rt60_s` is then 0.4. None uses every room.
        noise: ``white``, ``pink``, ``brown``, ``babble``, or a path of noise audio (see ``AudioSource.from_path``).
            None takes the noise files handed to the ``Corruptor``.
        speech: path of the speech that babble is mixed from. None takes the speech handed to the ``Corruptor``.
        talkers: voices in the babble (default 5).
        rir: path of room impulse responses. None takes those handed to the ``Corruptor``.
        reverb_level: ``rms`` (default), ``direct`` or ``file``; see ``corrupt``.
        snr_max_db, rt60_max_s: upper ends of ``snr_db=10..20`` and ``rt60_s=0.4..0.8``; None for a single value.
        side: ``test`` corrupts only the test side of the trials of a task that compares two recordings (speaker
            verification). None corrupts everything.

    >>> condition = Condition.parse("noise+reverb:rt60_s=0.6, snr_db=10")
    >>> str(condition), condition.snr_db
    ('noise+reverb:snr_db=10,rt60_s=0.6', 10.0)
    >>> Condition.parse("noise:snr_db=10..20").snr_max_db
    20.0
    >>> Condition.parse("noise:snr=5")
    Traceback (most recent call last):
    ValueError: unknown key 'snr' in 'noise:snr=5'; did you mean 'snr_db'?
    """

    kind: str = "clean"
    snr_db: float | None = None
    rt60_s: float | None = None
    noise: str | None = None
    speech: str | None = None
    talkers: int | None = None
    rir: str | None = None
    reverb_level: str | None = None
    snr_max_db: float | None = None
    rt60_max_s: float | None = None
    side: str | None = None

    def __post_init__(self):
        if self.kind not in _KEYS:
            raise ValueError(f"unknown condition {self.kind!r}{did_you_mean(self.kind, _KEYS)}")
        given = [f.name for f in dataclasses.fields(self) if f.name != "kind" and getattr(self, f.name) is not None]
        known = [*_KEYS[self.kind], *(upper for lower, upper in _UPPER.items() if lower in _KEYS[self.kind])]
        refuse_unknown(given, known, "key", f"condition {self.kind!r}")
        if "noise" in self.kind and self.snr_db is None:
            raise ValueError(f"condition {self.kind!r} needs snr_db, as in '{self.kind}:snr_db=5'")
        if self.snr_db is not None:
            object.__setattr__(self, "snr_db", float(check_range("snr_db", self.snr_db, -40, 100)))
        if self.rt60_s is not None:
            object.__setattr__(self, "rt60_s", float(check_range("rt60_s", self.rt60_s, 0.05, 10)))
        for lower, upper in _UPPER.items():
            self._check_upper_end(lower, upper)
        if self.side is not None and self.side not in _SIDES:
            raise ValueError(f"side must be {' or '.join(_SIDES)}, found {self.side!r}")
        if self.talkers is not None:
            object.__setattr__(self, "talkers", int(check_range("talkers", self.talkers, 1, 100)))
        if self.noise != "babble" and (self.speech is not None or self.talkers is not None):
            raise ValueError(f"speech and talkers belong to noise=babble, found noise={self.noise or 'nothing'}")
        if self.reverb_level is not None and self.reverb_level not in REVERB_LEVELS:
            raise ValueError(f"reverb_level must be one of {', '.join(REVERB_LEVELS)}, found {self.reverb_level!r}")
        for key in ("noise", "speech", "rir"):
            value = getattr(self, key)
            if value is not None and (not value or '"' in value):
                raise ValueError(f"{key} must be a path or a name without double quotes, found {value!r}")

    def _check_upper_end(self, lower: str, upper: str) -> None:
        low, high = getattr(self, lower), getattr(self, upper)
        if high is None:
            return
        check_range(upper, high, -40 if lower == "snr_db" else 0.05, 100 if lower == "snr_db" else 10)
        if low is None or not low < high:
            raise ValueError(f"{lower} must rise from its lower to its upper end as in 10..20, found {low}..{high:g}")
        if lower == "snr_db" and not (float(low).is_integer() and float(high).is_integer()):
            raise ValueError(f"the ends of a range of snr_db must be whole numbers, found {low:g}..{high:g}")
        object.__setattr__(self, upper, float(high))

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Reads the one-line form: a kind, then ``:key=value,key=value``; a value with a comma goes in double quotes.

        Raises:
            ValueError: unknown kind or key (the nearest known one is named), a value out of range or not a number.

        >>> Condition.parse('noise:snr_db=0,noise="rain, heavy.wav"').noise
        'rain, heavy.wav'
        """
        kind, _, options = text.strip().partition(":")
        if kind not in _KEYS:
            raise ValueError(f"unknown condition {kind!r} in {text!r}{did_you_mean(kind, _KEYS)}")
        values: dict[str, object] = {}
        position = 0
        while position < len(options):
            match = _OPTION.match(options, position)
            if not match:
                raise ValueError(f"condition {text!r}: expected key=value at {options[position:]!r}")
            key, value = match[1], match[2].strip().strip('"')
            refuse_unknown([key], _KEYS[kind], "key", repr(text))
            if key in values:
                raise ValueError(f"condition {text!r}: {key} is given twice")
            try:
                if key in _UPPER and ".." in value:
                    low, _, high = value.partition("..")
                    values[key], values[_UPPER[key]] = float(low), float(high)
                else:
                    values[key] = _NUMBERS.get(key, str)(value)
            except ValueError:
                raise ValueError(f"condition {text!r}: {key} must be a number, found {value!r}") from None
            position = match.end()
        return cls(kind, **values)

    def __str__(self) -> str:
        """The canonical one-line form; ``Condition.parse`` reads it back to an equal condition."""
        options = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("kind", *_UPPER.values()) or value is None:
                continue
            if isinstance(value, float):
                upper = getattr(self, _UPPER[field.name])
                value = _number(value) if upper is None else f"{_number(value)}..{_number(upper)}"
            elif isinstance(value, str) and (value != value.strip() or "," in value):
                value = f'"{value}"'
            options.append(f"{field.name}={value}")
        return f"{self.kind}:{','.join(options)}" if options else self.kind

    @property
    def label(self) -> str:
        """The one-line form without paths: the same on every machine. Bare names are kept.

        >>> Condition.parse("noise:snr_db=5,noise=/data/musan").label
        'noise:snr_db=5'
        >>> Condition.parse("noise:snr_db=5,noise=musan").label
        'noise:snr_db=5,noise=musan'
        """
        names = {key: value if _NAME.fullmatch(value or "") else None for key, value in self._sources().items()}
        return str(dataclasses.replace(self, **names))

    def _sources(self) -> dict[str, str | None]:
        return {"noise": self.noise, "speech": self.speech, "rir": self.rir}

    @property
    def needs_noise_files(self) -> bool:
        """Whether noise files are used."""
        return "noise" in self.kind and self.noise not in (*COLORS, "babble")

    @property
    def needs_speech(self) -> bool:
        """Whether babble is mixed from a speech source."""
        return self.noise == "babble"

    @property
    def needs_rirs(self) -> bool:
        """Whether room impulse responses are used."""
        return "reverb" in self.kind

    def to_dict(self) -> dict:
        """The fields that are set, JSON-able.

        >>> Condition.parse("reverb:rt60_s=0.6").to_dict()
        {'kind': 'reverb', 'rt60_s': 0.6}
        """
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: dict) -> "Condition":
        """The inverse of :meth:`to_dict`; unknown keys are refused.

        >>> str(Condition.from_dict({"kind": "noise", "snr_db": 0}))
        'noise:snr_db=0'
        """
        return read(cls, values, "condition")

    def plan(self, generator=None, step: int | None = None) -> Plan:
        """The operation to carry out: always the same one (the arguments are those of ``CorruptionPolicy.plan``).

        Only the SNR of a range is drawn.

        >>> Condition.parse("noise:snr_db=5,noise=pink").plan().noise_kind
        'pink'
        """
        snr_db = self.snr_db
        if self.snr_max_db is not None:
            if generator is None:
                raise ValueError(f"{self} draws its SNR and needs a generator")
            snr_db = float(generator.integers(int(self.snr_db), int(self.snr_max_db), endpoint=True))
        return Plan(
            operation=self.kind,
            snr_db=snr_db,
            noise_kind="file" if self.needs_noise_files else self.noise,
            talkers=self.talkers or 5,
            rt60_s=self.rt60_s,
            reverb_level=self.reverb_level or "rms",
        )


def _number(value: float) -> int | str:
    return int(value) if value.is_integer() else repr(value)
