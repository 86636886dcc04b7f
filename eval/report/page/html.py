"""The leaderboard as one HTML page that needs nothing else: no network, no server, no library.

The page is ``page.html`` in the look of all pages, with the scripts and the data written into it. Its content security
policy forbids the browser to load anything. The charts are drawn by the page's own scripts: Vega-Lite would bring a
megabyte and ask the policy for ``unsafe-eval``, to save some two hundred lines.
"""

from __future__ import annotations

import itertools
import json
from importlib.resources import files
from typing import Any

import pandas as pd

from robustdistiller.common.page.render import render_page
from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.cells import Column
from robustdistiller.eval.report.comparison import compare_rows
from robustdistiller.eval.report.robustness import curves, has_true_zero, summary_names
from robustdistiller.eval.report.rows import Row
from robustdistiller.eval.report.significance import Estimate
from robustdistiller.eval.report.tables import clean_grid
from robustdistiller.eval.results.identity import CLEAN

_PACKAGE = "robustdistiller.eval.report.page"
_SCRIPTS = ("page.js", "table.js", "charts.js", "scatter.js", "views.js", "controls.js")
#: Numbers of compared pairs of systems that a page holds; of larger boards the differences stand without intervals.
_MOST_COMPARED = 4000


def page_data(board: Board) -> dict[str, Any]:
    """What the page's scripts draw, as plain data: columns in groups, rows, compared pairs, notes and sources."""
    ids = {column: f"c{i}" for i, column in enumerate(board.columns)}
    sources = list(board.sources)
    rows = [_row(row, ids, sources) for row in board.rows]
    row_of = {(row["published"], row["name"]): row for row in rows}
    groups = []
    for place, (group, columns) in enumerate(board.groups.items()):
        summaries = board.summaries(group)
        names = summary_names(one for summary in summaries for one in summary.rows.values())
        names = [name for name in names if not name.startswith(("worst", "sd"))]
        for summary in summaries:
            for system, found in summary.rows.items():
                robust = {name: _estimate(found[name]) for name in names if name in found}
                row_of[summary.published, system]["robust"][f"g{place}"] = robust
        first = columns[0]
        groups.append(
            {
                "id": f"g{place}",
                "title": first.task_title,
                "metric": first.metric_title,
                "higher": first.higher_is_better,
                "digits": first.digits,
                "percent": has_true_zero(first),
                "columns": _columns(columns, ids),
                "summaries": names,
                "over": [f"{', '.join(one.rows)}: {', '.join(c.title for c in one.columns)}" for one in summaries],
            }
        )
    return {
        "groups": groups,
        "rows": rows,
        "pairs": _pairs(board, ids),
        "reference": board.reference,
        "against": [row.name for row in board.rows].index(board.reference) if board.reference else 0,
        "notes": list(board.notes),
        "sources": list(board.sources.values()),
    }


def _columns(columns: list[Column], ids: dict[Column, str]) -> list[dict[str, Any]]:
    found = curves([column.condition for column in columns if not column.tag])
    snrs = {condition: (curve, snr_db) for curve, points in found.items() for snr_db, condition in points}
    described = []
    for column in columns:
        curve, snr_db = ("", None) if column.tag else snrs.get(column.condition, ("", None))
        clean = column.condition == CLEAN
        described.append({"id": ids[column], "title": column.title, "clean": clean, "curve": curve, "snr": snr_db})
    return described


def _row(row: Row, ids: dict[Column, str], sources: list[str]) -> dict[str, Any]:
    cells = {
        ids[column]: {
            **_estimate(column.bounded(cell.estimate)),
            "remark": cell.remark,
            "marked": bool(cell.non_standard),
            "rules": cell.rules,
            "seeds": len(cell.values),
        }
        for column, cell in row.cells.items()
    }
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
        "cells": cells,
        "robust": {},
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval or (None, None)
    return {"v": estimate.value, "low": low, "high": high}


def _pairs(board: Board, ids: dict[Column, str]) -> list[dict[str, Any]]:
    """Paired differences of measured systems, with intervals and verdicts."""
    pairs = list(itertools.combinations(enumerate(board.measured), 2))
    if len(pairs) * len({column for row in board.measured for column in row.cells}) > _MOST_COMPARED:
        return []
    id_of = {(*column.group, column.title): name for column, name in ids.items()}
    found = []
    for (i, one), (j, other) in pairs:
        frame = compare_rows(board, one, other).frame
        lines = {
            id_of[key]: [line.difference, *_bounds(line), line.p_adjusted, line.better]
            for line in frame[frame.p.notna()].itertuples()
            if (key := (line.task, line.split, line.metric, line.test, line.title)) in id_of
        }
        found.append({"first": i, "second": j, "lines": lines})
    return found


def _bounds(line: Any) -> tuple[float | None, float | None]:
    """Both ends of an interval, where there is one: McNemar's test has a p-value without it where all items differ."""
    return (None, None) if pd.isna(line.low) else (line.low, line.high)


def to_html(board: Board, title: str) -> str:
    """The whole page."""
    folder = files(_PACKAGE)
    return render_page(
        _PACKAGE,
        "page.html",
        ["page.css"],
        title=title,
        # No "<" in the data can end the script element it stands in.
        data=json.dumps(page_data(board), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        scripts="\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS),
        grid=clean_grid(board, ["all"]),
    )
