"""The leaderboard as one HTML page that needs nothing else: no network, no server, no library.

The page is ``page.html`` with ``page.css``, the scripts and the data written into it. Its content security policy
forbids the browser to load anything. The charts are drawn by the page's own scripts: Vega-Lite would bring a megabyte
and ask the policy for ``unsafe-eval``, to save some two hundred lines.
"""

from __future__ import annotations

import itertools
import json
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd

from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.cells import Cell, Column
from robustdistiller.eval.report.comparison import compare_rows
from robustdistiller.eval.report.robustness import curves, summary_columns
from robustdistiller.eval.report.rows import Row
from robustdistiller.eval.report.significance import Estimate
from robustdistiller.eval.report.tables import clean_grid
from robustdistiller.eval.results.identity import CLEAN

_SCRIPTS = ("page.js", "table.js", "charts.js", "scatter.js", "views.js", "controls.js")
#: Numbers of compared pairs of systems that a page holds; of larger boards the differences stand without intervals.
_MOST_COMPARED = 4000


def page_data(board: Board) -> dict[str, Any]:
    """What the page's scripts draw, as plain data.

    Args:
        board: the leaderboard.

    Returns:
        ``groups`` (columns of one task, metric and test set), ``rows``, ``pairs``, ``notes`` and ``sources``.
    """
    names = {column: f"c{i}" for i, column in enumerate(board.columns)}
    places = {group: f"g{i}" for i, group in enumerate(board.groups)}
    summaries = {group: board.summaries(group) for group in board.groups}
    kinds = {
        group: [
            kind
            for kind in summary_columns([one for summary in found for one in summary.rows.values()], board.reference)
            if not kind[0].startswith(("worst", "sd"))
        ]
        for group, found in summaries.items()
    }
    sources = list(board.sources)
    rows = []
    for row in board.rows:
        robust = {
            places[group]: {name: _estimate(find(summary.rows[row.name])) for name, _, find in kinds[group]}
            for group, found in summaries.items()
            for summary in found
            if row.name in summary.rows
        }
        rows.append(_row(row, names, robust, sources))
    groups = [
        {
            "id": places[group],
            "title": columns[0].task_title,
            "metric": columns[0].metric_title,
            "higher": columns[0].higher_is_better,
            "digits": columns[0].digits,
            "percent": columns[0].unit == "%" or columns[0].metric == "mtwv",
            "columns": _columns(columns, names),
            "summaries": [name for name, _, _ in kinds[group]],
            "over": [
                f"{', '.join(summary.rows)}: {', '.join(column.title for column in summary.columns)}"
                for summary in summaries[group]
            ],
        }
        for group, columns in board.groups.items()
    ]
    return {
        "groups": groups,
        "rows": rows,
        "pairs": _pairs(board, names),
        "reference": board.reference,
        "against": [row.name for row in board.rows].index(board.reference) if board.reference else 0,
        "notes": list(board.notes),
        "sources": [board.sources[key] for key in sources],
    }


def _columns(columns: list[Column], names: dict[Column, str]) -> list[dict[str, Any]]:
    snrs = {
        condition: (curve, snr)
        for curve, points in curves([column.condition for column in columns]).items()
        for snr, condition in points
    }
    found = []
    for column in columns:
        curve, snr = ("", None) if column.tag else snrs.get(column.condition, ("", None))
        clean = column.condition == CLEAN
        found.append({"id": names[column], "title": column.title, "clean": clean, "curve": curve, "snr": snr})
    return found


def _row(row: Row, names: dict[Column, str], robust: dict[str, Any], sources: list[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "published": row.published,
        "parameters": row.parameters,
        "macs": row.macs_g,
        "overall": row.overall,
        "superb": row.superb_s,
        "standard": row.is_standard,
        "detail": row.detail,
        "sources": [sources.index(key) + 1 for key in row.sources],
        "cells": {names[column]: _cell(column, cell) for column, cell in row.cells.items()},
        "robust": robust,
    }


def _cell(column: Column, cell: Cell) -> dict[str, Any]:
    marked = bool(cell.non_standard)
    return {
        **_estimate(column.bounded(cell.estimate)),
        "remark": cell.remark,
        "marked": marked,
        "rules": cell.rules,
        "seeds": len(cell.values),
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    low, high = estimate.interval or (None, None)
    return {"v": estimate.value, "low": low, "high": high}


def _pairs(board: Board, names: dict[Column, str]) -> list[dict[str, Any]]:
    """Paired differences of measured systems, with intervals and verdicts."""
    measured = board.measured
    if len(measured) * (len(measured) - 1) // 2 * len({c for row in measured for c in row.cells}) > _MOST_COMPARED:
        return []
    found = []
    for (i, one), (j, other) in itertools.combinations(enumerate(measured), 2):
        lines = {}
        for line in compare_rows(board, one.name, other.name).frame.itertuples():
            key = line.task, line.split, line.metric, line.test
            column = next((c for c in one.cells if c.group == key and c.title == line.title), None)
            if column is not None and not pd.isna(line.p):
                lines[names[column]] = [line.difference, line.low, line.high, line.p_adjusted, line.better]
        found.append({"first": i, "second": j, "lines": lines})
    return found


def to_html(board: Board, title: str = "RobustDistiller leaderboard") -> str:
    """The whole page.

    Args:
        board: the leaderboard.
        title: heading of the page.

    Example:
        >>> from robustdistiller.eval.report.board import leaderboard
        >>> page = to_html(leaderboard([]), "Ours & theirs")
        >>> "<title>Ours &amp; theirs</title>" in page, "https://cdn" in page
        (True, False)
    """
    folder = files("robustdistiller.eval.report.page")
    text = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *_SCRIPTS)}
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text["page.html"])
    return template.render(
        title=title,
        style=text["page.css"],
        # No "<" in the data can end the script element it stands in.
        data=json.dumps(page_data(board), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        scripts="\n".join(text[name] for name in _SCRIPTS),
        grid=clean_grid(board, ["all"]),
    )
