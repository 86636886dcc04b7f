"""`robustdistiller compare`: paired differences of two systems, clean and under each condition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Official
from robustdistiller.cli.printing import new_table, print_whole, say
from robustdistiller.common.errors import RunFailed
from robustdistiller.eval.report.comparison import Comparison, Missing
from robustdistiller.eval.report.comparison import compare as compare_systems
from robustdistiller.eval.report.tables import NON_STANDARD_MARK, PUBLISHED_MARK, number
from robustdistiller.eval.results.record import digits_of


@command()
def compare(
    first: Annotated[
        str, typer.Argument(help="Label of measured records, or a published system, such as DPHuBERT.", metavar="FIRST")
    ],
    second: Annotated[
        str, typer.Argument(help="The other system; published:NAME if a label has the same name.", metavar="SECOND")
    ],
    records: Annotated[
        list[Path] | None, typer.Option(help="Folder of a sweep, a run or records, repeatable; default: ./records.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task to compare, repeatable; default: all.")] = None,
    official: Official = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON instead.")] = False,
) -> None:
    """
    \b
      robustdistiller compare mine DPHuBERT --records exp/sweep
      robustdistiller compare teacher student --records exp/sweep --task IC --json

    Intervals and tests count items (speakers, where they are known) and seeds as chance; where both have one seed and
    every item is right or wrong, the test is McNemar's. p-values are corrected within each task (Holm), and a verdict
    stands at 5 %. Published numbers have no results of single items: their differences stand without interval. Cells
    that one of the two lacks are listed.
    """
    here = Path("records")
    folders = records if records is not None else [here] if here.is_dir() and any(here.iterdir()) else []
    found = compare_systems(first, second, folders, tasks=task or (), official=official or ())
    if as_json:
        lines = json.loads(found.frame.to_json(orient="records"))
        missing = [
            {"system": one.name, "columns": [f"{c.task_title}, {c.title}" for c in one.columns]}
            for one in found.missing
        ]
        typer.echo(
            json.dumps({"first": found.first.name, "second": found.second.name, "lines": lines, "missing": missing})
        )
    else:
        console = Console()
        if len(found.frame):
            show_differences(found, console)
        show_missing(found.missing, console)
    if not len(found.frame):
        within = f" of {', '.join(task)}" if task else ""
        raise RunFailed(f"{found.first.name!r} and {found.second.name!r} have no cell{within} in common")


def show_differences(found: Comparison, console: Console) -> None:
    """Print one line for each compared cell."""
    names = [row.name + (f" {PUBLISHED_MARK}" if row.published else "") for row in (found.first, found.second)]
    rows = []
    for line in found.frame.itertuples():
        bounds = "" if pd.isna(line.low) else f" [{line.low:+.2f}, {line.high:+.2f}]"
        values = [
            number(value, line.metric) + (f" {mark}" if mark else "")
            for value, mark in zip((line.first, line.second), line.marks)
        ]
        test = f" ({line.test})" if line.test else ""
        what = f"{line.task} {line.split}{test}", line.title
        metric = f"{line.metric} {line.unit} {'↑' if line.higher_is_better else '↓'}"
        difference = f"{line.difference:+.{digits_of(line.metric)}f}{bounds}"
        rows.append((*what, metric, *values, difference, _p_value(line.p_adjusted), _verdict(line)))
    heads = ["task", "condition", "metric"], [*names, "difference [95 %]", "p", ""]
    print_whole(new_table(f"{names[0]} minus {names[1]}", *heads, rows), console)
    tests = sorted({test for test in found.frame.test_used if test})
    notes = [f"p: {' or '.join(tests)}, two-sided, corrected within each task (Holm)."] if tests else []
    if found.first.published or found.second.published:
        notes.append(f"{PUBLISHED_MARK} published by others, not measured here; protocols may differ.")
    for row in (found.first, found.second):
        phrases = dict.fromkeys(phrase for cell in row.cells.values() for phrase in cell.non_standard)
        if phrases:
            notes.append(f"{NON_STANDARD_MARK} {row.name}: not a standard run, {'; '.join(phrases)}.")
    say(console, *notes, style="dim")


def _p_value(p: float | None) -> str:
    return "-" if p is None or pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(line: tuple) -> str:
    if line.better:
        return f"{line.better} is better" + (f" ({line.remark})" if line.remark else "")
    return line.remark or "no difference shown"


def show_missing(missing: tuple[Missing, ...], console: Console) -> None:
    """Print which cells one side lacks."""
    for one in missing:
        cells = "; ".join(f"{column.task_title} under {column.title}" for column in one.columns)
        say(console, f"{one.name} lacks {cells}.")
