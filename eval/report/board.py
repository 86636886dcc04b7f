"""The leaderboard: measured and published systems side by side, from records, whatever state they are in."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval.cost.record import Profile, read_each_profile
from robustdistiller.eval.report.cells import Column
from robustdistiller.eval.report.measured import measured_rows
from robustdistiller.eval.report.published import Published, load_published
from robustdistiller.eval.report.robustness import Summaries, shared_columns, summarise, summary_names
from robustdistiller.eval.report.rows import Row, published_rows
from robustdistiller.eval.results.files import WRITERS
from robustdistiller.eval.results.frame import mean_over_folds, read_frame
from robustdistiller.eval.results.identity import CLEAN
from robustdistiller.eval.results.record import RecordError
from robustdistiller.eval.results.share import read_origins
from robustdistiller.eval.tasks.superb import missing_tasks

#: Published systems that every table shows, the first ones a student is compared with.
REFERENCE_SYSTEMS = ("WavLM Base+", "HuBERT Base", "DPWavLM", "DPHuBERT", "DistilHuBERT")
#: Heading of pages.
TITLE = "RobustDistiller leaderboard"


@dataclass(frozen=True)
class Summary:
    """Robustness on one task, metric and test set.

    Attributes:
        published: whether it is of published systems, or of measured ones.
        columns: the corrupted columns that it is over, those that all of these systems have.
        rows: name of a system to its summaries.
    """

    published: bool
    columns: tuple[Column, ...]
    rows: Mapping[str, Summaries]


@dataclass(frozen=True)
class Board:
    """A leaderboard.

    Attributes:
        rows: measured systems first, each origin from large to small.
        columns: in the order of tasks and conditions.
        notes: sentences about what is not shown or not like the rest, and why.
        sources: key to title of the sources of published numbers.
        records: the frame that it was made of, one line for each record and metric.
        reference: name of the row that others are seen against; empty for none.
    """

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    sources: Mapping[str, str]
    records: pd.DataFrame
    reference: str = ""

    @property
    def groups(self) -> dict[tuple, list[Column]]:
        """Columns by task, split, metric and test set."""
        found: dict[tuple, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.group, []).append(column)
        return found

    @property
    def measured(self) -> list[Row]:
        """Rows of this project's records."""
        return [row for row in self.rows if not row.published]

    def row(self, name: str) -> Row:
        """The system called `name`, exactly or in any case; a measured one before a published one.

        ``published:NAME`` is the published one, where no measured system is called that.

        Raises:
            ValueError: no system has this name, and the nearest ones are given; or several have it.
        """
        published = [row for row in self.rows if row.published]
        for rows, wanted in ((self.measured, name), (published, name.removeprefix("published:"))):
            found = [row for row in rows if row.name.lower() == wanted.lower()]
            found = [row for row in found if row.name == wanted] or found
            if len(found) == 1:
                return found[0]
            if found:
                raise ValueError(_several(name, found))
        if alike := [row for row in self.measured if row.name.lower().startswith(f"{name.lower()} (")]:
            raise ValueError(_several(name, alike))
        hint = did_you_mean(name, [row.name for row in self.rows], most=3, cutoff=0.6)
        there = ", ".join(row.name for row in self.measured) or "none that has a number"
        others = f"measured: {there}" if len(self.records) else "no records: --records FOLDER says where some are"
        raise ValueError(f"no system is called {name!r}{hint} ({others})")

    def shown(self, systems: Sequence[str] = REFERENCE_SYSTEMS) -> list[Row]:
        """All measured rows, and the published ones of some systems; ``all`` for every one."""
        return [row for row in self.rows if not row.published or "all" in systems or row.system in systems]

    def summaries(self, group: tuple) -> list[Summary]:
        """Robustness on one task, metric and test set: of measured systems, and of published ones among themselves."""
        found = []
        for published in (False, True):
            cells = {row.name: row.of(group) for row in self.rows if row.published == published}
            columns = shared_columns(list(cells.values()))
            reference = cells.get(self.reference), self.reference
            summaries = {name: summarise(own, columns, *reference) for name, own in cells.items()}
            if rows := {name: one for name, one in summaries.items() if one}:
                found.append(Summary(published, tuple(columns), rows))
        return found

    @property
    def frame(self) -> pd.DataFrame:
        """One line for every number that is shown, measured and published ones told apart by `origin`."""
        lines = []
        for row in self.rows:
            for column, cell in row.cells.items():
                low, high = column.bounded(cell.estimate).interval or (None, None)
                lines.append(
                    {
                        "system": row.name,
                        "origin": "published" if row.published else "measured",
                        "parameters": row.parameters,
                        "macs_g": row.macs_g,
                        **dataclasses.asdict(column),
                        "value": cell.value,
                        "low": low,
                        "high": high,
                        "seeds": None if row.published else len(cell.values),
                        "over_seeds": cell.spread,
                        "source": cell.source,
                        "non_standard": "; ".join(cell.non_standard),
                        "remark": "; ".join(cell.remarks),
                    }
                )
        return pd.DataFrame(lines)

    @property
    def robustness(self) -> pd.DataFrame:
        """One line for each summary over conditions (see `report.robustness`), with its interval where it has one."""
        lines = []
        for (task, split, metric, test), summary in ((g, s) for g in self.groups for s in self.summaries(g)):
            over = "; ".join(column.title for column in summary.columns)
            for system, one in summary.rows.items():
                for name in summary_names([one]):
                    found = one[name]  # an estimate, or the name of the worst condition
                    value, bounds = (found, None) if isinstance(found, str) else (found.value, found.interval)
                    low, high = bounds or (None, None)
                    where = {"system": system, "task": task, "split": split, "metric": metric, "test": test}
                    lines.append({**where, "summary": name, "value": value, "low": low, "high": high, "over": over})
        return pd.DataFrame(lines)

    def to_html(self, title: str = TITLE) -> str:
        """One page that opens offline (see `report.page`)."""
        from robustdistiller.eval.report.page.html import to_html

        return to_html(self, title)

    def to_markdown(self, systems: Sequence[str] = REFERENCE_SYSTEMS) -> str:
        """The table of clean speech, and one table for each task under conditions."""
        from robustdistiller.eval.report.tables import grids

        return "\n".join(grid.to_markdown() for grid in grids(self, systems))


def _several(name: str, rows: Sequence[Row]) -> str:
    return f"{name!r} names {len(rows)} systems: {'; '.join(row.name for row in rows)}; say which"


def leaderboard(
    folders: Iterable[Path | str],
    *,
    published: bool | Published = True,
    official: Iterable[str] = (),
    reference: str = "",
) -> Board:
    """Bring measured and published systems together. It never refuses: what does not fit has a column or a note.

    Args:
        folders: folders of records, or of sweeps and runs that hold ``records``.
        published: whether to show published systems; or those to show.
        official: tasks whose measured test sets are the official ones although their number of items is not known.
        reference: system whose losses those of others are divided by, and the dashed line of plots.

    Raises:
        FileNotFoundError: no such folder, or none with records.
        ValueError: unknown task in `official`, or no system called `reference`.

    Example:
        >>> leaderboard([]).row("DPHuBERT").size  # published systems alone
        '23.59'
    """
    folders = [Path(folder) for folder in folders]
    records = mean_over_folds(read_frame(folders))
    if folders and records.empty:
        raise FileNotFoundError(f"there are no records in {', '.join(map(str, folders))}; {WRITERS}")
    profiles = [one for _, one in read_each_profile(folders)]
    rows, notes = measured_rows(_with_macs(records, profiles), official)
    notes += [f"{one}; the MACs that it has are not shown" for one in profiles if isinstance(one, RecordError)]
    origins = Counter(origin["from"] for folder in folders for origin in read_origins(folder).values())
    notes += [f"{count} records were pulled from {place}" for place, count in origins.items()]
    sources = {}
    if published is not False:
        numbers = load_published() if published is True else published
        theirs = published_rows(numbers)
        rows += theirs
        used = {source for row in theirs for source in row.sources}
        sources = {key: f"{one.title}: {one.where}" for key, one in numbers.sources.items() if key in used}
        notes.insert(
            0,
            "superb_s and the overall mean of published systems are computed from their printed metrics and may differ "
            "from printed scores by rounding; where metrics were not found, superb_s is the printed score",
        )
    columns = sorted({column for row in rows for column in row.cells}, key=lambda column: column.order)
    notes += _about_columns(rows, columns)
    board = Board(tuple(rows), tuple(columns), tuple(dict.fromkeys(notes)), sources, records)
    return dataclasses.replace(board, reference=board.row(reference).name) if reference else board


def _with_macs(records: pd.DataFrame, profiles: Iterable[Profile | RecordError]) -> pd.DataFrame:
    """The frame with the MACs that `robustdistiller profile` measured, the newest of each system."""
    readable = sorted((one for one in profiles if isinstance(one, Profile)), key=lambda one: one.start_utc)
    macs = {one.identity: one.superb_macs for one in readable}
    systems = zip(records.upstream, records.weights, records.options)
    measured = pd.Series([macs.get(one) for one in systems], index=records.index, dtype="Int64")
    return records.assign(macs=measured.fillna(records.macs))


def _about_columns(rows: Sequence[Row], columns: Iterable[Column]) -> list[str]:
    """Columns whose cells were run under different rules, and systems without a score over tasks."""
    notes = []
    for column in columns:
        if len(rules_of(rows, column)) > 1:
            notes.append(
                f"{column.task_title}, {column.title}: these runs follow different rules (see the notes on each "
                "system), so that none of them is called the best"
            )
    for row in rows:
        if not row.published and row.superb_s is None and row.official:
            missing = ", ".join(missing_tasks(row.official))
            notes.append(f"{row.name} has no superb_s: it is the mean over ten tasks, and these are missing: {missing}")
    return notes


def rules_of(rows: Iterable[Row], column: Column) -> set[str]:
    """The rules that the measured cells of a column were run under."""
    return {row.cells[column].rules for row in rows if not row.published and column in row.cells}


def best_rows(rows: Sequence[Row], column: Column) -> set[int]:
    """Places of the rows with the best value, of measured and of published systems each.

    The two are not ranked against another, nor are runs under different rules.
    """
    found = set()
    for published in (False, True):
        own = {i: row.cells[column] for i, row in enumerate(rows) if row.published == published and column in row.cells}
        if len(own) > 1 and (published or len({cell.rules for cell in own.values()}) == 1):
            values = [cell.value for cell in own.values()]
            best = max(values) if column.higher_is_better else min(values)
            found |= {i for i, cell in own.items() if cell.value == best}
    return found


def clean_columns(board: Board, rows: Sequence[Row], always: Iterable[str]) -> list[Column]:
    """Columns of clean speech; tasks outside `always` where a measured system has a score."""
    return [
        c
        for c in board.columns
        if c.condition == CLEAN and any(c in row.cells and (c.task in always or not row.published) for row in rows)
    ]
