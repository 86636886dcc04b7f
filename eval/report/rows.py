"""Rows of a leaderboard: systems whose results lie in a frame of records, and published ones."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from robustdistiller.eval import tasks
from robustdistiller.eval.report.cells import Cell, Column
from robustdistiller.eval.report.published import METRICS, Published, Result
from robustdistiller.eval.results.identity import CLEAN
from robustdistiller.eval.tasks.superb import ScoreError, overall_mean, superb_score

#: Published protocols whose numbers stand in the table; others answer other questions.
_SHOWN_PROTOCOLS = {"superb": "", "last-layer": " [last layer only]"}


@dataclass(frozen=True)
class Row:
    """One system.

    Attributes:
        name: shown; different for each row.
        published: whether its numbers were read in publications; all of a row's numbers are of one kind.
        parameters: number of parameters; None where not known, 0 for none.
        macs_g: 1e9 multiply-accumulates on SUPERB's 32 profiling utterances; None where not known.
        cells: by column.
        detail: what identifies it: upstream and checkpoint digest, or teacher and training speech.
        system: digest of a measured system; a published one's name, of which there are several rows where its numbers
            are of several protocols.
        sources: keys of the sources of a published system's numbers.
        printed_score: the ``superb_s`` that a publication prints.
    """

    name: str
    published: bool
    parameters: int | None
    macs_g: float | None
    cells: Mapping[Column, Cell]
    detail: str = ""
    system: str = ""
    sources: tuple[str, ...] = ()
    printed_score: float | None = None

    @property
    def size(self) -> str:
        """Parameters in millions, ``-`` where there are none or their number is not known."""
        return f"{self.parameters / 1e6:.2f}" if self.parameters else "-"

    @property
    def official(self) -> dict[tuple[str, str], float]:
        """Task and metric to the value on the clean official test set."""
        return {
            (c.task, c.metric): cell.value for c, cell in self.cells.items() if c.condition == CLEAN and c.is_official
        }

    @property
    def superb_s(self) -> float | None:
        """SUPERB's score, else the one that was printed; None where neither can be had."""
        try:
            return superb_score(self.official)
        except ScoreError:
            return self.printed_score

    @property
    def overall(self) -> float | None:
        """Plain mean of the eleven metrics, None where one is missing."""
        try:
            return overall_mean(self.official)
        except ScoreError:
            return None

    @property
    def is_standard(self) -> bool:
        """Whether nothing is known that makes one of its runs on clean official test sets non-standard."""
        clean = (cell for column, cell in self.cells.items() if column.condition == CLEAN and column.is_official)
        return not any(cell.non_standard for cell in clean)

    def of(self, group: tuple) -> dict[Column, Cell]:
        """Its cells of one task, metric and test set."""
        return {column: cell for column, cell in self.cells.items() if column.group == group}


def published_rows(published: Published) -> list[Row]:
    """One row for each published system and shown protocol that has numbers, from large to small."""
    rows = []
    for (name, system), (protocol, suffix) in itertools.product(published.systems.items(), _SHOWN_PROTOCOLS.items()):
        results = published.of(name, protocol)
        printed = [one for one in published.of(name, protocol, over_tasks=True) if one.metric == "superb_s"]
        if not results and not printed:
            continue
        macs_known = system.macs_g is not None and system.macs_source != "unchecked"
        keys = {one.source for one in (results or printed)} | ({system.macs_source} if macs_known else set())
        made_from = ", ".join(filter(None, (system.teacher, system.distilled_on)))
        cells = {
            _published_column(one): Cell(
                {None: one.value}, remarks=(one.remark,) if one.remark else (), source=one.source
            )
            for one in results
        }
        rows.append(
            Row(
                name=name + suffix,
                published=True,
                parameters=system.parameters,
                macs_g=system.macs_g if macs_known else None,
                cells=dict(sorted(cells.items(), key=lambda item: item[0].order)),
                detail=f"from {made_from}" if made_from else "",
                system=name,
                sources=tuple(key for key in published.sources if key in keys),
                printed_score=printed[0].value if printed else None,
            )
        )
    return sorted(rows, key=lambda row: -(row.parameters or 0))


def _published_column(one: Result) -> Column:
    known = tasks.TASKS[one.task].metrics if one.task in tasks.TASKS else ()
    units = {metric.name: metric.unit for metric in known}
    unit = units.get(one.metric, "" if one.metric in ("mtwv", "pesq", "bleu") else "%")
    return Column(one.task, tasks.official_split(one.task), one.metric, unit, METRICS[one.metric], one.condition)
