"""The leaderboard as one HTML page that needs nothing else: no network, no server, no library.

The page is ``page.html`` with ``page.css``, the scripts and the data written into it. Its content security policy
forbids the browser to load anything.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import Any

from robustdistiller.eval.report.board import Board, Cell, Column, Row
from robustdistiller.eval.report.robustness import CLEAN, curves
from robustdistiller.eval.report.significance import Estimate
from robustdistiller.eval.report.tables import clean_grid

_SCRIPTS = ("page.js", "table.js", "charts.js", "scatter.js")


def page_data(board: Board) -> dict[str, Any]:
    """What the page's scripts draw, as plain data.

    Args:
        board: the leaderboard.

    Returns:
        ``groups`` (columns of one task, metric and test set), ``rows``, ``notes`` and ``sources``.

    Example:
        >>> from robustdistiller.eval.report.rows import build_board
        >>> from robustdistiller.eval.report.published import load_published
        >>> data = page_data(build_board([], load_published()))
        >>> data["groups"][0]["title"], len(data["rows"]) > 30
        ('PR', True)
    """
    numbered = {column: f"c{i}" for i, column in enumerate(board.columns)}
    groups = []
    named: dict[tuple, str] = {}
    for i, (key, columns) in enumerate(board.groups().items()):
        named[key] = f"g{i}"
        snrs = {
            condition: (curve, snr)
            for curve, points in curves([column.condition for column in columns]).items()
            for snr, condition in points
        }
        groups.append(
            {
                "id": f"g{i}",
                "title": columns[0].task_title,
                "metric": columns[0].metric_title,
                "higher": columns[0].higher_is_better,
                "digits": 4 if columns[0].metric == "mtwv" else 2,
                "columns": [_column(column, numbered[column], snrs) for column in columns],
            }
        )
    sources = list(board.sources)
    return {
        "groups": groups,
        "rows": [_row(row, numbered, named, sources) for row in board.rows],
        "notes": list(board.notes),
        "sources": [board.sources[key] for key in sources],
    }


def _column(column: Column, name: str, snrs: dict[str, tuple[str, float]]) -> dict[str, Any]:
    curve, snr = snrs.get(column.condition, ("", None)) if not column.tag else ("", None)
    return {"id": name, "title": column.title, "clean": column.condition == CLEAN, "curve": curve, "snr": snr}


def _row(row: Row, numbered: dict[Column, str], named: dict[tuple, str], sources: list[str]) -> dict[str, Any]:
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
        "cells": {numbered[column]: _cell(cell) for column, cell in row.cells.items()},
        "robust": {
            named[group]: {
                "mean": _estimate(found.mean),
                "loss": _estimate(found.degradation),
                "areas": {name: _estimate(area) for name, area in found.areas.items()},
            }
            for group, found in row.robustness.items()
        },
    }


def _cell(cell: Cell) -> dict[str, Any]:
    marked = bool(cell.non_standard)
    return {"v": cell.value, "low": cell.low, "high": cell.high, "remark": cell.remark, "marked": marked}


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else {"v": estimate.value, "low": estimate.low, "high": estimate.high}


def to_html(board: Board, title: str = "RobustDistiller leaderboard") -> str:
    """The whole page.

    Args:
        board: the leaderboard.
        title: heading of the page.

    Example:
        >>> from robustdistiller.eval.report.rows import build_board
        >>> from robustdistiller.eval.report.published import load_published
        >>> page = to_html(build_board([], load_published()), "Ours & theirs")
        >>> "<title>Ours &amp; theirs</title>" in page, "https://cdn" in page
        (True, False)
    """
    folder = files("robustdistiller.eval.report.page")
    parts = {
        "title": html.escape(title),
        "style": folder.joinpath("page.css").read_text(encoding="utf-8"),
        # No "<" in the data can end the script element it stands in.
        "data": json.dumps(page_data(board), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        "scripts": "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS),
        "table": _static_table(board),
    }
    # In one pass: a part that holds another part's placeholder is not filled again.
    pieces = folder.joinpath("page.html").read_text(encoding="utf-8").split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled += [parts[name], rest]
    return "".join(filled)


def _static_table(board: Board) -> str:
    """The table of clean speech as plain HTML, for browsers that run no scripts."""
    grid = clean_grid(board, ["all"])
    head = "".join(
        f'<th scope="col">{html.escape(a)}<br>{html.escape(b)}</th>' for a, b in zip(grid.header, grid.subheader)
    )
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in grid.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
