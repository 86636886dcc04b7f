"""Tables, figures and text of the study, from the outcomes in its results folder and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from research.recipe_study.analysis import NOISY_MEAN, Results, cell_table
from research.recipe_study.conditions import CONDITIONS
from research.recipe_study.figures import draw_figures, label_of
from research.recipe_study.outcomes import Outcome, read_outcomes
from research.recipe_study.plan import QUESTIONS, REFERENCE, STUDENTS
from research.recipe_study.tasks import TASKS
from research.tables import markdown_table
from robustdistiller.common.files import write_text
from robustdistiller.eval.report.significance import Estimate, adjust

MISSING = "missing"


def write_report(out: Path, seeds: Sequence[int] | None = None, complete: bool = False) -> Path:
    """Writes `report.md`, `cells.csv` and the figures into a results folder.

    Args:
        out: with the folder `outcomes`.
        seeds: use only these; the report then goes into a folder `seeds-0-1...` in `out`. None is all there are.
        complete: leave out, and name, upstreams that were not run with every seed.

    Returns:
        the page.

    Raises:
        OutcomeError: there are no outcomes, or they must not stand side by side.
    """
    outcomes = read_outcomes(out)
    if seeds is not None:
        outcomes = [outcome for outcome in outcomes if outcome.notes["seed"] in seeds]
        out = out / ("seeds-" + "-".join(map(str, seeds)))
        out.mkdir(exist_ok=True)
    left_out: list[str] = []
    if complete:
        wanted = {outcome.notes["seed"] for outcome in outcomes}
        found = {name: {o.notes["seed"] for o in outcomes if o.name == name} for name in {o.name for o in outcomes}}
        left_out = sorted(name for name, having in found.items() if having < wanted)
        outcomes = [outcome for outcome in outcomes if outcome.name not in left_out]
    results = Results.of(outcomes)
    table = cell_table(results)
    write_text(out / "cells.csv", table.round(4).to_csv(index=False))
    figures = draw_figures(results, table, out)
    parts = [
        "# Recipe study on the mini teacher",
        _provenance(outcomes, results),
        "## Answers",
        *answers(results, table),
        "## Scores",
        "Mean over seeds, ± the standard error over items and seeds; `*`: differs from "
        f"{label_of(REFERENCE)} at adjusted p < 0.05. A cell without all seeds is `{MISSING}`, not a mean of fewer.",
        *(score_table(results, table, task) for task in results.tasks),
        "## Figures",
        *(f"![{path.stem}]({path.name})" for path in figures),
        "## Upstreams",
        _upstreams(outcomes, results),
        "## How it was tested",
        _METHOD,
    ]
    if left_out:
        parts += ["## Left out", "Not run with every seed: " + ", ".join(map(label_of, left_out)) + "."]
    if results.missing():
        parts += ["## Missing cells", "\n".join(f"- {line}" for line in results.missing())]
    write_text(out / "report.md", "\n\n".join(parts) + "\n")
    return out / "report.md"


_METHOD = """\
Differences are paired by test item and seed. Items and seeds are both drawn at random: the variance of a mean over S
seeds and N items is that of the seed means over S, plus that of the item means over N, minus the residual over SN;
degrees of freedom by Satterthwaite (quasi-F, Clark 1973). Where the seed part is not positive, this is the paired
t-test over items. Averages over tasks weigh the tasks equally. p-values of the table of scores are adjusted together by
Benjamini and Hochberg, those of the answers among themselves. Gains are in points, positive where better, for
accuracies and error rates alike. With three seeds the part of the seeds is known only roughly."""


def score_table(results: Results, table: pd.DataFrame, task: str) -> str:
    """Markdown table of one task: upstreams by conditions."""
    header = ["upstream", *(CONDITIONS[condition].title for condition in results.conditions)]
    rows = []
    chosen = table[table["task"] == task].set_index(["upstream", "condition"])
    for name in results.names:
        cells = [label_of(name)]
        for condition in results.conditions:
            row = chosen.loc[name, condition]
            star = "*" if row["p_adjusted"] < 0.05 else ""
            found = f"{row['score']:.1f} ± {row['standard_error']:.1f}{star}"
            few = f"{MISSING} ({row['seeds']:.0f} of {row['seeds_wanted']:.0f} seeds)"
            cells.append(few if np.isnan(row["score"]) else found)
        rows.append(cells)
    better = "higher" if TASKS[task].sign > 0 else "lower"
    return f"### {TASKS[task].title}: {TASKS[task].metric}, % ({better} is better)\n\n{markdown_table(header, rows)}"


def answers(results: Results, table: pd.DataFrame) -> list[str]:
    """Paragraphs that answer the plan's questions with numbers."""
    asked = [q for q in QUESTIONS if q.treatment in results.names and q.reference in results.names]
    columns = ("clean", NOISY_MEAN)
    gains = {
        (question.text, column): results.gain(question.treatment, question.reference, results.tasks, column)
        for question in asked
        for column in columns
    }
    tested = [key for key, gain in gains.items() if gain is not None]
    adjusted = dict(zip(tested, adjust([gains[key].p for key in tested], "bh")))
    rows = []
    for question in asked:
        cells = [_gain(gains[question.text, column], adjusted.get((question.text, column))) for column in columns]
        rows.append([question.text, f"{label_of(question.treatment)} - {label_of(question.reference)}", *cells])
    parts = []
    if rows:
        header = ["question", "difference", "clean speech, mean of tasks", "other conditions, mean of tasks"]
        parts += ["Gain in points (95 % confidence interval, adjusted p):", markdown_table(header, rows)]
    parts += [*_every_condition(results, table), *_beats_teacher(results), *_cost_on_clean(results, table)]
    return parts or ["No question has both of its upstreams."]


def _every_condition(results: Results, table: pd.DataFrame) -> Iterable[str]:
    """Counts of cells in which each student beats plain distillation."""
    rows = []
    for name in [name for name in results.names if name in STUDENTS and name != REFERENCE]:
        mine = table[(table["upstream"] == name) & (table["condition"] != "clean")]
        sure = mine["p_adjusted"] < 0.05
        known, wanted = int(mine["gain"].notna().sum()), len(mine)
        rows.append(
            [
                label_of(name),
                f"{int((mine['gain'] > 0).sum())} of {known}"
                + (f" ({wanted - known} missing)" if known < wanted else ""),
                str(int((sure & (mine["gain"] > 0)).sum())),
                str(int((sure & (mine["gain"] < 0)).sum())),
            ]
        )
    if rows:
        header = ["student", "task and condition cells where better", "surely better", "surely worse"]
        yield f"Under noise and rooms, against {label_of(REFERENCE)}:"
        yield markdown_table(header, rows)


def _cost_on_clean(results: Results, table: pd.DataFrame) -> Iterable[str]:
    rows = []
    clean = table[table["condition"] == "clean"].set_index(["upstream", "task"])
    for name in [name for name in results.names if name in STUDENTS and name != REFERENCE]:
        cells = [label_of(name)]
        for task in results.tasks:
            row = clean.loc[name, task]
            star = "*" if row["p_adjusted"] < 0.05 else ""
            cells.append(MISSING if np.isnan(row["gain"]) else f"{row['gain']:+.1f}{star}")
        rows.append(cells)
    if rows:
        yield f"On clean speech, gain over {label_of(REFERENCE)} in points:"
        yield markdown_table(["student", *(TASKS[task].title for task in results.tasks)], rows)


def _beats_teacher(results: Results) -> Iterable[str]:
    if "teacher" not in results.names:
        return
    found = []
    for name in [name for name in results.names if name in STUDENTS]:
        for task in results.tasks:
            for condition in results.conditions:
                gain = results.gain(name, "teacher", [task], condition)
                if gain is not None:
                    found.append((name, task, condition, gain))
    adjusted = adjust([gain.p for *_, gain in found], "bh")
    sure = [(*entry, p) for entry, p in zip(found, adjusted) if entry[3].value > 0 and p < 0.05]
    yield f"Students beat their teacher in {len(sure)} of {len(found)} cells at adjusted p < 0.05" + (
        "." if not sure else ":"
    )
    if sure:
        lines = [
            f"- {label_of(name)}, {TASKS[task].title}: "
            + ", ".join(
                f"{CONDITIONS[c].title} {gain.value:+.1f}" for n, t, c, gain, _ in sure if (n, t) == (name, task)
            )
            for name, task in dict.fromkeys((name, task) for name, task, *_ in sure)
        ]
        yield "\n".join(lines)


def _gain(gain: Estimate | None, p: float | None) -> str:
    if gain is None or p is None:
        return MISSING
    low, high = gain.interval
    return f"{gain.value:+.1f} ({low:+.1f} to {high:+.1f}; p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"


def _provenance(outcomes: Sequence[Outcome], results: Results) -> str:
    notes = [outcome.notes for outcome in outcomes]
    steps = sorted({note["steps"] for note in notes if note["steps"] is not None})
    dates = sorted(note["date"] for note in notes)
    versions = sorted({", ".join(f"{k} {v}" for k, v in note["versions"].items()) for note in notes})
    commands = sorted({note["command"] for note in notes})
    items = {task: n["tasks"][task]["test_items"] for n in notes for task in n["tasks"]}
    lines = [
        f"- seeds: {', '.join(map(str, results.seeds))}",
        f"- training steps of each student: {', '.join(map(str, steps)) or 'no student yet'}",
        f"- teacher: sha256 {notes[0]['teacher']}",
        "- test items: " + ", ".join(f"{TASKS[task].title} {count}" for task, count in items.items()),
        f"- measured: {dates[0]} to {dates[-1]}",
        *(f"- versions: {line}" for line in versions),
        *(f"- command: `{line}`" for line in commands),
    ]
    return "\n".join(lines)


def _upstreams(outcomes: Sequence[Outcome], results: Results) -> str:
    rows = []
    for name in results.names:
        mine = [outcome.notes for outcome in outcomes if outcome.name == name]
        counts = sorted({note["parameters"] for note in mine})
        trained = [note["training_seconds"] for note in mine]
        rows.append(
            [
                label_of(name),
                f"`{mine[0].get('recipe', '')}`" if mine[0].get("recipe") else "",
                mine[0].get("tests", ""),
                " to ".join(f"{count / 1e6:.2f}" for count in ([counts[0], counts[-1]] if len(counts) > 1 else counts)),
                _precision(mine),
                f"{np.mean(trained):.0f}" if any(trained) else "",
                f"{np.mean([note['evaluation_seconds'] for note in mine]):.0f}",
            ]
        )
    header = ["upstream", "recipe", "tests", "million parameters", "precision", "s of training", "s of scoring"]
    return markdown_table(header, rows)


def _precision(notes: Sequence[dict]) -> str:
    """Of training and features: one word, or which seeds had which."""
    seeds: dict[str, list[int]] = {}
    for note in notes:
        seeds.setdefault("bf16" if note["autocast"] else "fp32", []).append(note["seed"])
    if len(seeds) == 1:
        return next(iter(seeds))
    return ", ".join(f"{name} (seed {', '.join(map(str, sorted(mine)))})" for name, mine in sorted(seeds.items()))
