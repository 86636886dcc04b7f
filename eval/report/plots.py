"""Plots of one task: the metric against the condition, one line for each system."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robustdistiller.common.files import slug, write_atomically
from robustdistiller.common.page.figures import COLOURS
from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.cells import Column
from robustdistiller.eval.report.rows import Row
from robustdistiller.eval.results.identity import CLEAN

_MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def plot_board(board: Board, folder: Path | str) -> list[Path]:
    """Draw the measured systems of each task that was scored under conditions, one PNG each."""
    written = []
    drawn: set[str] = set()
    for columns in board.groups.values():
        rows = [row for row in board.measured if any(column in row.cells for column in columns)]
        shown = [column for column in columns if any(column in row.cells for row in rows)]
        if not any(column.condition != CLEAN for column in shown):
            continue
        first = shown[0]
        parts = [first.task, first.split, first.test.replace(",", "").replace(" ", "_")]
        name = "-".join(slug(part) for part in parts if part)
        name += f"-{first.metric}" if name in drawn else ""  # the first is the task's headline number
        drawn.add(name)
        written.append(plot_task(rows, shown, Path(folder) / f"{name}.png", board.reference))
    return written


def plot_task(rows: Sequence[Row], columns: Sequence[Column], path: Path | str, reference: str = "") -> Path:
    """Draw systems over the conditions of one task, as a PNG or any format matplotlib knows by the file's suffix."""
    figure = Figure(figsize=(max(6.4, 1.35 * len(columns) + 2.6), 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    looks = itertools.cycle(zip(COLOURS, _MARKERS))
    for i, row in enumerate(sorted(rows, key=lambda row: row.name != reference)):
        if row.name == reference:
            style = {"color": "black", "linestyle": "--", "linewidth": 1.6, "zorder": 2}
        else:
            style = {**dict(zip(("color", "marker"), next(looks))), "markersize": 6.5, "zorder": 3}
        there = [(x, c.bounded(row.cells[c].estimate)) for x, c in enumerate(columns) if c in row.cells]
        values = np.array([estimate.value for _, estimate in there])
        bounds = np.array([estimate.interval or (estimate.value, estimate.value) for _, estimate in there])
        errors = np.abs(bounds - values[:, None]).T
        # A small sideways shift keeps the error bars of different systems apart.
        shift = 0.05 * (i - (len(rows) - 1) / 2)
        axes.errorbar(
            [x + shift for x, _ in there],
            values,
            yerr=errors if errors.any() else None,
            label=f"{row.name} ({f'{row.size} M' if row.parameters else 'no parameters'})",
            capsize=2.5,
            elinewidth=1.0,
            **style,
        )
    first = columns[0]
    axes.set_xticks(range(len(columns)), [textwrap.fill(column.title, 14) for column in columns])
    axes.set_xlim(-0.4, len(columns) - 0.6)
    if first.unit == "%":
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0.0), min(high, 105.0) if first.higher_is_better else high)
    axes.set_ylabel(first.metric_title)
    bars = any(c in row.cells and row.cells[c].estimate.interval for row in rows for c in columns)
    axes.set_title(first.task_title + ("; bars: 95 % confidence" if bars else ""), fontsize=10)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    kind = Path(path).suffix.removeprefix(".") or "png"
    return write_atomically(path, lambda file: figure.savefig(file, format=kind))
