"""The charts of a run's page: what was logged over the steps, stage after stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustdistiller.common.page.figures import COLOURS, plain_axes, svg_uri

Line = Mapping[str, Any]
Curve = tuple[list[float], list[float]]

_TITLES = {
    "lr": "learning rate",
    "grad_norm": "gradient norm, before clipping",
    "audio_s_per_s": "speed (seconds of audio a second)",
    "data_wait": "share of the time spent waiting for data",
    "l1": "L1 distance to the teacher",
    "cosine": "cosine distance to the teacher",
    "si_snr_db": "SI-SNR of the enhanced speech (dB)",
    "si_snr_improvement_db": "gain in SI-SNR by the enhancement head (dB)",
    "probe_accuracy": "accuracy of the linear probe",
}
_STYLES = ("-", "--", ":")
#: Columns of `history.csv` that are no values to be drawn, and those that are no terms of the loss.
_PLACES = ("stage", "step", "epoch", "audio_h")
_WORK = ("lr", "grad_norm", "audio_s_per_s", "data_wait")


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title: what is drawn.
        image: address that holds it, an SVG image.
        words: the same in a sentence, for those who do not see it.
    """

    title: str
    image: str
    words: str


def loss_charts(history: Sequence[Line]) -> list[Chart]:
    """The loss and its terms, a term with its layers, and the sparsity beside its target."""
    names = [name for name in _columns(history) if name not in (*_PLACES, *_WORK)]
    terms = list(dict.fromkeys(name.partition("_layer")[0] for name in names))
    charts = []
    for term in terms:
        if term == "target_sparsity":
            continue
        shown = [name for name in names if name.partition("_layer")[0] == term]
        if term == "sparsity":
            shown.append("target_sparsity")
        labels = {name: name.removeprefix(f"{term}_layer") for name in shown}
        labels |= {name: "mean" for name in (term,) if len(shown) > 1}
        labels |= {"sparsity": "reached", "target_sparsity": "target"} if term == "sparsity" else {}
        title = term.replace("_", " ") + (" by target" if len(shown) > 1 and term != "sparsity" else "")
        charts.append(_chart(title, history, {labels[name]: _curve(history, name) for name in shown}))
    return charts


def work_charts(history: Sequence[Line]) -> list[Chart]:
    """Learning rate, gradient norm, speed, and what the processor or GPU waited for."""
    there = [name for name in _WORK if name in _columns(history)]
    return [_chart(_TITLES[name], history, {name: _curve(history, name)}) for name in there]


def validation_charts(validation: Sequence[Line], history: Sequence[Line]) -> list[Chart]:
    """Each measure of the validation, a curve for each condition."""
    conditions = list(dict.fromkeys(line.get("condition", "dev") for line in validation))
    starts = _starts(history, validation)
    charts = []
    for name in measures(validation):
        of = {one: [line for line in validation if line.get("condition", "dev") == one] for one in conditions}
        curves = {condition: _curve(lines, name, starts) for condition, lines in of.items()}
        curves = {condition: curve for condition, curve in curves.items() if curve[0]}
        charts.append(_chart(measure_title(name), history or validation, curves, conditions, "o"))
    return charts


def measures(validation: Sequence[Line]) -> list[str]:
    """The columns with values, but not those of single layers."""
    return [name for name in _columns(validation) if name not in (*_PLACES, "condition") and "_layer" not in name]


def measure_title(name: str) -> str:
    """A column of the validation in words."""
    return _TITLES.get(name, name.replace("_", " "))


def _columns(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line))


def _starts(*tables: Sequence[Line]) -> dict[str, float]:
    """The number of steps before each stage, by name, in the order of the stages."""
    starts, before = {}, 0.0
    lines = [line for table in tables for line in table]
    for stage in dict.fromkeys(line["stage"] for line in lines):
        starts[stage] = before
        before += max(line["step"] for line in lines if line["stage"] == stage)
    return starts


def _curve(lines: Sequence[Line], name: str, starts: Mapping[str, float] | None = None) -> Curve:
    starts = _starts(lines) if starts is None else starts
    shown = [line for line in lines if math.isfinite(line.get(name, math.nan))]
    return [starts[line["stage"]] + line["step"] for line in shown], [line[name] for line in shown]


def _chart(
    title: str, lines: Sequence[Line], curves: Mapping[str, Curve], all_labels: Sequence[str] = (), marker: str = ""
) -> Chart:
    """Curves over steps; a label has the colour of its place in `all_labels`, so that charts side by side agree."""
    figure, axes = plain_axes(4.6, 2.9)
    places = {label: place for place, label in enumerate(all_labels or curves)}
    for label, (x, y) in curves.items():
        colour, style = COLOURS[places[label] % len(COLOURS)], _STYLES[places[label] // len(COLOURS) % len(_STYLES)]
        own_marker = marker or ("o" if len(x) == 1 else "")
        axes.plot(x, y, style, color=colour, marker=own_marker, markersize=3.5, linewidth=1.3, label=label)
    for stage, start in _starts(lines).items():
        if start:
            axes.axvline(start, color="#5a6675", linewidth=0.8, linestyle=":")
            axes.annotate(f" {stage}", (start, 1.0), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    axes.set_xlabel("step", fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    axes.yaxis.get_offset_text().set_fontsize(8)
    if len(curves) > 1:
        columns = min(len(curves), 6) if max(map(len, curves)) < 8 else 2
        figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=columns)
    return Chart(title, svg_uri(figure), "; ".join(_words(label, curve) for label, curve in curves.items()) or "empty")


def _words(label: str, curve: Curve) -> str:
    x, y = curve
    if not x:
        return f"{label}: no value"
    return f"{label}: {y[0]:.4g} at step {x[0]:g}, {y[-1]:.4g} at step {x[-1]:g}"
