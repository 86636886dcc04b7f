"""How training audio is corrupted: which operation how often, and how strongly."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from .options import check_range, dataclass_from_dict
from .plan import OPERATIONS, REVERB_LEVELS, Plan


@dataclass(frozen=True)
class CorruptionPolicy:
    """Random corruption of training utterances; the defaults are the released RobustDistiller recipe.

    Each utterance gets one of four operations. Differences from the released code, on purpose: the SNR is measured
    over the valid samples of the utterance instead of the padded row, the impulse response is aligned to its direct
    path, and in ``noise+reverb`` the noise is added after the reverberation (as in :class:`Condition`).

    Attributes:
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

    >>> CorruptionPolicy(snr_db=(5, 15)).plan(np.random.default_rng(1)).operation in OPERATIONS
    True
    >>> CorruptionPolicy.from_dict({"snr_db": [0, 20], "white_noise_prob": 0.5})
    Traceback (most recent call last):
    ValueError: unknown key 'white_noise_prob' in corruption policy (nearest: 'white_noise_probability'); known keys: \
clean_probability, noise_probability, reverb_probability, noise_reverb_probability, snr_db, white_noise_probability, \
babble_probability, talkers, reverb_level, curriculum_steps
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

    def __post_init__(self):
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
        return self.noise_probability + self.noise_reverb_probability > 0

    @property
    def needs_noise_files(self) -> bool:
        """Whether noise files are ever drawn."""
        return self.has_noise and self.white_noise_probability + self.babble_probability < 1 - 1e-6

    @property
    def needs_speech(self) -> bool:
        """Whether babble is ever drawn."""
        return self.has_noise and self.babble_probability > 0

    @property
    def needs_rirs(self) -> bool:
        """Whether reverberation is ever drawn."""
        return self.reverb_probability + self.noise_reverb_probability > 0

    def plan(self, generator: np.random.Generator, step: int | None = None) -> Plan:
        """Draws what to do with one utterance.

        Args:
            generator: where all randomness comes from.
            step: training step for the curriculum; None means that the curriculum is over.

        >>> CorruptionPolicy.clean().plan(np.random.default_rng(0))
        Plan(operation='clean', snr_db=None, noise_kind=None, talkers=5, rt60_s=None, reverb_level='rms')
        """
        # Always the same number of draws in the same order, so that one option does not reshuffle the others.
        operation_u, reverb_u, kind_u, snr_u, talkers_u = generator.random(5)
        progress = 1.0 if step is None or not self.curriculum_steps else min(step / self.curriculum_steps, 1.0)
        edges = np.cumsum(self._operation_probabilities())
        operation = OPERATIONS[min(int(np.searchsorted(edges, operation_u, side="right")), len(OPERATIONS) - 1)]
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
        low, high = self.snr_db
        low = round(high - progress * (high - low))
        return Plan(
            operation,
            snr_db=float(low + int(snr_u * (high - low + 1))),
            noise_kind=noise_kind,
            talkers=self.talkers[0] + int(talkers_u * (self.talkers[1] - self.talkers[0] + 1)),
            reverb_level=self.reverb_level,
        )

    def to_dict(self) -> dict:
        """All options, JSON-able.

        >>> CorruptionPolicy().to_dict()["snr_db"]
        [0, 20]
        """
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> "CorruptionPolicy":
        """Builds a policy from a mapping; an unknown key is refused and the nearest known one named.

        >>> CorruptionPolicy.from_dict({"curriculum_steps": 1000}).curriculum_steps
        1000
        """
        return dataclass_from_dict(cls, values, "corruption policy")

    def _operation_probabilities(self) -> tuple[float, ...]:
        """In the order of ``OPERATIONS``."""
        return (
            self.clean_probability,
            self.noise_probability,
            self.reverb_probability,
            self.noise_reverb_probability,
        )


def _check_pair(name: str, pair: tuple, low: float, high: float) -> None:
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(value, int) for value in pair):
        raise ValueError(f"{name} must be two whole numbers, lowest and highest, found {pair!r}")
    for value in pair:
        check_range(name, value, low, high)
    if pair[0] > pair[1]:
        raise ValueError(f"{name} must be (lowest, highest), found {pair!r}")
