"""Figures of the study: scores by condition, gains over plain distillation, clean against noisy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from research.recipe_study.analysis import NOISY_MEAN, Results
from research.recipe_study.conditions import CONDITIONS
from research.recipe_study.plan import BASELINES, REFERENCE, STUDENTS
from research.recipe_study.tasks import TASKS

_SWEEP = ("clean", "noise20", "noise10", "noise5", "noise0")
# With more, the curves cannot be told apart; all are in the other figures and tables.
_CURVES = ("distilhubert", "robustdistiller", "correlation", "dphubert", "robustdistiller_dpwavlm", "ours")
_MARKERS = "osD^vP*Xhp<>"
_BASELINE_STYLES = {
    "teacher": {"color": "black", "linestyle": "--", "marker": "s"},
    "random": {"color": "0.6", "linestyle": ":", "marker": "x"},
    "fbank": {"color": "0.35", "linestyle": "-.", "marker": "+"},
}


def draw_figures(results: Results, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draws all figures whose numbers are there.

    Args:
        results: of the study.
        table: of `analysis.cell_table`.
        folder: where the PNG files go.

    Returns:
        the files.
    """
    import matplotlib

    matplotlib.use("Agg")
    drawn = {
        "scores.png": _scores(results),
        "gains.png": _gains(results, table),
        "clean-noisy.png": _clean_noisy(results),
    }
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(folder / name)
            figure.savefig(paths[-1], dpi=130, bbox_inches="tight")
            figure.clear()
    return paths


def label_of(name: str) -> str:
    """What people call an upstream.

    >>> label_of("teacher")
    'teacher'
    """
    return STUDENTS[name].label if name in STUDENTS else BASELINES[name]


def _style(name: str) -> dict:
    import matplotlib

    if name in _BASELINE_STYLES:
        return _BASELINE_STYLES[name]
    index = list(dict.fromkeys((*_CURVES, *STUDENTS))).index(name)  # strong colours to those that are drawn as curves
    color = 2 * index if index < 10 else 2 * (index - 10) + 1
    return {"color": matplotlib.colormaps["tab20"](color), "marker": _MARKERS[index % len(_MARKERS)]}


def _panels(results: Results, width: float, height: float, columns: int = 2):
    from matplotlib.figure import Figure

    rows = -(-len(results.tasks) // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(results.tasks) :]:
        axis.set_axis_off()
    return figure, axes[: len(results.tasks)]


def _scores(results: Results):
    figure, axes = _panels(results, 6.2, 4.0)
    names = [name for name in results.names if name in (*_CURVES, *BASELINES)] or results.names
    for axis, task in zip(axes, results.tasks):
        for number, name in enumerate(names):
            scores = [results.score(name, task, condition) for condition in results.conditions]
            places = [place for place, score in enumerate(scores) if score is not None]
            shift = 0.5 * (number / max(1, len(names) - 1) - 0.5)  # so that error bars lie beside each other
            style = _style(name)
            axis.errorbar(
                [place + shift for place in places],
                [scores[place].value for place in places],
                [scores[place].standard_error for place in places],
                label=label_of(name),
                markersize=4.5,
                elinewidth=0.9,
                **{**style, "linestyle": "none"},
            )
            # A line only where the condition changes by degrees.
            sweep = [place for place in places if results.conditions[place] in _SWEEP]
            line = {key: value for key, value in style.items() if key != "marker"}
            axis.plot([p + shift for p in sweep], [scores[p].value for p in sweep], linewidth=0.9, **line)
        for place in range(len(results.conditions) - 1):
            axis.axvline(place + 0.5, color="0.9", linewidth=0.8, zorder=0)
        axis.set_xticks(range(len(results.conditions)), [CONDITIONS[c].title for c in results.conditions])
        axis.tick_params(axis="x", labelrotation=30)
        for text in axis.get_xticklabels():
            text.set_horizontalalignment("right")
        axis.set_ylabel(_unit(task))
        axis.set_title(TASKS[task].title)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _unit(task: str) -> str:
    return "accuracy, %" if TASKS[task].metric == "accuracy" else "CER, % (lower is better)"


def _gains(results: Results, table: pd.DataFrame):
    names = [name for name in results.names if name != REFERENCE]
    if not table["gain"].notna().any():
        return None
    largest = float(table["gain"].abs().quantile(0.98)) or 1.0
    figure, axes = _panels(results, 6.4, 0.36 * len(names) + 1.9)
    image = None
    for axis, task in zip(axes, results.tasks):
        chosen = table[table["task"] == task]
        values = chosen.pivot(index="upstream", columns="condition", values="gain")
        values = values.reindex(index=names, columns=results.conditions)
        sure = chosen.pivot(index="upstream", columns="condition", values="p_adjusted").reindex_like(values) < 0.05
        image = axis.imshow(values, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
        for row, column in np.ndindex(values.shape):
            value = values.iat[row, column]
            text = "-" if np.isnan(value) else f"{value:+.1f}{'*' if sure.iat[row, column] else ''}"
            color = "white" if abs(value) > 0.65 * largest else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)
        axis.set_xticks(range(len(results.conditions)), [CONDITIONS[c].title for c in results.conditions])
        axis.tick_params(axis="x", labelrotation=30)
        for label in axis.get_xticklabels():
            label.set_horizontalalignment("right")
        axis.set_yticks(range(len(names)), [label_of(name) for name in names])
        axis.set_title(f"{TASKS[task].title} ({TASKS[task].metric})")
    figure.colorbar(image, ax=axes, shrink=0.6, label="points better (+) or worse (-) than plain distillation")
    figure.suptitle("Gain over plain distillation; * adjusted p < 0.05; - missing", fontsize=11)
    return figure


def _clean_noisy(results: Results):
    figure, axes = _panels(results, 5.4, 4.2)
    for axis, task in zip(axes, results.tasks):
        for name in results.names:
            clean, noisy = results.score(name, task, "clean"), results.score(name, task, NOISY_MEAN)
            if clean is None or noisy is None:
                continue
            style = {**_style(name), "linestyle": "none"}
            axis.errorbar(
                clean.value,
                noisy.value,
                noisy.standard_error,
                clean.standard_error,
                label=label_of(name),
                elinewidth=0.8,
                **style,
            )
        if TASKS[task].sign < 0:  # better is up and right everywhere
            axis.invert_xaxis()
            axis.invert_yaxis()
        axis.set_xlabel(f"clean: {_unit(task)}")
        axis.set_ylabel("mean of the other conditions")
        axis.set_title(TASKS[task].title)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure
