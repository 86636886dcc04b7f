"""How a leaderboard is made of measured and published systems."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.titles import condition_order, condition_title
from robustdistiller.eval.report.board import Board, Cell, Column, Row
from robustdistiller.eval.report.measured import CellKey, MeasuredCell, MeasuredSystem
from robustdistiller.eval.report.published import METRICS, Published, Result
from robustdistiller.eval.report.robustness import CLEAN, Measured, Robustness, summarise
from robustdistiller.eval.report.significance import bootstrap
from robustdistiller.eval.results.record import NO_CHECKPOINT
from robustdistiller.eval.tasks.superb import (
    ScoreError,
    missing_tasks,
    overall_mean,
    points_of,
    superb_score,
)

#: Published systems that every table shows, the first ones a student is compared with.
REFERENCE_SYSTEMS = ("WavLM Base+", "HuBERT Base", "DPWavLM", "DPHuBERT", "DistilHuBERT")
#: Published protocols whose numbers stand in the table; others answer other questions.
_SHOWN_PROTOCOLS = {"superb": "", "last-layer": " [last layer only]"}


def build_board(
    systems: Sequence[MeasuredSystem], published: Published | None, official: Iterable[str] = (), draws: int = 1000
) -> Board:
    """Bring measured and published systems together.

    A measured cell shares a column with published ones only if it was scored on as many items as the official test
    set has, or if the task is named in `official`.

    Args:
        systems: measured systems.
        published: published numbers; None for measured systems only.
        official: tasks whose measured test sets are the official ones although their number of items is not known.
        draws: bootstrap samples of each interval.

    Raises:
        ValueError: unknown task in `official`.
    """
    stated = {tasks.get(name).code for name in official}
    notes: list[str] = []
    tags = _tags(systems)
    rows = [_measured_row(system, stated, tags, draws, notes) for system in systems]
    if published is not None:
        rows += _published_rows(published)
    columns = sorted({column for row in rows for column in row.cells}, key=_column_order)
    sources = {key: f"{s.title}: {s.where}" for key, s in published.sources.items()} if published else {}
    used = {source for row in rows for source in row.sources}
    if published is not None:
        notes.append(
            "superb_s and the overall mean of published systems are computed from their printed metrics and may differ "
            "from printed scores by rounding; where metrics were not found, superb_s is the printed score"
        )
    notes += [sentence for system in systems for sentence in system.refused]
    return Board(
        tuple(rows), tuple(columns), tuple(dict.fromkeys(notes)), {k: t for k, t in sources.items() if k in used}
    )


def _column_order(column: Column) -> tuple:
    order = list(tasks.TASKS)
    known = order.index(column.task) if column.task in order else len(order)
    metrics = list(points_of(column.task))
    place = metrics.index(column.metric) if column.metric in metrics else len(metrics)
    return (
        *(known, column.task, column.split, column.items is not None, column.items or 0, place, column.metric),
        *(condition_order(column.condition), column.tag),
    )


def _tags(systems: Sequence[MeasuredSystem]) -> dict[str, str]:
    """Condition digest to what tells it from another of equal form, empty where there is none."""
    forms: dict[str, set[str]] = {}
    for system in systems:
        for key in system.cells:
            forms.setdefault(key.condition, set()).add(key.condition_digest)
    return {d: d[:6] if len(digests) > 1 else "" for digests in forms.values() for d in digests}


def _official_items(task: str, split: str) -> int | None:
    known = tasks.TASKS.get(task)
    return known.item_counts.get(split) if known else None


def _measured_row(
    system: MeasuredSystem, stated: set[str], tags: Mapping[str, str], draws: int, notes: list[str]
) -> Row:
    cells: dict[Column, Cell] = {}
    for key, cell in system.cells.items():
        main = cell.records[0].main_metric.name
        for name in dict.fromkeys([main, *points_of(key.task)]):
            if name in cell.values:
                cells[_column(key, cell, name, stated, tags, notes)] = _measured_cell(cell, name, draws)
    robustness = {}
    for group in {column.group for column in cells}:
        columns = [column for column in cells if column.group == group]
        found = _summaries(system, columns, tags, draws)
        if found.conditions:
            robustness[group] = found
    row = Row(
        name=system.name,
        published=False,
        parameters=system.parameters,
        macs_g=None if system.macs is None else system.macs / 1e9,
        cells=cells,
        robustness=robustness,
        detail=" ".join(part for part in (system.identity[1], system.identity[2][:12]) if part != NO_CHECKPOINT),
    )
    notes += _non_standard_notes(row)
    row = _with_scores(row)
    if row.superb_s is None and any(c.items is None for c in cells):
        missing = ", ".join(missing_tasks(_official_values(row)))
        notes.append(f"{row.name} has no superb_s: it is the mean over ten tasks, and these are missing: {missing}")
    return row


def _non_standard_notes(row: Row) -> list[str]:
    """One sentence for each task of which a system has runs that are not standard."""
    found: dict[str, dict[str, None]] = {}
    for column, cell in row.cells.items():
        if cell.non_standard:
            found.setdefault(column.task, {}).update(dict.fromkeys(cell.non_standard))
    return [f"{row.name}, {task}: not a standard run, {'; '.join(phrases)}" for task, phrases in found.items()]


def _column(
    key: CellKey, cell: MeasuredCell, metric: str, stated: set[str], tags: Mapping[str, str], notes: list[str]
) -> Column:
    official = _official_items(key.task, key.split)
    items: int | None = cell.items_scored
    if key.task in stated or items == official:
        items = None
    elif official is None:
        notes.append(
            f"{key.task} {key.split} has columns of its own beside the published ones: how many items the official "
            f"test set has is not known here; if it is the official one, say --official {key.task}"
        )
    else:
        notes.append(
            f"{key.task} {key.split} was scored on {items} items and the official test set has {official}: these "
            "numbers have columns of their own and must not be compared with published ones"
        )
    found = cell.metric(metric)
    tag = tags.get(key.condition_digest, "")
    title = condition_title(key.condition) + (f" [{tag}]" if tag else "")
    return Column(
        *(key.task, key.split, metric, found.unit, found.higher_is_better),
        *(key.condition, title, items, tag),
    )


def _measured_cell(cell: MeasuredCell, metric: str, draws: int) -> Cell:
    items = cell.items.get(metric)
    estimate = bootstrap(items, draws) if items is not None else None
    marks = tuple(dict.fromkeys(phrase for record in cell.records for phrase in record.non_standard or ()))
    return Cell(
        cell.values[metric],
        *((estimate.low, estimate.high) if estimate is not None else (None, None)),
        seeds=len(cell.records),
        remark=f"not a standard run: {'; '.join(marks)}" if marks else "",
        non_standard=marks,
    )


def _summaries(system: MeasuredSystem, columns: list[Column], tags: Mapping[str, str], draws: int) -> Robustness:
    """Robustness of a system on one task; conditions drawn twice, from other sources, are told apart by their tag."""
    first = columns[0]
    cells, ids = {}, set()
    for key, cell in system.cells.items():
        tag = tags.get(key.condition_digest, "")
        if (key.task, key.split) != (first.task, first.split) or first.metric not in cell.values:
            continue
        if not any(c.condition == key.condition and c.tag == tag for c in columns) or key.condition in cells:
            continue
        ids.add(cell.ids)
        cells[key.condition] = Measured(cell.values[first.metric], cell.items.get(first.metric))
    if len(ids) > 1:  # not the same items: nothing to draw together
        cells = {condition: Measured(one.value) for condition, one in cells.items()}
    return summarise(cells, first.metric, first.higher_is_better, draws)


def _published_rows(published: Published) -> list[Row]:
    rows = []
    for name, system in published.systems.items():
        for protocol, suffix in _SHOWN_PROTOCOLS.items():
            results = published.of(name, protocol)
            printed = published.value(name, "SUPERB", "superb_s") if protocol == "superb" else None
            if not results and printed is None:
                continue
            macs_known = system.macs_g is not None and system.macs_source != "unchecked"
            made_from = ", ".join(part for part in (system.teacher, system.distilled_on) if part)
            scored = [r for r in published.results if (r.system, r.metric, r.verified) == (name, "superb_s", True)]
            keys = {r.source for r in (results or scored)} | ({system.macs_source} if macs_known else set())
            row = Row(
                name=name + suffix,
                published=True,
                parameters=system.parameters,
                macs_g=system.macs_g if macs_known else None,
                cells={_published_column(r): Cell(r.value, seeds=0, source=r.source, remark=r.remark) for r in results},
                detail=f"from {made_from}" if made_from else "",
                sources=tuple(key for key in published.sources if key in keys),
            )
            row = _with_scores(row)
            rows.append(row if row.superb_s is not None else dataclasses.replace(row, superb_s=printed))
    return sorted(rows, key=lambda r: -(r.parameters or 0))


def _published_column(result: Result) -> Column:
    task = tasks.TASKS.get(result.task)
    unit = next((m.unit for m in task.metrics if m.name == result.metric), None) if task else None
    if unit is None:
        unit = "" if result.metric in ("mtwv", "pesq", "bleu") else "%"
    split = tasks.official_split(result.task)
    title = condition_title(result.condition)
    return Column(result.task, split, result.metric, unit, METRICS[result.metric], result.condition, title)


def _official_values(row: Row) -> dict[tuple[str, str], float]:
    return {
        (c.task, c.metric): cell.value
        for c, cell in row.cells.items()
        if c.condition == CLEAN and c.items is None and c.split == tasks.official_split(c.task)
    }


def _with_scores(row: Row) -> Row:
    values = _official_values(row)
    try:
        return dataclasses.replace(row, superb_s=superb_score(values).total, overall=overall_mean(values))
    except ScoreError:
        return row
