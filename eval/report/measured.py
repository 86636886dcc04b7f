"""Rows of measured systems: a frame of records brought into columns, and what is to be said about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from robustdistiller.eval import tasks
from robustdistiller.eval.report.cells import Cell, Column
from robustdistiller.eval.report.rows import Row
from robustdistiller.eval.report.significance import contributions
from robustdistiller.eval.results.frame import MEAN, UNREADABLE
from robustdistiller.eval.results.identity import CLEAN
from robustdistiller.eval.results.item_scores import items_of
from robustdistiller.eval.results.record import NO_CHECKPOINT, RecordError
from robustdistiller.eval.tasks.superb import points_of


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
    frame = frame[frame.status != UNREADABLE]
    found.names = _names(frame)
    found.notes += _unfinished(frame, found.names)
    scored = [main or metric in points_of(task) for main, task, metric in zip(frame.main, frame.task, frame.metric)]
    frame = frame[
        pd.Series(scored, index=frame.index, dtype=bool) & (frame.status == "ok") & ~frame.superseded.astype(bool)
    ]
    frame = _without_whole_folds(frame[frame.value.notna()])
    frame = frame.assign(column=_columns(frame, stated, found))
    for system, records in frame.groupby("system", sort=False):
        cells = {column: _cell(group, found) for column, group in records.groupby("column", sort=False)}
        first = records.iloc[0]
        known = list(records.parameters.dropna())
        macs = records.macs.dropna()
        detail = " ".join(
            p for p in (first.upstream, "" if first.weights == NO_CHECKPOINT else first.weights[:12]) if p
        )
        row = Row(
            name=found.names[system],
            published=False,
            parameters=int(known[0]) if known else None,
            macs_g=None if macs.empty else float(macs.iloc[0]) / 1e9,
            cells=dict(sorted(cells.items(), key=lambda item: item[0].order)),
            detail=detail,
            system=system,
        )
        found.rows.append(row)
    found.rows.sort(key=lambda row: (-(row.parameters or 0), row.name))
    found.notes += _run_notes(found.rows)
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
    bad = frame[frame.status == UNREADABLE]
    return [f"{path} cannot be read: {reason}" for path, reason in zip(bad.path, bad.reason)]


def _unfinished(frame: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """What is not shown because it is partial, failed or superseded."""
    notes = []
    main = frame[frame.main.astype(bool) | frame.value.isna()].drop_duplicates("path")
    bad = main[~main.status.isin(["ok"]) & ~main.superseded.astype(bool)]
    for (system, task, split, status, reason), group in bad.groupby(
        ["system", "task", "split", "status", "reason"], sort=False
    ):
        where = ", ".join(
            dict.fromkeys(
                f"{c}, seed {s}{f', {f}' if f else ''}" for c, s, f in zip(group.condition, group.seed, group.fold)
            )
        )
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
    lines = list(zip(frame.fold, frame[keys].itertuples(index=False, name=None)))
    means = {key for fold, key in lines if fold == MEAN}
    kept = [fold in ("", MEAN) or key not in means for fold, key in lines]
    return frame[pd.Series(kept, index=frame.index, dtype=bool)]


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
            Column(
                line.task, line.split, line.metric, line.unit, bool(line.higher_is_better), line.condition, key[2], tag
            )
        )
    return columns


def _test(line: Any, stated: set[str], found: Measured) -> str:
    """In what a test differs from the benchmark's; empty for the official test set."""
    parts = []
    if line.fold and line.fold != MEAN:
        parts.append(line.fold)
        found.notes.append(
            f"{line.task} is scored by the mean over all its folds; where some are missing, each of those that are "
            "there has a column of its own"
        )
    official = None if pd.isna(line.official) else bool(line.official)
    if line.task not in stated and not official:
        parts.append(f"{line.items} items")
        if official is False and not parts[:-1]:
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
            items = items_of(line.path)
        except (RecordError, OSError) as error:
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
        record=path[-1] if isinstance(path := newest.path.iloc[-1], tuple) else path,
    )


def _run_notes(rows: Iterable[Row]) -> list[str]:
    """What is unusual about runs: one sentence for each task and finding, naming the systems."""
    systems: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        by_task: dict[str, list[tuple[Column, Cell]]] = {}
        for column, cell in row.cells.items():
            by_task.setdefault(column.task_title, []).append((column, cell))
        for task, pairs in by_task.items():
            said = [f"{column.title}: {remark}" for column, cell in pairs for remark in cell.remarks]
            if marks := dict.fromkeys(phrase for _, cell in pairs for phrase in cell.non_standard):
                said.append(f"not a standard run, {'; '.join(marks)}")
            most = max(len(cell.values) for _, cell in pairs)
            if few := [f"{c.title} {len(cell.values)}" for c, cell in pairs if len(cell.values) < most]:
                said.append(f"{most} seeds, but fewer of {', '.join(few)}")
            for sentence in said:
                systems.setdefault((task, sentence), []).append(row.name)
    return [f"{', '.join(dict.fromkeys(names))}, {task}: {said}" for (task, said), names in systems.items()]
