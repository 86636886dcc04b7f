"""Rows of a leaderboard: systems whose results lie in a frame of records, and published ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from robustdistiller.eval import tasks
from robustdistiller.eval.report.cells import CLEAN, Cell, Column
from robustdistiller.eval.report.published import METRICS, Published, Result
from robustdistiller.eval.report.significance import contributions
from robustdistiller.eval.results.folds import items_over_folds
from robustdistiller.eval.results.item_scores import NoOutcomes, Outcomes, items_of
from robustdistiller.eval.results.record import NO_CHECKPOINT, RecordError
from robustdistiller.eval.tasks.superb import OFFICIAL_SPLITS, REFERENCE_POINTS, ScoreError, overall_mean, superb_score

#: Published protocols whose numbers stand in the table; others answer other questions.
_SHOWN_PROTOCOLS = {"superb": "", "last-layer": " [last layer only]"}
_FOLDS_MEAN = "mean"


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
        sources: keys of the sources of a published system's numbers.
        printed_score: the ``superb_s`` that a publication prints.

    Example:
        >>> Row("mine", False, 23_490_000, None, {}).size
        '23.49'
    """

    name: str
    published: bool
    parameters: int | None
    macs_g: float | None
    cells: Mapping[Column, Cell]
    detail: str = ""
    sources: tuple[str, ...] = ()
    printed_score: float | None = None

    @property
    def size(self) -> str:
        """Parameters in millions, ``-`` where there are none or their number is not known."""
        return f"{self.parameters / 1e6:.2f}" if self.parameters else "-"

    @property
    def official(self) -> dict[tuple[str, str], float]:
        """Task and metric to the value on the clean official test set."""
        return {(c.task, c.metric): cell.value for c, cell in self.cells.items() if c.condition == CLEAN and c.is_official}

    @property
    def superb_s(self) -> float | None:
        """SUPERB's score, else the one that was printed; None where neither can be had."""
        try:
            return superb_score(self.official).total
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


@dataclass
class Measured:
    """Rows of measured systems, and what is to be said about what they do not show.

    Attributes:
        rows: one for each system, from large to small.
        notes: one sentence each.
        names: system's digest to the name of its row.
    """

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


def measured_rows(frame: pd.DataFrame, official: Iterable[str] = ()) -> Measured:
    """Rows of a frame of records. Whatever cannot be shown, or not beside the rest, is said in a note.

    Args:
        frame: as `results.frame.read_frame` gives it, with the means over folds.
        official: tasks whose test sets are the official ones although their number of items is not known.

    Raises:
        ValueError: unknown task in `official`.
    """
    found = Measured()
    stated = {tasks.get(name).code for name in official}
    found.notes += _unreadable(frame)
    frame = frame[frame.status != "unreadable"]
    found.names = _names(frame)
    found.notes += _unfinished(frame, found.names)
    scored = [main or (task, metric) in REFERENCE_POINTS for main, task, metric in zip(frame.main, frame.task, frame.metric)]
    frame = frame[pd.Series(scored, index=frame.index, dtype=bool) & (frame.status == "ok") & ~frame.superseded.astype(bool)]
    frame = _without_whole_folds(frame[frame.value.notna()])
    frame = frame.assign(column=_columns(frame, stated, found))
    for system, records in frame.groupby("system", sort=False):
        cells = {column: _cell(group, found) for column, group in records.groupby("column", sort=False)}
        first = records.iloc[0]
        known = [number for number in records.parameters.dropna()]
        macs = records.macs.dropna()
        detail = " ".join(p for p in (first.upstream, "" if first.weights == NO_CHECKPOINT else first.weights[:12]) if p)
        row = Row(
            name=found.names[system],
            published=False,
            parameters=int(known[0]) if known else None,
            macs_g=None if macs.empty else float(macs.iloc[0]) / 1e9,
            cells=dict(sorted(cells.items(), key=lambda item: item[0].order)),
            detail=detail,
        )
        found.rows.append(row)
    found.rows.sort(key=lambda row: (-(row.parameters or 0), row.name))
    found.notes += [note for row in found.rows for note in _row_notes(row)]
    found.notes = list(dict.fromkeys(found.notes))
    return found


def _names(frame: pd.DataFrame) -> dict[str, str]:
    """A different name for each system: its label; upstream, weights and options are shown where labels collide."""
    systems = frame.drop_duplicates("system")
    taken = systems.label.tolist()
    names = {}
    for one in systems.itertuples():
        details = " ".join(part for part in (one.upstream, one.weights[:8], one.options.strip()) if part)
        name = one.label if taken.count(one.label) == 1 else f"{one.label} ({details})"
        names[one.system] = name if name not in names.values() else f"{name} {one.system}"
    return names


def _unreadable(frame: pd.DataFrame) -> list[str]:
    bad = frame[frame.status == "unreadable"]
    return [f"{path} cannot be read: {reason}" for path, reason in zip(bad.path, bad.reason)]


def _unfinished(frame: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """What is not shown because it is partial, failed or superseded."""
    notes = []
    main = frame[frame.main.astype(bool) | frame.value.isna()].drop_duplicates("path")
    bad = main[~main.status.isin(["ok"]) & ~main.superseded.astype(bool)]
    for (system, task, split, status, reason), group in bad.groupby(["system", "task", "split", "status", "reason"], sort=False):
        where = ", ".join(dict.fromkeys(f"{c}, seed {s}{f', {f}' if f else ''}" for c, s, f in zip(group.condition, group.seed, group.fold)))
        notes.append(f"{names[system]}, {task} {split}, {where} is not shown: {status}, {reason}")
    old = main[main.superseded.astype(bool)]
    for system, group in old.groupby("system", sort=False):
        n = len(group)
        notes.append(
            f"{names[system]}: {n} record{'s are' if n > 1 else ' is'} not shown, newer ones of the same "
            f"cell{'s' if n > 1 else ''} are"
        )
    return notes


def _without_whole_folds(frame: pd.DataFrame) -> pd.DataFrame:
    """Folds whose mean is there go; those of unfinished cross-validations stay, each in a column of its own."""
    keys = ["system", "task", "split", "seed", "condition_id", "rules", "metric"]
    means = set(frame[frame.fold == _FOLDS_MEAN][keys].itertuples(index=False, name=None))
    single = (frame.fold != "") & (frame.fold != _FOLDS_MEAN)
    whole = [key in means for key in frame[keys].itertuples(index=False, name=None)]
    frame.attrs["folds"] = frame[single]
    return frame[~(single & pd.Series(whole, index=frame.index, dtype=bool))]


def _columns(frame: pd.DataFrame, stated: set[str], found: Measured) -> list[Column]:
    """The column of each line; conditions that were drawn otherwise get tags."""
    tests = [_test(line, stated, found) for line in frame.itertuples()]
    keys = list(zip(frame.task, frame.split, tests, frame.condition))
    drawn: dict[tuple, dict[tuple, None]] = {}
    for key, line in zip(keys, frame.itertuples()):
        drawn.setdefault(key, {})[line.condition_id, line.draws] = None
    columns = []
    for key, line in zip(keys, frame.itertuples()):
        tag = ""
        if line.condition != CLEAN and len(drawn[key]) > 1:
            same = [one for one in drawn[key] if one[0] == line.condition_id]
            tag = line.condition_id[:6] if len(same) == 1 else line.draws[:6]
            found.notes.append(
                f"{line.task} under {line.condition} was drawn in {len(drawn[key])} ways (other sources, seeds or "
                "lengths of audio); each has a column of its own"
            )
        columns.append(
            Column(line.task, line.split, line.metric, line.unit, bool(line.higher_is_better), line.condition, key[2], tag)
        )
    return columns


def _test(line: object, stated: set[str], found: Measured) -> str:
    """In what a test differs from the benchmark's; empty for the official test set."""
    parts = []
    if line.fold and line.fold != _FOLDS_MEAN:
        parts.append(line.fold)
        found.notes.append(
            f"{line.task} is scored by the mean over all its folds; where some are missing, each of those that are "
            "there has a column of its own"
        )
    if line.task not in stated and line.official is not True:
        parts.append(f"{line.items} items")
        if line.official is False and not parts[:-1]:
            found.notes.append(
                f"{line.task} {line.split} was scored on {line.items} items, which is not the official test set: "
                "these numbers have columns of their own and must not be compared with published ones"
            )
        elif not parts[:-1]:
            found.notes.append(
                f"{line.task} {line.split} has columns of its own beside the published ones: how many items the "
                f"official test set has is not known here; if it is the official one, say --official {line.task}"
            )
    if line.train_condition != CLEAN:
        parts.append(f"heads trained on {line.train_condition}")
    if line.quick:
        parts.append(line.quick)
    return ", ".join(parts)


def _cell(group: pd.DataFrame, found: Measured) -> Cell:
    """One system in one column: its seeds together."""
    newest = group.sort_values("start_utc").drop_duplicates("seed", keep="last")
    remarks = []
    if len(newest) < len(group):
        remarks.append("of several runs under other rules the newest is shown")
    if len(set(newest.rules)) > 1:
        remarks.append("its seeds were run under different rules")
    parts, units = {}, {}
    for line in newest.itertuples():
        try:
            items = _items(line, group, found)
        except (RecordError, NoOutcomes, OSError) as error:
            found.notes.append(f"no interval for {line.path}: {error}")
            continue
        if items is not None and line.metric in items.metrics:
            parts[line.seed] = contributions(items.metrics[line.metric], items.groups)
            grouped = len(parts[line.seed]) < len(items.ids)
            units[line.seed] = tuple(sorted(set(items.groups))) if grouped else items.ids
    if len(set(units.values())) != 1:
        parts, units = {}, {}
    phrases = [phrase for marks in newest.non_standard if isinstance(marks, tuple) for phrase in marks]
    return Cell(
        {line.seed: line.value for line in newest.itertuples()},
        parts,
        next(iter(units.values()), ()),
        rules=newest.rules.iloc[0] or "; ".join(phrases),
        non_standard=tuple(dict.fromkeys(phrases)),
        remarks=tuple(remarks),
    )


def _items(line: object, group: pd.DataFrame, found: Measured) -> Outcomes | None:
    """Results of single items of one line; of a mean over folds, those of all folds."""
    if line.fold != _FOLDS_MEAN:
        return items_of(Path(line.path))
    return None


def _row_notes(row: Row) -> list[str]:
    """What is unusual about a system's runs, task by task."""
    notes = []
    by_task: dict[str, list[tuple[Column, Cell]]] = {}
    for column, cell in row.cells.items():
        by_task.setdefault(column.task_title, []).append((column, cell))
    for task, pairs in by_task.items():
        marks = dict.fromkeys(phrase for _, cell in pairs for phrase in cell.non_standard)
        if marks:
            notes.append(f"{row.name}, {task}: not a standard run, {'; '.join(marks)}")
        seeds = {column.title: len(cell.values) for column, cell in pairs}
        if len(set(seeds.values())) > 1:
            few = ", ".join(f"{title} {n}" for title, n in seeds.items() if n < max(seeds.values()))
            notes.append(f"{row.name}, {task}: fewer seeds than the {max(seeds.values())} elsewhere in {few}")
        notes += [f"{row.name}, {column.task_title}, {column.title}: {r}" for column, cell in pairs for r in cell.remarks]
    return notes


def published_rows(published: Published) -> list[Row]:
    """One row for each published system and shown protocol that has numbers, from large to small."""
    rows = []
    for name, system in published.systems.items():
        for protocol, suffix in _SHOWN_PROTOCOLS.items():
            results = published.of(name, protocol)
            printed = [one for one in published.of(name, protocol, over_tasks=True) if one.metric == "superb_s"]
            if not results and not printed:
                continue
            macs_known = system.macs_g is not None and system.macs_source != "unchecked"
            made_from = ", ".join(part for part in (system.teacher, system.distilled_on) if part)
            keys = {one.source for one in (results or printed)} | ({system.macs_source} if macs_known else set())
            cells = {_published_column(one): _published_cell(one) for one in results}
            row = Row(
                name=name + suffix,
                published=True,
                parameters=system.parameters,
                macs_g=system.macs_g if macs_known else None,
                cells=dict(sorted(cells.items(), key=lambda item: item[0].order)),
                detail=f"from {made_from}" if made_from else "",
                sources=tuple(key for key in published.sources if key in keys),
                printed_score=printed[0].value if printed else None,
            )
            rows.append(row)
    return sorted(rows, key=lambda row: -(row.parameters or 0))


def _published_column(one: Result) -> Column:
    task = tasks.TASKS.get(one.task)
    unit = next((m.unit for m in task.metrics if m.name == one.metric), None) if task else None
    if unit is None:
        unit = "" if one.metric in ("mtwv", "pesq", "bleu") else "%"
    return Column(one.task, OFFICIAL_SPLITS.get(one.task, "test"), one.metric, unit, METRICS[one.metric], one.condition)


def _published_cell(one: Result) -> Cell:
    return Cell({None: one.value}, remarks=(one.remark,) if one.remark else (), source=one.source)
