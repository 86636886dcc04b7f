"""Cells of wide tables carry the heading of their column, which a phone shows in front of them (see extra.css)."""

from __future__ import annotations

import re
from typing import Any

_TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
_HEADING = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<td\b")
_TAG = re.compile(r"<[^>]+>")


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs with the body of each page."""
    return _TABLE.sub(lambda table: _labelled(table[0]), html)


def _labelled(table: str) -> str:
    """The same table with a ``data-label`` at each cell if it has three columns or more."""
    headings = [_TAG.sub("", heading).strip().replace('"', "&quot;") for heading in _HEADING.findall(table)]
    if len(headings) < 3:
        return table

    def row(match: re.Match) -> str:
        names = iter(headings)
        return _CELL.sub(lambda cell: f'{cell[0]} data-label="{next(names, "")}"', match[0])

    return _ROW.sub(row, table)
