"""Plots of one task: the metric against the condition, one line for each system."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robustdistiller.common.files import slug, write_atomically
from robustdistiller.common.page.figures import COLOURS
from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.cells import Column
from robustdistiller.eval.report.rows import Row
from robustdistiller.eval.report.significance import Estimate
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


def _looks() -> Iterator[tuple[str, str]]:
    """A colour and a marker for each system; both are others from one to the next, and pairs come again after 49."""
    for turn in itertools.count():
        markers = (_MARKERS[(turn + place) % len(_MARKERS)] for place in range(len(COLOURS)))
        yield from zip(COLOURS, markers)


def plot_task(rows: Sequence[Row], columns: Sequence[Column], path: Path | str, reference: str = "") -> Path:
    """Draw systems over the conditions of one task, as a PNG or any format matplotlib knows by the file's suffix."""
    figure = Figure(figsize=(max(6.4, 1.35 * len(columns) + 2.6), 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    looks = _looks()
    for i, row in enumerate(sorted(rows, key=lambda row: row.name != reference)):
        if row.name == reference:
            style = {"color": "black", "linestyle": "--", "linewidth": 1.6, "zorder": 2}
        else:
            style = {**dict(zip(("color", "marker"), next(looks))), "markersize": 6.5, "zorder": 3}
        absent = Estimate(np.nan)  # no line is drawn over a condition that a system was not scored under
        estimates = [c.bounded(row.cells[c].estimate) if c in row.cells else absent for c in columns]
        values = np.array([estimate.value for estimate in estimates])
        bounds = np.array([estimate.interval or (estimate.value, estimate.value) for estimate in estimates])
        errors = np.abs(bounds - values[:, None]).T
        # A small sideways shift keeps the error bars of different systems apart, and those of one condition together.
        shift = min(0.05, 0.7 / len(rows)) * (i - (len(rows) - 1) / 2)
        axes.errorbar(
            np.arange(len(columns)) + shift,
            values,
            yerr=errors if np.nan_to_num(errors).any() else None,
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
