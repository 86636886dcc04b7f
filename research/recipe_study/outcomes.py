"""What each test item came to: one small file per upstream and seed, from which every number is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from research.recipe_study.files import load_arrays, save_arrays


class OutcomeError(ValueError):
    """Outcomes that cannot stand side by side."""


@dataclass(frozen=True)
class Cell:
    """Outcomes of one upstream, seed, task and condition.

    Attributes:
        errors: (items,) wrong items (0 or 1) or character errors.
        counts: (items,) what they are out of: 1, or characters.

    >>> Cell(np.array([0, 1]), np.array([1, 1])).score("accuracy")
    50.0
    """

    errors: np.ndarray
    counts: np.ndarray

    def parts(self, metric: str) -> np.ndarray:
        """(items,) float: what each item contributes; their mean is the score in percent.

        An error rate is a ratio of two sums, so an item contributes the rate and how far its errors are from what the
        rate makes of its length: their spread is then that of the rate (linearisation), and not also that of lengths.
        """
        rate = self.errors.sum() / self.counts.sum()
        parts = rate + (self.errors - rate * self.counts) * len(self.counts) / self.counts.sum()
        return 100 * (1 - parts) if metric == "accuracy" else 100 * parts

    def score(self, metric: str) -> float:
        """Accuracy or error rate in percent."""
        return float(self.parts(metric).mean())


@dataclass(frozen=True)
class Outcome:
    """Everything about one upstream and seed.

    Attributes:
        notes: what it is and how it came about, JSON-able: `name`, `label`, `seed`, `steps`, `teacher`, `tasks` ...
        cells: by task and condition.
    """

    notes: dict[str, Any]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the upstream."""
        return self.notes["name"]

    @property
    def seed(self) -> int:
        """Of student and heads."""
        return self.notes["seed"]


def outcome_path(folder: Path, name: str, seed: int) -> Path:
    """File of one outcome.

    >>> outcome_path(Path("out"), "teacher", 1).as_posix()
    'out/outcomes/teacher-seed1.npz'
    """
    return folder / "outcomes" / f"{name}-seed{seed}.npz"


def save_outcome(path: Path, outcome: Outcome) -> None:
    """Writes an outcome at once; `load_outcome` reads it back."""
    arrays = {}
    for (task, condition), cell in outcome.cells.items():
        arrays[f"{task}/{condition}/errors"] = cell.errors.astype(np.uint16)
        arrays[f"{task}/{condition}/counts"] = cell.counts.astype(np.uint16)
    save_arrays(path, outcome.notes, arrays)


def load_outcome(path: Path) -> Outcome:
    """Reads an outcome.

    >>> cell = Cell(np.array([2]), np.array([9]))
    >>> save_outcome(Path("a.npz"), Outcome({"name": "teacher", "seed": 0}, {("prompts", "clean"): cell}))
    >>> load_outcome(Path("a.npz")).cells["prompts", "clean"].errors.tolist()
    [2]
    """
    notes, arrays = load_arrays(path)
    cells = {}
    for key in arrays:
        task, condition, kind = key.rsplit("/", 2)
        if kind == "errors":
            cells[task, condition] = Cell(arrays[key], arrays[f"{task}/{condition}/counts"])
    return Outcome(notes, cells)


def read_outcomes(folder: Path) -> list[Outcome]:
    """All outcomes of a results folder, which must have been measured on the same items with the same teacher.

    Raises:
        OutcomeError: there are none, or they differ in teacher, steps, settings of a recipe, test items or conditions.
    """
    found = [load_outcome(path) for path in sorted((folder / "outcomes").glob("*.npz"))]
    if not found:
        raise OutcomeError(f"no outcomes in {folder / 'outcomes'}; run the study first")
    refuse_mixture(found)
    return found


def refuse_mixture(outcomes: Iterable[Outcome]) -> None:
    """Raises OutcomeError where outcomes differ in what must be equal to compare them."""
    seen: dict[str, tuple[Any, Outcome]] = {}
    for outcome in outcomes:
        facts: dict[str, Any] = {"teacher": outcome.notes["teacher"], **outcome.notes["digests"]}
        if outcome.notes.get("steps") is not None:
            facts["steps"] = outcome.notes["steps"]
            facts[f"settings of {outcome.name}"] = outcome.notes.get("config")
        for what, value in facts.items():
            other, where = seen.setdefault(what, (value, outcome))
            if other != value:
                raise OutcomeError(
                    f"{outcome.name} seed {outcome.seed} and {where.name} seed {where.seed} differ in {what}: "
                    f"{str(value)[:16]} and {str(other)[:16]}; measure them again with the same"
                )


def digest(*parts: Any) -> str:
    """SHA-256 of plain values.

    >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a", 2)
    (True, False)
    """
    return hashlib.sha256(repr(parts).encode()).hexdigest()
