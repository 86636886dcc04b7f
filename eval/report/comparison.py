"""Two systems, cell by cell: paired differences with tests, and the cells that one of the two lacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robustdistiller.common.names import did_you_mean
from robustdistiller.eval import tasks
from robustdistiller.eval.report.board import Board, leaderboard
from robustdistiller.eval.report.cells import Cell, Column, condition_weights, shared_seeds, stack
from robustdistiller.eval.report.rows import Row
from robustdistiller.eval.report.significance import CONFIDENCE, Estimate, adjust, crossed_test, mcnemar
from robustdistiller.eval.results.files import read_record
from robustdistiller.eval.results.identity import CLEAN, differences


@dataclass(frozen=True)
class Missing:
    """Cells that one measured system lacks and the other has.

    Attributes:
        name: the system that lacks them.
        columns: the other's columns.
    """

    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Comparison:
    """One system against another.

    Attributes:
        first: the row of one system.
        second: the row of the other.
        frame: one line for each cell that both have, and one for the mean over the corrupted conditions of a task;
            ``difference`` is first minus second, ``p_adjusted`` is corrected within the task (Holm), ``better`` names
            the system that is better beyond chance, empty where none is shown to be.
        missing: what either lacks.
    """

    first: Row
    second: Row
    frame: pd.DataFrame
    missing: tuple[Missing, ...] = ()


def compare(
    first: str,
    second: str,
    folders: Iterable[Path | str],
    *,
    tasks: Collection[str] = (),
    official: Iterable[str] = (),
) -> Comparison:
    """Compare two systems on all cells that both have.

    Intervals and tests count items (speakers, where they are known) and seeds as chance; where both have one seed and
    every item is right or wrong, the test is McNemar's. Published numbers have no results of single items.

    Args:
        first: name of a measured or published system; ``published:NAME`` where a label is the same.
        second: name of the other one.
        folders: folders of records.
        tasks: the ones to look at; all where none is given.
        official: tasks whose measured test sets are the official ones although their number of items is not known.

    Raises:
        ValueError: no or several systems of a name, one system on both sides, or an unknown task.
        FileNotFoundError: a folder that is not there, or has no records.

    Example:
        >>> import robustdistiller
        >>> robustdistiller.compare("DPHuBERT", "DistilHuBERT", []).first.name
        'DPHuBERT'
    """
    board = leaderboard(folders, official=official)
    found = compare_rows(board, board.row(first), board.row(second), tasks)
    return dataclasses.replace(found, missing=missing_cells(board, found.first, found.second, tasks))


def compare_rows(board: Board, one: Row, other: Row, only: Collection[str] = ()) -> Comparison:
    """As `compare`, of two rows of a leaderboard, without what is missing."""
    if one is other:
        raise ValueError(f"{one.name!r} is on both sides")
    lines, codes = [], _codes(board, only)
    for (task, *_), columns in board.groups.items():
        shared = [c for c in columns if task in codes and c in one.cells and c in other.cells]
        family = [_line(one, other, [column]) for column in shared]
        corrupted = [column for column in shared if column.condition != CLEAN]
        if len(corrupted) > 1:
            family.append(_line(one, other, corrupted))
        lines += _judged(family, one.name, other.name)
    return Comparison(one, other, pd.DataFrame(lines, columns=_COLUMNS))


def missing_cells(board: Board, first: Row, second: Row, only: Collection[str] = ()) -> tuple[Missing, ...]:
    """Cells that one of two measured systems has and the other lacks; published systems cannot be filled."""
    found, codes = [], _codes(board, only)
    for lacking, having in ((first, second), (second, first)):
        columns = [c for c in having.cells if c.task in codes and c not in lacking.cells]
        if columns and not first.published and not second.published:
            found.append(Missing(lacking.name, tuple(columns)))
    return tuple(found)


def _codes(board: Board, only: Collection[str]) -> set[str]:
    """The tasks to look at. Those that records are of have names here, though nobody else may know them."""
    there = {column.task.lower(): column.task for column in board.columns}

    def code(name: str) -> str:
        try:
            return there.get(name.lower()) or tasks.get(name).code
        except ValueError as error:
            raise ValueError(f"unknown task {name!r}{did_you_mean(name, [*there.values(), *tasks.TASKS])}") from error

    return {code(name) for name in only or there}


_COLUMNS = [
    *("task", "split", "test", "metric", "unit", "higher_is_better", "condition", "title", "first", "second"),
    *("difference", "low", "high", "p", "p_adjusted", "test_used", "better", "marks", "remark"),
]


def _line(one: Row, other: Row, columns: Sequence[Column]) -> dict[str, Any]:
    """The difference in one column, or in the mean over several of one task."""
    sides = [[row.cells[column] for column in columns] for row in (one, other)]
    weights = condition_weights(columns)
    values, estimate, test, remark = _paired(*sides, weights.mean(axis=0))
    low, high = columns[0].bounded_difference(estimate).interval or (None, None)
    published = one.published or other.published
    ruled = [] if published else [(a, b) for a, b in zip(*sides) if a.rules != b.rules]
    if published:
        remark = "published: no interval"
    elif ruled:
        reasons = differences(*(read_record(cell.record) for cell in ruled[0]))
        remark = "; ".join(filter(None, dict.fromkeys(["run under different rules", *reasons, remark])))
    first = columns[0]
    several = f"mean of {len(weights)} conditions" if len(weights) > 1 else f"mean of {len(columns)} draws"
    return {
        **{name: getattr(first, name) for name in ("task", "split", "test", "metric", "unit", "higher_is_better")},
        "condition": first.condition if len(columns) == 1 else several,
        "title": first.title if len(columns) == 1 else several,
        **dict(zip(("first", "second"), values)),
        **{"difference": estimate.value, "low": low, "high": high, "test_used": test[0], "p": test[1]},
        "marks": ["‡" if any(cell.non_standard for cell in cells) else "" for cells in sides],
        "remark": remark,
    }


def _paired(
    first: Sequence[Cell], second: Sequence[Cell], weights: np.ndarray
) -> tuple[list[float], Estimate, tuple[str, Any], str]:
    """Both values, their difference, the test with its p-value, and why there is none or what it leaves out.

    Of several cells, each counts by its weight.

    Seeds that both sides have are paired; where they have none in common, one seed is as good as another.
    """
    own = [shared_seeds(cells) for cells in (first, second)]
    common = [seed for seed in own[0] if seed in own[1]]
    fewest = min(map(len, own))
    seeds = [common, common] if common else [side[:fewest] for side in own]
    values = [
        float(weights @ [np.mean([c.values[s] for s in side]) if side else c.value for c in cells])
        for cells, side in zip((first, second), seeds)
    ]
    plain = Estimate(values[0] - values[1])
    remark, why = "", ""
    if any(len(side) < len(cell.values) for side, cells in zip(seeds, (first, second)) for cell in cells) and fewest:
        remark = f"over {len(seeds[0])} seed{'s' if len(seeds[0]) > 1 else ''} of each"
    stacks = [stack(cells, side) for cells, side in zip((first, second), seeds)]
    if not fewest:
        why = "no seed under all of these conditions: no interval"
    elif any(one is None for one in stacks):
        why = "no results of single items: no interval"
    elif first[0].units != second[0].units:
        why = "other items: no interval"
    if why:
        return values, plain, ("", None), "; ".join(filter(None, [remark, why]))
    parts = [np.tensordot(weights, one, 1) for one in stacks]  # (seeds, units)
    estimate = crossed_test([parts[0] - parts[1]])
    if len(first) == 1 and len(seeds[0]) == 1 and all(np.isin(one.round(6), (0.0, 100.0)).all() for one in parts):
        return values, estimate, ("McNemar", mcnemar(parts[0][0] > 50, parts[1][0] > 50)), remark
    if estimate.p is None:
        return values, estimate, ("", None), "; ".join(filter(None, [remark, "the same for all items: no interval"]))
    return values, estimate, ("t-test over items and seeds", estimate.p), remark


def _judged(family: list[dict[str, Any]], first: str, second: str) -> list[dict[str, Any]]:
    """Lines of one task with corrected p-values and verdicts."""
    tested = [line for line in family if line["p"] is not None]
    for line, p in zip(tested, adjust([line["p"] for line in tested])):
        line["p_adjusted"] = float(p)
        gain = line["difference"] * (1 if line["higher_is_better"] else -1)
        if p < 1 - CONFIDENCE and "different rules" not in line["remark"]:
            line["better"] = first if gain > 0 else second
    return [{"p_adjusted": None, "better": "", **line} for line in family]
