"""The answers of the study as one picture: how many points each difference is, and how sure that is."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robustdistiller.common.files import write_atomically
from robustdistiller.common.page.figures import COLOURS

_SIGNIFICANT = 0.05


def plot_answers(answers: pd.DataFrame, path: Path) -> Path:
    """Draw the differences that were found, one line each, filled where the adjusted p-value is below 0.05.

    Args:
        answers: of `comparisons.compare`, the listed ones.
        path: of the PNG.
    """
    found = answers[answers.gain.notna()].iloc[::-1]
    figure = Figure(figsize=(9.6, 0.5 * max(len(found), 1) + 1.1), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, one in enumerate(found.itertuples()):
        sure = one.p_holm < _SIGNIFICANT
        axes.errorbar(
            one.gain,
            place,
            xerr=[[one.gain - one.low], [one.high - one.gain]],
            fmt="o",
            color=COLOURS[0],
            markerfacecolor=COLOURS[0] if sure else "white",
            capsize=3,
        )
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(found)), [_label(one) for one in found.itertuples()], fontsize=8)
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.set_xlabel("points, 95 % interval over items and seeds\n(filled: adjusted p below 0.05)")
    axes.grid(axis="x", alpha=0.3)
    return write_atomically(path, lambda partial: figure.savefig(partial, format="png"))


def _label(one) -> str:
    where = textwrap.shorten(one.over, 40, placeholder=" ...")
    return f"{textwrap.shorten(one.question, 80, placeholder=' ...')}\n{one.treatment} - {one.reference}, {where}"
