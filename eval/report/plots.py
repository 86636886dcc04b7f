"""Plots of tables: the metric against the condition, one line per upstream."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robustdistiller.common.files import write_atomically
from robustdistiller.eval.report.table import TaskTable

# Okabe and Ito's palette: told apart with the common colour-vision deficiencies; markers differ as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def plot_table(table: TaskTable, path: Path | str, reference: str | None = None) -> Path:
    """Draw one table as a PNG (or any format matplotlib knows by the file's suffix).

    Args:
        table: what to draw; error bars are its standard errors.
        path: file to write.
        reference: label of the row to draw as a dashed black reference line, usually the teacher.

    Returns:
        The path.

    Raises:
        ValueError: the reference is not a row of the table.

    Example:
        >>> import tempfile
        >>> from robustdistiller.eval.results.record import example_record
        >>> from robustdistiller.eval.report.table import build_tables
        >>> table, = build_tables([example_record()])
        >>> plot_table(table, Path(tempfile.mkdtemp()) / "ic.png").name
        'ic.png'
    """
    labels, conditions = list(table.values.index), list(table.values.columns)
    if reference is not None and reference not in labels:
        raise ValueError(f"no row {reference!r} in the table; rows: {', '.join(labels)}")
    figure = Figure(figsize=(max(6.4, 1.35 * len(conditions) + 2.6), 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    others = [label for label in labels if label != reference]
    for i, label in enumerate([*([reference] if reference else []), *others]):
        style = (
            {"color": "black", "linestyle": "--", "marker": "", "linewidth": 1.6, "zorder": 2}
            if label == reference
            else {
                "color": _COLOURS[others.index(label) % len(_COLOURS)],
                "marker": _MARKERS[others.index(label) % len(_MARKERS)],
                "markersize": 6.5,
                "linewidth": 2.0,
                "zorder": 3,
            }
        )
        # A small sideways shift keeps the error bars of different upstreams apart.
        shift = 0.05 * (i - (len(labels) - 1) / 2)
        errors = [0.0 if math.isnan(e) else e for e in table.errors.loc[label]]
        axes.errorbar(
            [x + shift for x in range(len(conditions))],
            table.values.loc[label],
            yerr=errors if any(errors) else None,
            label=f"{label} ({_size(table, label)})",
            capsize=2.5,
            elinewidth=1.0,
            **style,
        )
    axes.set_xticks(range(len(conditions)), [textwrap.fill(c, 14) for c in conditions])
    axes.set_xlim(-0.4, len(conditions) - 0.6)
    if table.metric.unit == "%":
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0.0), min(high, 105.0) if table.metric.higher_is_better else high)
    axes.set_ylabel(table.metric_title)
    bars = "; bars: one standard error" if table.errors.notna().to_numpy().any() else ""
    axes.set_title(table.title + bars, fontsize=10)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    kind = Path(path).suffix.removeprefix(".") or "png"
    return write_atomically(path, lambda file: figure.savefig(file, format=kind))


def _size(table: TaskTable, label: str) -> str:
    return table.size(label) if table.parameters[label] else "no parameters"
