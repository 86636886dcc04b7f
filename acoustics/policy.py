"""How training audio is corrupted: weighted tables of conditions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from robustdistiller.common.settings import read

from .condition import SOURCES, Condition
from .effects import Range, Sound, joined
from .first_version import without_modes

_RATIOS = ("snr_db", "music_snr_db", "sir_db")


def _released() -> list[dict[str, float]]:
    return without_modes({})["tables"]


@dataclass(frozen=True)
class CorruptionPolicy:
    """Random corruption of training utterances: of each table one condition is drawn, and all of them act.

    The default is the released RobustDistiller recipe, as one table: a quarter each of the utterances stays clean, gets
    noise, gets reverberation, or both; the SNR is a whole number from 0 to 20 dB, three tenths of the noise is white.
    Differences from the released code, on purpose: the SNR is measured over the valid samples of the utterance instead
    of the padded row, the impulse response is aligned to its direct path, and where there are both, noise is added
    after the reverberation (there, the mixture is reverberated).

    Two tables draw two things independently, as the distortions of Huang et al. (2022, arXiv 2210.07978) in recipe
    ``correlation``: one kind of noise or none, and one distortion of the speech or none.

    Attributes:
        tables: conditions in their one-line form, each with how often it is drawn, relative to the sum of its table.
            Where recordings come from is said beside the policy, not in its conditions.
        curriculum_steps: 0 switches the curriculum off. Otherwise, over this many training steps, the lower end of a
            range of SNRs slides from the upper one down to its own, and the probability that a drawn effect other than
            an added sound is really applied rises from 0 to 1.

    >>> policy = CorruptionPolicy([{"clean": 1, "noise:snr_db=0..20": 3}, {"clean": 1, "reverb": 1, "clipping": 1}])
    >>> [str(policy.choose(np.random.default_rng(seed))) for seed in range(3)]
    ['noise:snr_db=0..20', 'noise:snr_db=0..20', 'noise+clipping:snr_db=0..20']
    >>> CorruptionPolicy([{"noise:snr=5": 1}])
    Traceback (most recent call last):
    ValueError: tables[0]: unknown key 'snr' in condition 'noise'; did you mean 'snr_db'?
    """

    tables: list[dict[str, float]] = field(default_factory=_released)
    curriculum_steps: int = 0

    def __post_init__(self):
        if isinstance(self.curriculum_steps, bool) or not 0 <= self.curriculum_steps <= 10**9:
            raise ValueError(f"curriculum_steps must be between 0 and 1e9, found {self.curriculum_steps!r}")
        if not self.tables:
            raise ValueError('tables: found none, expected one or more, as in [{"clean": 1, "noise:snr_db=0..20": 1}]')
        seen: dict[str, int] = {}
        for number, table in enumerate(self._conditions):
            own = {name for condition, _ in table for name in condition.effects}
            for name in own:
                if name in seen:
                    raise ValueError(f"tables[{number}]: {name} is in tables[{seen[name]}] too; no effect acts twice")
            seen |= dict.fromkeys(own, number)
        levels = [
            {condition.get("speech_level") or "rms" for condition, weight in table if weight and _has_sound(condition)}
            for table in self._conditions
        ]
        if sum(map(bool, levels)) > 1 and len(set().union(*levels)) > 1:
            raise ValueError(
                "tables: an utterance has one speech_level; give it to the sounds of all tables, or to none"
            )

    @classmethod
    def clean(cls) -> CorruptionPolicy:
        """The policy that changes nothing.

        >>> CorruptionPolicy.clean().needs
        frozenset()
        """
        return cls([{"clean": 1.0}])

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of recordings that are drawn from, see `Condition.needs`."""
        return frozenset(kind for condition in self.drawn for kind in condition.needs)

    @property
    def drawn(self) -> list[Condition]:
        """The conditions that may be drawn: those whose weight is above 0.

        >>> [str(condition) for condition in CorruptionPolicy([{"clean": 1, "reverb": 0, "gain": 2}]).drawn]
        ['clean', 'gain']
        """
        return [condition for table in self._conditions for condition, weight in table if weight]

    def choose(self, rng: np.random.Generator, step: int | None = None) -> Condition:
        """Draws what to do with one utterance.

        Args:
            rng: where all randomness comes from.
            step: training step for the curriculum; None means that the curriculum is over.

        >>> str(CorruptionPolicy.clean().choose(np.random.default_rng(0)))
        'clean'
        """
        # Always the same number of draws in the same order, so that one option does not reshuffle the others.
        draws = rng.random(2 * len(self.tables)).tolist()
        progress = 1.0 if step is None or not self.curriculum_steps else min(step / self.curriculum_steps, 1.0)
        chosen = []
        for table, edges, u, applied_u in zip(self._conditions, self._edges, draws[::2], draws[1::2]):
            condition = table[int(np.searchsorted(edges, u * edges[-1], side="right"))][0]
            chosen.append((condition, applied_u < progress))
        return _together(tuple(chosen), progress)

    def check_sample_rate(self, sample_rate_hz: int) -> None:
        """Raises ValueError when an effect does not go with the sampling rate."""
        for table in self._conditions:
            for condition, _ in table:
                for effect in condition.effects.values():
                    effect.check_sample_rate(sample_rate_hz)

    def to_dict(self) -> dict:
        """All options, JSON-able.

        >>> CorruptionPolicy.clean().to_dict()
        {'tables': [{'clean': 1.0}], 'curriculum_steps': 0}
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CorruptionPolicy:
        """Builds a policy from a mapping, also from one of the first version.

        >>> CorruptionPolicy.from_dict({"curriculum_steps": 1000}).curriculum_steps
        1000
        >>> CorruptionPolicy.from_dict({"white_noise_probability": 0.0}).tables[0]["noise:snr_db=0..20"]
        0.25
        """
        return read(cls, without_modes(values), "corruption")

    @cached_property
    def _conditions(self) -> list[list[tuple[Condition, float]]]:
        return [self._read(number, table) for number, table in enumerate(self.tables)]

    @cached_property
    def _edges(self) -> list[np.ndarray]:
        return [np.cumsum([weight for _, weight in table]) for table in self._conditions]

    def _read(self, number: int, table: Mapping[str, float]) -> list[tuple[Condition, float]]:
        try:
            found = [(Condition.parse(text), float(weight)) for text, weight in table.items()]
        except ValueError as error:
            raise ValueError(f"tables[{number}]: {error}") from None
        for condition, weight in found:
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"tables[{number}]: the weight of {condition} must be 0 or more, found {weight:g}")
            named = [kind for kind in SOURCES if condition.source(kind)]
            if named or "side" in condition:
                raise ValueError(f"tables[{number}]: {condition}: {(named or ['side'])[0]} means nothing in a policy")
        if not sum(weight for _, weight in found) > 0:
            raise ValueError(f"tables[{number}]: one weight must be above 0, found {dict(table)}")
        return found


def _has_sound(condition: Condition) -> bool:
    return any(isinstance(effect, Sound) for effect in condition.effects.values())


@lru_cache(maxsize=4096)
def _together(chosen: tuple[tuple[Condition, bool], ...], progress: float) -> Condition:
    """Several conditions as one, as far as the curriculum has come."""
    names, options = set(), {}
    for condition, is_applied in chosen:
        kept = {name: effect for name, effect in condition.effects.items() if is_applied or isinstance(effect, Sound)}
        names |= set(kept)
        for key, value in (pair for effect in kept.values() for pair in effect.given()):
            if progress < 1 and key in _RATIOS:
                low = float(round(value.high - progress * (value.high - value.low)))
                options[key] = Range(min(max(low, value.low), value.high), value.high)
            elif key in condition:
                options[key] = value
    return Condition(joined(names), **options)
