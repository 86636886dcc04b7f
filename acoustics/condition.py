"""A test condition, written on one line: ``noise+reverb:snr_db=10,rt60_s=0.6``."""

import dataclasses
import re
from dataclasses import dataclass

from .options import check_range, dataclass_from_dict, nearest, refuse_unknown
from .plan import COLORS, REVERB_LEVELS, Plan

_NOISE_KEYS = ("snr_db", "noise", "speech", "talkers")
_REVERB_KEYS = ("rt60_s", "rir", "reverb_level")
_KEYS = {
    "clean": (),
    "noise": _NOISE_KEYS,
    "reverb": _REVERB_KEYS,
    "noise+reverb": ("snr_db", "rt60_s", "noise", "speech", "talkers", "rir", "reverb_level"),
}
_NUMBERS = {"snr_db": float, "rt60_s": float, "talkers": int}
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
        snr_db: signal-to-noise ratio in dB (-40 to 100) over the whole utterance, pauses included.
        rt60_s: reverberation time in seconds; rooms measured within 15 % of it are used. None uses every room.
        noise: ``white``, ``pink``, ``brown``, ``babble``, or a path of noise audio (see ``AudioSource.from_path``).
            None takes the noise files handed to the ``Corruptor``.
        speech: path of the speech that babble is mixed from. None takes the speech handed to the ``Corruptor``.
        talkers: voices in the babble (default 5).
        rir: path of room impulse responses. None takes those handed to the ``Corruptor``.
        reverb_level: ``rms`` (default), ``direct`` or ``file``; see ``corrupt``.

    >>> condition = Condition.parse("noise+reverb:rt60_s=0.6, snr_db=10")
    >>> str(condition), condition.snr_db
    ('noise+reverb:snr_db=10,rt60_s=0.6', 10.0)
    >>> Condition.parse("noise:snr=5")
    Traceback (most recent call last):
    ValueError: unknown key 'snr' in 'noise:snr=5' (nearest: 'snr_db'); known keys: snr_db, noise, speech, talkers
    """

    kind: str = "clean"
    snr_db: float | None = None
    rt60_s: float | None = None
    noise: str | None = None
    speech: str | None = None
    talkers: int | None = None
    rir: str | None = None
    reverb_level: str | None = None

    def __post_init__(self):
        if self.kind not in _KEYS:
            raise ValueError(f"unknown condition {self.kind!r}{nearest(self.kind, _KEYS)}; known: {', '.join(_KEYS)}")
        given = [f.name for f in dataclasses.fields(self) if f.name != "kind" and getattr(self, f.name) is not None]
        refuse_unknown(given, _KEYS[self.kind], f"condition {self.kind!r}")
        if "noise" in self.kind and self.snr_db is None:
            raise ValueError(f"condition {self.kind!r} needs snr_db, as in '{self.kind}:snr_db=5'")
        if self.snr_db is not None:
            object.__setattr__(self, "snr_db", float(check_range("snr_db", self.snr_db, -40, 100)))
        if self.rt60_s is not None:
            object.__setattr__(self, "rt60_s", float(check_range("rt60_s", self.rt60_s, 0.05, 10)))
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
            raise ValueError(f"unknown condition {kind!r} in {text!r}{nearest(kind, _KEYS)}; known: {', '.join(_KEYS)}")
        values: dict[str, object] = {}
        position = 0
        while position < len(options):
            match = _OPTION.match(options, position)
            if not match:
                raise ValueError(f"condition {text!r}: expected key=value at {options[position:]!r}")
            key, value = match[1], match[2].strip().strip('"')
            refuse_unknown([key], _KEYS[kind], repr(text))
            if key in values:
                raise ValueError(f"condition {text!r}: {key} is given twice")
            try:
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
            if field.name == "kind" or value is None:
                continue
            if isinstance(value, float):
                value = int(value) if value.is_integer() else repr(value)
            elif isinstance(value, str) and (value != value.strip() or "," in value):
                value = f'"{value}"'
            options.append(f"{field.name}={value}")
        return f"{self.kind}:{','.join(options)}" if options else self.kind

    @property
    def label(self) -> str:
        """The one-line form without paths: the same on every machine.

        >>> Condition.parse("noise:snr_db=5,noise=/data/musan").label
        'noise:snr_db=5'
        """
        noise = None if self.needs_noise_files else self.noise
        return str(dataclasses.replace(self, noise=noise, speech=None, rir=None))

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
        return dataclass_from_dict(cls, values, "condition")

    def plan(self, generator=None, step: int | None = None) -> Plan:
        """The operation to carry out: always the same one (the arguments are those of ``CorruptionPolicy.plan``).

        >>> Condition.parse("noise:snr_db=5,noise=pink").plan().noise_kind
        'pink'
        """
        return Plan(
            operation=self.kind,
            snr_db=self.snr_db,
            noise_kind="file" if self.needs_noise_files else self.noise,
            talkers=self.talkers or 5,
            rt60_s=self.rt60_s,
            reverb_level=self.reverb_level or "rms",
        )
