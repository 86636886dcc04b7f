"""Numbers of the report: means, differences and their uncertainty; a cell without all its seeds has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from research.recipe_study.conditions import CONDITIONS, NOISY
from research.recipe_study.outcomes import Outcome, OutcomeError
from research.recipe_study.plan import BASELINES, REFERENCE, STUDENTS
from research.recipe_study.tasks import TASKS
from robustdistiller.eval.report.significance import Estimate, adjust, crossed_test

NOISY_MEAN = "noisy"
"""Name of the mean over all conditions but clean."""


@dataclass(frozen=True)
class Results:
    """Outcomes of a study, by upstream.

    Attributes:
        outcomes: by name and seed.
        seeds: all seeds that occur; a cell counts only when it has every one of them.
        tasks: in the order of the plan.
        conditions: in the order of the plan.

    >>> from research.recipe_study.outcomes import Cell
    >>> cells = {("words", "clean"): Cell(np.array([0, 1]), np.array([1, 1]))}
    >>> results = Results.of([Outcome({"name": "teacher", "seed": seed}, cells) for seed in (0, 1)])
    >>> results.score("teacher", "words", "clean").value
    50.0
    >>> results.score("fbank", "words", "clean") is None
    True
    """

    outcomes: dict[tuple[str, int], Outcome]
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    conditions: tuple[str, ...]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Results:
        """Results of some outcomes.

        Raises:
            OutcomeError: two of them are of the same upstream and seed.
        """
        found: dict[tuple[str, int], Outcome] = {}
        for outcome in outcomes:
            if found.setdefault((outcome.name, outcome.seed), outcome) is not outcome:
                raise OutcomeError(f"{outcome.name} seed {outcome.seed} occurs twice")
        cells = {key for outcome in outcomes for key in outcome.cells}
        return cls(
            found,
            tuple(sorted({outcome.seed for outcome in outcomes})),
            tuple(task for task in TASKS if any(key[0] == task for key in cells)),
            tuple(name for name in CONDITIONS if any(key[1] == name for key in cells)),
        )

    @property
    def names(self) -> list[str]:
        """Upstreams that occur, in the order of the plan, baselines last."""
        return [name for name in (*STUDENTS, *BASELINES) if any(key[0] == name for key in self.outcomes)]

    @property
    def noisy(self) -> tuple[str, ...]:
        """Conditions that `NOISY_MEAN` is the mean of."""
        return tuple(name for name in NOISY if name in self.conditions)

    def seeds_of(self, name: str, task: str, condition: str) -> tuple[int, ...]:
        """Seeds that a cell has."""
        wanted = self.noisy if condition == NOISY_MEAN else (condition,)
        return tuple(
            seed
            for seed in self.seeds
            if (name, seed) in self.outcomes
            and wanted
            and all((task, one) in self.outcomes[name, seed].cells for one in wanted)
        )

    def parts(self, name: str, task: str, condition: str) -> np.ndarray | None:
        """(seeds, items) contributions to the score of a cell, or None where a seed is missing."""
        if self.seeds_of(name, task, condition) != self.seeds:
            return None
        wanted = self.noisy if condition == NOISY_MEAN else (condition,)
        cells = [[self.outcomes[name, seed].cells[task, one] for one in wanted] for seed in self.seeds]
        return np.array([np.mean([cell.parts(TASKS[task].metric) for cell in row], axis=0) for row in cells])

    def score(self, name: str, task: str, condition: str) -> Estimate | None:
        """Mean score of a cell with its standard error over items and seeds."""
        parts = self.parts(name, task, condition)
        return None if parts is None else crossed_test([parts])

    def gain(self, treatment: str, reference: str, tasks: Sequence[str], condition: str) -> Estimate | None:
        """How much better one upstream is than another, in points, averaged over tasks; None if a cell is missing.

        Positive is better for accuracies and error rates alike.
        """
        blocks = []
        for task in tasks:
            pair = [self.parts(name, task, condition) for name in (treatment, reference)]
            if pair[0] is None or pair[1] is None:
                return None
            blocks.append(TASKS[task].sign * (pair[0] - pair[1]))
        return crossed_test(blocks) if blocks else None

    def missing(self) -> list[str]:
        """One line for each upstream that has cells, but not all of them with every seed."""
        lines = []
        for name in self.names:
            lacking: dict[tuple[int, ...], list[str]] = {}
            for task in self.tasks:
                for condition in self.conditions:
                    found = self.seeds_of(name, task, condition)
                    if found != self.seeds:
                        lacking.setdefault(found, []).append(f"{task} {condition}")
            for found, cells in lacking.items():
                every = len(cells) == len(self.tasks) * len(self.conditions)
                where = "all cells" if every else ", ".join(cells)
                lines.append(f"{name}: seeds {list(found)} of {list(self.seeds)} in {where}")
        return lines


def cell_table(results: Results, reference: str = REFERENCE) -> pd.DataFrame:
    """One row per upstream, task and condition: score, and gain over the reference with adjusted p-values.

    The adjustment is over all gains of the table. Cells with a missing seed have their row, without numbers.
    """
    rows = []
    for name in results.names:
        for task in results.tasks:
            for condition in results.conditions:
                score = results.score(name, task, condition)
                gain = None if name == reference else results.gain(name, reference, [task], condition)
                rows.append(
                    {
                        "upstream": name,
                        "task": task,
                        "metric": TASKS[task].metric,
                        "condition": condition,
                        "seeds": len(results.seeds_of(name, task, condition)),
                        "seeds_wanted": len(results.seeds),
                        "score": score and score.value,
                        "standard_error": score and score.standard_error,
                        "gain": gain and gain.value,
                        "gain_standard_error": gain and gain.standard_error,
                        "gain_low": gain and gain.interval[0],
                        "gain_high": gain and gain.interval[1],
                        "p": gain and gain.p,
                    }
                )
    table = pd.DataFrame(rows)
    numbers = [column for column in table.columns if column not in ("upstream", "task", "metric", "condition")]
    table[numbers] = table[numbers].astype(float)
    tested = table["p"].notna()
    table["p_adjusted"] = np.nan
    table.loc[tested, "p_adjusted"] = adjust(table.loc[tested, "p"].to_numpy(), "bh")
    return table
