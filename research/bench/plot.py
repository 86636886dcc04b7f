"""One picture of the costs against sizes of a report."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from pathlib import Path
from statistics import fmean
from textwrap import wrap
from typing import TYPE_CHECKING

from robustdistiller.common.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from research.bench.measure import Series
    from research.bench.record import Report


def draw_series(report: Report, path: Path) -> None:
    """A panel per series, both axes logarithmic, repetitions as dots, the slope in the legend; nothing without series.

    Args:
        report: of a benchmark.
        path: of a PNG file.

    >>> import tempfile
    >>> from research.bench import Report, Series
    >>> report = Report("toy", "a toy", "-", 0, "cpu", series=(Series("step", "batch", "s", (1, 2), ((1,), (2,))),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_series(report, Path(folder, "toy.png"))
    ...     Path(folder, "toy.png").stat().st_size > 1000
    True
    """
    if not report.series:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(len(report.series), 2)
    rows = -(-len(report.series) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(report.series) :]:
        axis.remove()
    for axis, series in zip(axes.flat, report.series):
        _draw(axis, series)
    title = f"{report.title} ({report.device}, {report.machine.get('processor', '')})"
    figure.suptitle("\n".join(wrap(title, 60 * columns)), fontsize=10)
    figure.tight_layout()
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110, bbox_inches="tight"))
    pyplot.close(figure)


def _draw(axis: Axes, series: Series) -> None:
    for x, values in zip(series.x, series.y):
        axis.plot([x] * len(values), values, "o", color="tab:blue", markersize=4)
    logs, costs = [log(x) for x in series.x], [log(y) for y in series.medians]
    middle, level = fmean(logs), fmean(costs)  # the least squares line goes through them
    line = [exp(level + series.exponent * (x - middle)) for x in logs]
    axis.plot(series.x, line, "--", color="tab:gray", linewidth=1, label=f"slope {series.exponent:.2f}")
    axis.plot(series.x, series.medians, color="tab:blue", linewidth=1.5, label="median")
    axis.set(xscale="log", yscale="log", xlabel=series.x_name, ylabel=series.y_name)
    axis.set_title("\n".join(wrap(series.part, 44)), fontsize=10)
    named = _apart(series.x)
    axis.set_xticks(series.x, [f"{x:g}" if x in named else "" for x in series.x])
    axis.minorticks_off()
    low, high = min(map(min, series.y)) / 1.25, max(map(max, series.y)) * 1.25
    marks = _round_numbers(low, high)
    axis.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axis.set_ylim(low, high)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left")


def _apart(sizes: Sequence[float], steps: int = 7) -> set[float]:
    """Those that can be named below a logarithmic axis: each further from the one before than a part of its length."""
    named: list[float] = []
    for size in sorted(sizes):
        if not named or log(size / named[-1]) > log(max(sizes) / min(sizes)) / steps:
            named.append(size)
    return set(named)


def _round_numbers(low: float, high: float) -> list[float]:
    """From `low` to `high`: 1, 2 and 5 times powers of ten, more of them if that is little."""
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8)):
        numbers = [digit * 10.0**power for power in range(-9, 10) for digit in digits]
        found = [number for number in numbers if low <= number <= high]
        if len(found) >= 4:
            break
    return found
