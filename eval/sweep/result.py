"""How far a sweep is, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from robustdistiller.eval.results.record import Record
from robustdistiller.eval.sweep.cells import Group
from robustdistiller.eval.sweep.config import SweepConfig
from robustdistiller.eval.sweep.engine import Job
from robustdistiller.eval.sweep.plan import Found

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Progress:
    """State of a group, for display.

    Attributes:
        group: the group.
        state: ``waiting``, ``checking``, ``training``, ``evaluating``, ``done``, ``failed``, ``reused`` or ``skipped``.
        trained: heads trained so far.
        finished: cells with a finished record.
        learning_rate: chosen; None before.
        detail: reason of a failure.
        running: its jobs in flight.
    """

    group: Group
    state: str = "waiting"
    trained: int = 0
    finished: int = 0
    learning_rate: float | None = None
    detail: str = ""
    running: list[Job] = field(default_factory=list)


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to.

    Attributes:
        config: what was asked for.
        progress: of each group.
        failures: one line for each head or cell that failed.
    """

    config: SweepConfig
    progress: tuple[Progress, ...]
    failures: tuple[str, ...]
    _found: Found

    @property
    def records(self) -> list[Record]:
        """The newest record of each cell of the sweep that has one, failed ones too."""
        chosen = {one.group: self._found.chosen(one.group) for one in self.progress}
        found = [
            self._found.record(cell, chosen[group], finished=True) or self._found.record(cell)
            for group in chosen
            for cell in group.cells
        ]
        return [record for record in found if record is not None]

    @property
    def frame(self) -> pd.DataFrame:
        """All records in the sweep's folder as one table, see `eval.results.frame`."""
        from robustdistiller.eval.results.frame import read_frame

        return read_frame([self.config.root])
