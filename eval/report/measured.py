"""Rows of measured systems: a frame of records brought into columns, and what is to be said about the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def measured_rows(frame: pd.DataFrame, official: Iterable[str] = ()) -> tuple[list[Row], list[str]]:
    """Rows of a frame of records. Whatever cannot be shown, or not beside the rest, is said in a note.

    Returns:
        One row for each system, from large to small, and the notes.
    """
    stated = {tasks.get(name).code for name in official}
    bad = frame[frame.status == UNREADABLE]
    notes = [f"{path} cannot be read: {reason}" for path, reason in zip(bad.path, bad.reason)]
    frame = frame[frame.status != UNREADABLE]
    names = _names(frame)
    notes += _unfinished(frame, names)
    points = [metric in points_of(task) for task, metric in zip(frame.task, frame.metric)]
    scored = frame.main | pd.Series(points, index=frame.index, dtype=bool)
    frame = frame[(frame.status == "ok") & ~frame.superseded & frame.value.notna() & scored]
    frame = _without_whole_folds(frame)
    frame = frame.assign(column=_columns(frame, stated, notes))
    rows = []
    for system, records in frame.groupby("system", sort=False):
        cells = {column: _cell(group, notes) for column, group in records.groupby("column", sort=False)}
        first = records.iloc[0]  # sizes and names are the system's, the same in all of its lines
        details = [first.upstream, "" if first.weights == NO_CHECKPOINT else first.weights[:12]]
        details += [] if pd.isna(first.layer) else [f"layer {first.layer}"]
        rows.append(
            Row(
                name=names[system],
                published=False,
                parameters=None if pd.isna(first.parameters) else int(first.parameters),
                macs_g=None if pd.isna(first.macs) else float(first.macs) / 1e9,
                cells=dict(sorted(cells.items(), key=lambda item: item[0].order)),
                detail=" ".join(filter(None, details)),
                system=system,
            )
        )
    rows.sort(key=lambda row: (-(row.parameters or 0), row.name))
    return rows, list(dict.fromkeys([*notes, *_run_notes(rows)]))


def _names(frame: pd.DataFrame) -> dict[str, str]:
    """A different name for each system: its label, and where labels collide what tells the systems apart."""
    systems = frame.drop_duplicates("system")
    layers = [f", layer {layer}" if pd.notna(layer) else "" for layer in systems.layer]
    layered = systems.label.where(~systems.label.duplicated(keep=False), systems.label + layers)
    names: dict[str, str] = {}
    for one, name in zip(systems.itertuples(), layered):
        details = " ".join(part for part in (one.upstream, one.weights[:8], one.options.strip()) if part)
        name = name if (layered == name).sum() == 1 else f"{name} ({details})"
        names[one.system] = name if name not in names.values() else f"{name} {one.system}"
    return names


def _unfinished(frame: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """What is not shown because it is partial, failed, without its number or superseded."""
    notes = []
    main = frame[frame.main].drop_duplicates("path")
    bad = main[((main.status != "ok") | main.value.isna()) & ~main.superseded]
    for (system, task, split, status, reason), lines in bad.groupby(
        ["system", "task", "split", "status", "reason"], sort=False
    ):
        seeds = [f"seed {seed}{fold and ', ' + fold}" for seed, fold in zip(lines.seed, lines.fold)]
        where = ", ".join(dict.fromkeys(f"{condition}, {seed}" for condition, seed in zip(lines.condition, seeds)))
        why = f"{status}, {reason}" if status != "ok" else f"it has no number, {reason}"
        notes.append(f"{names[system]}, {task} {split}, {where} is not shown: {why}")
    for system, lines in main[main.superseded].groupby("system", sort=False):
        notes.append(f"{names[system]}: {len(lines)} records are not shown, other runs of the same cells count")
    return notes


def _without_whole_folds(frame: pd.DataFrame) -> pd.DataFrame:
    """Folds whose mean is there go; those of unfinished cross-validations stay, each in a column of its own."""
    number = ["system", "task", "split", "seed", "condition_id", "rules", "metric"]
    is_mean = frame.fold == MEAN
    return frame[~is_mean.groupby([frame[key] for key in number]).transform("any") | is_mean | (frame.fold == "")]


def _columns(frame: pd.DataFrame, stated: set[str], notes: list[str]) -> list[Column]:
    """The column of each line; conditions that were drawn otherwise get tags."""
    if frame.empty:
        return []
    frame = frame.assign(
        test=[_test(line, stated, notes) for line in frame.itertuples()],
        # Of two spellings of one condition, as with names of folders, the shorter.
        condition=frame.groupby("condition_id").condition.transform(lambda spellings: min(spellings, key=len)),
        way=frame.condition_id + frame.draws,
    )
    place = ["task", "split", "test", "condition"]
    ways = frame.groupby(place).way.transform("nunique").where(frame.condition != CLEAN, 1)
    same_sources = frame.groupby([*place, "condition_id"]).draws.transform("nunique") == 1
    tags = frame.condition_id.where(same_sources, frame.draws).str[:6].where(ways > 1, "")
    for task, condition, count in zip(frame.task, frame.condition, ways):
        if count > 1:
            notes.append(
                f"{task} under {condition} was drawn in {count} ways (other sources, seeds or lengths of audio); "
                "each has a column of its own"
            )
    shown = ["task", "split", "metric", "unit", "higher_is_better", "condition", "test"]
    return [Column(*line, tag) for line, tag in zip(frame[shown].itertuples(index=False), tags)]


def _test(line: Any, stated: set[str], notes: list[str]) -> str:
    """In what a test differs from the benchmark's; empty for the official test set."""
    parts = []
    if line.fold and line.fold != MEAN:
        parts.append(line.fold)
        notes.append(
            f"{line.task} is scored by the mean over all its folds; where some are missing, each of those that are "
            "there has a column of its own"
        )
    official = None if pd.isna(line.official) else bool(line.official)
    if line.task not in stated and not official:
        if official is False and not parts:
            notes.append(
                f"{line.task} {line.split} was scored on {line.items} items, which is not the official test set: "
                "these numbers have columns of their own and must not be compared with published ones"
            )
        elif not parts and points_of(line.task):  # else nobody has published on it
            notes.append(
                f"{line.task} {line.split} has columns of its own beside the published ones: how many items the "
                f"official test set has is not known here; if it is the official one, say --official {line.task}"
            )
        parts.append(f"{line.items} items")
    if line.train_condition != CLEAN:
        parts.append(f"heads trained on {line.train_condition}")
    if line.quick:
        parts.append(line.quick)
    return ", ".join(parts)


def _cell(lines: pd.DataFrame, notes: list[str]) -> Cell:
    """One system in one column: its seeds together, as far as they were run under the same rules."""
    by_rules = [own for _, own in lines.groupby("rules", sort=False)]
    shown = max(by_rules, key=lambda own: (own.non_standard.iloc[0] == (), len(own), own.start_utc.max()))
    shown = shown.sort_values(["items", "start_utc"], kind="stable").drop_duplicates("seed", keep="last")
    parts, units = {}, {}
    for line in shown.itertuples():
        try:
            items = items_of(line.path)
        except (RecordError, OSError) as error:
            notes.append(f"no interval for {line.path}: {error}")
            continue
        if items is not None and line.metric in items.metrics:
            parts[line.seed] = contributions(items.metrics[line.metric], items.groups)
            by_speaker = len(parts[line.seed]) < len(items.ids)
            units[line.seed] = tuple(sorted(set(items.groups))) if by_speaker else items.ids
    if len(set(units.values())) != 1:
        parts, units = {}, {}
    phrases = dict.fromkeys(phrase for marks in shown.non_standard if isinstance(marks, tuple) for phrase in marks)
    others = len(lines) - len(shown)
    newest = shown.sort_values("start_utc").path.iloc[-1]  # of a mean over folds, the files of all
    return Cell(
        dict(zip(shown.seed, shown.value)),
        parts,
        next(iter(units.values()), ()),
        rules=shown.rules.iloc[0] or "; ".join(phrases),
        non_standard=tuple(phrases),
        remarks=(f"{others} runs under other rules are not shown",) if others else (),
        record=newest if isinstance(newest, str) else newest[-1],
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
