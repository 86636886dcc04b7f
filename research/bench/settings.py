"""What a benchmark is given and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from research.bench.measure import Comparison, Series


@dataclass(frozen=True)
class Settings:
    """What every benchmark is told.

    Attributes:
        device: `cpu` or `cuda`.
        seed: of everything random.
        rounds: of each comparison.
        quick: small sizes, to see that it runs; its numbers mean nothing.
        work: folder for what has to lie on a disk.

    >>> Settings("cpu", 0, 5, quick=True, work=Path("exp")).device
    'cpu'
    """

    device: str
    seed: int
    rounds: int
    quick: bool
    work: Path


@dataclass(frozen=True)
class Findings:
    """What a benchmark returns: ratios, costs against sizes, and what they say in words.

    >>> Findings().comparisons
    ()
    """

    comparisons: tuple[Comparison, ...] = ()
    series: tuple[Series, ...] = ()
    text: tuple[str, ...] = ()
