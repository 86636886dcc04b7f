"""How training audio is corrupted: which operation how often, and how strongly."""

import dataclasses
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from robustdistiller.common.settings import read

from .band import hz_to_mel, mel_to_hz
from .options import check_range
from .pitch import MAX_CENTS
from .plan import DISTORTIONS, REVERB_LEVELS, Plan

MODES = ("single", "double")

_SINGLE_OPERATIONS = ("clean", "noise", "reverb", "noise+reverb")
_SINGLE = (
    "clean_probability",
    "noise_probability",
    "reverb_probability",
    "noise_reverb_probability",
    "white_noise_probability",
    "babble_probability",
)
_NOISE_WEIGHTS = ("file_noise_weight", "white_noise_weight", "babble_weight", "no_noise_weight")
_DISTORTION_WEIGHTS = ("reverb_weight", "pitch_shift_weight", "band_reject_weight", "no_distortion_weight")
_DOUBLE = (*_NOISE_WEIGHTS, *_DISTORTION_WEIGHTS, "pitch_cents", "band_width_mel", "band_range_hz")


@dataclass(frozen=True)
class CorruptionPolicy:
    """Random corruption of training utterances; the defaults are the released RobustDistiller recipe.

    Mode ``single``: each utterance gets one of four operations, by the probabilities. Differences from the released
    code, on purpose: the SNR is measured over the valid samples of the utterance instead of the padded row, the impulse
    response is aligned to its direct path, and in ``noise+reverb`` the noise is added after the reverberation (as in
    :class:`Condition`).

    Mode ``double`` (the distortions of Huang et al. 2022, arXiv 2210.07978): each utterance gets one kind of noise or
    none and, independently, one distortion of the speech itself or none, by the weights. The source draws uniformly
    from MUSAN, Gaussian noise, WHAM! and none, at a whole SNR of 10 to 19 dB (``snr_db: [10, 19]``), and from
    reverberation, pitch shift, band rejection and none. Differences, on purpose or because the source leaves it open:

    - noise files come from one source, which may hold several corpora, hence ``file_noise_weight`` of 2; within it
      recordings, not corpora, are drawn uniformly;
    - the speech is distorted first and noise is added afterwards, so that the SNR is that of the distorted speech and
      holds at the input of the model; the released code adds noise first and distorts the mixture;
    - reverberation is by impulse responses instead of SoX's ``reverb``;
    - the width of the rejected band is uniform on the mel scale, and so is its place; the released configuration says
      of its own widest band, 150 mel, that it is an error, and gives no other. The filter is ``band_reject_filter``.

    Options of the other mode are refused, unless they have their default.

    Attributes:
        mode: ``single`` or ``double`` (above).
        clean_probability, noise_probability, reverb_probability, noise_reverb_probability: add up to 1.
        snr_db: lowest and highest signal-to-noise ratio; whole numbers between them, both included, are drawn
            uniformly.
        white_noise_probability: share of noisy utterances that get white noise; the rest gets noise files.
        babble_probability: share of noisy utterances that get babble mixed from the speech source.
        talkers: fewest and most voices in the babble.
        reverb_level: ``rms``, ``direct`` or ``file``; see ``corrupt``.
        curriculum_steps: 0 switches the curriculum off. Otherwise, over this many training steps, the lower SNR bound
            slides from the upper one down to ``snr_db[0]``, and the probability that a drawn reverberation is really
            applied rises from 0 to 1 (until then ``reverb`` becomes ``clean`` and ``noise+reverb`` becomes ``noise``).
            In mode ``double`` the latter holds for every distortion.
        file_noise_weight, white_noise_weight, babble_weight, no_noise_weight: mode ``double``: how often each kind of
            noise is drawn, relative to their sum.
        reverb_weight, pitch_shift_weight, band_reject_weight, no_distortion_weight: mode ``double``: the same for the
            distortion of the speech.
        pitch_cents: lowest and highest pitch shift, at most an octave; whole cents, both included, are drawn uniformly.
        band_width_mel: narrowest and widest rejected band, in mel.
        band_range_hz: what the rejected bands lie in.

    >>> CorruptionPolicy(snr_db=(5, 15)).plan(np.random.default_rng(1)).operation
    'reverb'
    >>> CorruptionPolicy.from_dict({"snr_db": [0, 20], "white_noise_prob": 0.5})
    Traceback (most recent call last):
    robustdistiller.common.settings.SettingsError: unknown key 'corruption.white_noise_prob'; did you mean ...
    >>> double = CorruptionPolicy(mode="double", snr_db=(10, 19))
    >>> [double.plan(np.random.default_rng(seed)).operation for seed in range(3)]
    ['noise+pitch_shift', 'noise', 'noise+pitch_shift']
    """

    clean_probability: float = 0.25
    noise_probability: float = 0.25
    reverb_probability: float = 0.25
    noise_reverb_probability: float = 0.25
    snr_db: tuple[int, int] = (0, 20)
    white_noise_probability: float = 0.3
    babble_probability: float = 0.0
    talkers: tuple[int, int] = (3, 7)
    reverb_level: str = "rms"
    curriculum_steps: int = 0
    mode: str = "single"
    file_noise_weight: float = 2.0
    white_noise_weight: float = 1.0
    babble_weight: float = 0.0
    no_noise_weight: float = 1.0
    reverb_weight: float = 1.0
    pitch_shift_weight: float = 1.0
    band_reject_weight: float = 1.0
    no_distortion_weight: float = 1.0
    pitch_cents: tuple[int, int] = (-500, 500)
    band_width_mel: tuple[int, int] = (0, 150)
    band_range_hz: tuple[int, int] = (0, 8000)

    def __post_init__(self):
        self._check_mode()
        for field in dataclasses.fields(self):
            if field.name.endswith("_probability"):
                check_range(field.name, getattr(self, field.name), 0, 1)
        total = sum(self._operation_probabilities())
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"the probabilities of clean, noise, reverb and noise_reverb must add up to 1, found {total:g}"
            )
        if self.white_noise_probability + self.babble_probability > 1 + 1e-6:
            raise ValueError("white_noise_probability + babble_probability must be at most 1")
        _check_pair("snr_db", self.snr_db, -40, 100)
        _check_pair("talkers", self.talkers, 1, 100)
        if self.reverb_level not in REVERB_LEVELS:
            raise ValueError(f"reverb_level must be one of {', '.join(REVERB_LEVELS)}, found {self.reverb_level!r}")
        check_range("curriculum_steps", self.curriculum_steps, 0, 10**9)
        for names in (_NOISE_WEIGHTS, _DISTORTION_WEIGHTS):
            if sum(check_range(name, getattr(self, name), 0, 10**6) for name in names) <= 0:
                raise ValueError(f"one of {', '.join(names)} must be above 0, found 0 for all")
        _check_pair("pitch_cents", self.pitch_cents, -MAX_CENTS, MAX_CENTS)
        _check_pair("band_width_mel", self.band_width_mel, 0, 10**4)
        _check_pair("band_range_hz", self.band_range_hz, 0, 10**6)
        room_mel = hz_to_mel(self.band_range_hz[1]) - hz_to_mel(self.band_range_hz[0])
        if self.band_width_mel[1] > room_mel / 2:
            raise ValueError(
                f"band_width_mel goes up to {self.band_width_mel[1]} mel, more than half of the {room_mel:.0f} mel of "
                f"band_range_hz {self.band_range_hz}; take narrower bands or a wider range"
            )

    @classmethod
    def clean(cls) -> "CorruptionPolicy":
        """The policy that changes nothing.

        >>> CorruptionPolicy.clean().needs_noise_files
        False
        """
        return cls(1.0, 0.0, 0.0, 0.0)

    @property
    def has_noise(self) -> bool:
        """Whether noise is ever added."""
        if self.mode == "double":
            return self.file_noise_weight + self.white_noise_weight + self.babble_weight > 0
        return self.noise_probability + self.noise_reverb_probability > 0

    @property
    def needs_noise_files(self) -> bool:
        """Whether noise files are ever drawn."""
        if self.mode == "double":
            return self.file_noise_weight > 0
        return self.has_noise and self.white_noise_probability + self.babble_probability < 1 - 1e-6

    @property
    def needs_speech(self) -> bool:
        """Whether babble is ever drawn."""
        if self.mode == "double":
            return self.babble_weight > 0
        return self.has_noise and self.babble_probability > 0

    @property
    def needs_rirs(self) -> bool:
        """Whether reverberation is ever drawn."""
        if self.mode == "double":
            return self.reverb_weight > 0
        return self.reverb_probability + self.noise_reverb_probability > 0

    def plan(self, generator: np.random.Generator, step: int | None = None) -> Plan:
        """Draws what to do with one utterance.

        Args:
            generator: where all randomness comes from.
            step: training step for the curriculum; None means that the curriculum is over.

        >>> CorruptionPolicy.clean().plan(np.random.default_rng(0))
        Plan(operation='clean', snr_db=None, noise_kind=None, talkers=5, rt60_s=None, reverb_level='rms', ...)
        """
        progress = 1.0 if step is None or not self.curriculum_steps else min(step / self.curriculum_steps, 1.0)
        return (
            self._plan_double(generator, progress) if self.mode == "double" else self._plan_single(generator, progress)
        )

    def check_sample_rate(self, sample_rate_hz: int) -> None:
        """Raises ValueError when bands beyond half the sampling rate would be rejected.

        >>> CorruptionPolicy().check_sample_rate(8000)
        """
        drawn = self.mode == "double" and self.band_reject_weight > 0
        if drawn and self.band_range_hz[1] > sample_rate_hz / 2:
            raise ValueError(
                f"band_range_hz must end at half the sampling rate, {sample_rate_hz / 2:g} Hz, or below; "
                f"found {self.band_range_hz}"
            )

    def _plan_single(self, generator: np.random.Generator, progress: float) -> Plan:
        # Always the same number of draws in the same order, so that one option does not reshuffle the others.
        operation_u, reverb_u, kind_u, snr_u, talkers_u = generator.random(5)
        operation = _SINGLE_OPERATIONS[min(bisect_right(self._edges, operation_u), 3)]
        if "reverb" in operation and reverb_u >= progress:
            operation = "noise" if "noise" in operation else "clean"
        if "noise" not in operation:
            return Plan(operation, reverb_level=self.reverb_level)
        if kind_u < self.white_noise_probability:
            noise_kind = "white"
        elif kind_u < self.white_noise_probability + self.babble_probability:
            noise_kind = "babble"
        else:
            noise_kind = "file"
        return Plan(
            operation,
            snr_db=self._snr_db(snr_u, progress),
            noise_kind=noise_kind,
            talkers=_whole(self.talkers, talkers_u),
            reverb_level=self.reverb_level,
        )

    def _plan_double(self, generator: np.random.Generator, progress: float) -> Plan:
        # As above: the same number of draws, whatever they decide.
        noise_u, distortion_u, apply_u, snr_u, talkers_u, cents_u, width_u, place_u = generator.random(8)
        noise_kind = _weighted(("file", "white", "babble", None), self._values(_NOISE_WEIGHTS), noise_u)
        distortion = _weighted((*DISTORTIONS, None), self._values(_DISTORTION_WEIGHTS), distortion_u)
        if apply_u >= progress:
            distortion = None
        plan = Plan(
            "+".join(part for part in (noise_kind and "noise", distortion) if part) or "clean",
            reverb_level=self.reverb_level,
            pitch_cents=float(_whole(self.pitch_cents, cents_u)) if distortion == "pitch_shift" else None,
            band_hz=self._band_hz(width_u, place_u) if distortion == "band_reject" else None,
        )
        if noise_kind is None:
            return plan
        return dataclasses.replace(
            plan,
            snr_db=self._snr_db(snr_u, progress),
            noise_kind=noise_kind,
            talkers=_whole(self.talkers, talkers_u),
        )

    def to_dict(self) -> dict:
        """All options that count in this mode, JSON-able; without ``mode``, it is ``single``.

        >>> CorruptionPolicy().to_dict()["snr_db"]
        [0, 20]
        >>> list(CorruptionPolicy(mode="double").to_dict())[:6]
        ['snr_db', 'talkers', 'reverb_level', 'curriculum_steps', 'mode', 'file_noise_weight']
        """
        # What a single-mode policy was called before there was another mode stays its name in records.
        without = _SINGLE if self.mode == "double" else (*_DOUBLE, "mode")
        options = {key: value for key, value in dataclasses.asdict(self).items() if key not in without}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}

    @classmethod
    def from_dict(cls, values: dict) -> "CorruptionPolicy":
        """Builds a policy from a mapping; an unknown key is refused and the nearest known one named.

        >>> CorruptionPolicy.from_dict({"curriculum_steps": 1000}).curriculum_steps
        1000
        """
        return read(cls, values, "corruption")

    def _check_mode(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, found {self.mode!r}")
        foreign, other = (_SINGLE, "single") if self.mode == "double" else (_DOUBLE, "double")
        for field in dataclasses.fields(self):
            if field.name in foreign and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{field.name} belongs to mode {other!r} and has no effect in mode {self.mode!r}, found "
                    f"{getattr(self, field.name)!r}; remove it or set mode to {other!r}"
                )

    def _values(self, names: tuple[str, ...]) -> tuple[float, ...]:
        return tuple(getattr(self, name) for name in names)

    def _snr_db(self, u: float, progress: float) -> float:
        low, high = self.snr_db
        return float(_whole((round(high - progress * (high - low)), high), u))

    def _band_hz(self, width_u: float, place_u: float) -> tuple[float, float]:
        low_mel, high_mel = (hz_to_mel(edge) for edge in self.band_range_hz)
        width_mel = self.band_width_mel[0] + width_u * (self.band_width_mel[1] - self.band_width_mel[0])
        start_mel = low_mel + place_u * (high_mel - low_mel - width_mel)
        # To a tenth of a Hz, for records that can be read; never beyond the range.
        edges_hz = (round(float(mel_to_hz(mel)), 1) for mel in (start_mel, start_mel + width_mel))
        return tuple(min(max(edge, float(self.band_range_hz[0])), float(self.band_range_hz[1])) for edge in edges_hz)

    @cached_property
    def _edges(self) -> tuple[float, ...]:
        return tuple(np.cumsum(self._operation_probabilities()).tolist())

    def _operation_probabilities(self) -> tuple[float, ...]:
        """In the order of ``_SINGLE_OPERATIONS``."""
        return self._values(_SINGLE[:4])


def _weighted(choices: tuple, weights: tuple[float, ...], u: float):
    """The choice that ``u`` in [0, 1) falls on when the weights share out that interval."""
    edges = np.cumsum(weights)
    return choices[int(np.searchsorted(edges, u * edges[-1], side="right"))]


def _whole(pair: tuple[int, int], u: float) -> int:
    """The whole number that ``u`` in [0, 1) falls on; both ends are included."""
    return pair[0] + int(u * (pair[1] - pair[0] + 1))


def _check_pair(name: str, pair: tuple, low: float, high: float) -> None:
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(value, int) for value in pair):
        raise ValueError(f"{name} must be two whole numbers, lowest and highest, found {pair!r}")
    for value in pair:
        check_range(name, value, low, high)
    if pair[0] > pair[1]:
        raise ValueError(f"{name} must be (lowest, highest), found {pair!r}")
