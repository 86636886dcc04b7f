"""`robustdistiller compare`: paired differences of two systems, clean and under each condition."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from robustdistiller.cli.printing import print_whole
from robustdistiller.eval.conditions.titles import condition_title
from robustdistiller.eval.report.compare import Difference, Missing, Side, compare_sides, find_side, missing_cells
from robustdistiller.eval.report.measured import read_systems
from robustdistiller.eval.report.published import load_published
from robustdistiller.eval.report.significance import significant
from robustdistiller.eval.report.tables import number
from robustdistiller.eval.results.record import RecordError


def compare(
    first: Annotated[str, typer.Argument(help="Label of measured records, or a published system, e.g. DPHuBERT.")],
    second: Annotated[str, typer.Argument(help="The other one; published:NAME if a label has the same name.")],
    records: Annotated[
        list[Path] | None, typer.Option(help="Folder with records at any depth, repeatable; default: ./records.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task to compare, repeatable; default: all.")] = None,
) -> None:
    """Compare two systems on the cells that both have, and say what to run for the rest.

    Intervals are paired bootstraps over utterances; accuracies are tested with McNemar's test, other rates with the
    bootstrap. Published numbers have no results of single utterances: their differences stand without interval.
    """
    console = Console()
    try:
        numbers = load_published()
        folders = records if records is not None else [p for p in (Path("records"),) if p.is_dir()]
        systems = read_systems(folders)
        one, other = find_side(first, systems, numbers), find_side(second, systems, numbers)
        missing = missing_cells(one, other, str(folders[0]) if folders else "records", task or ())
        try:
            found = compare_sides(one, other, numbers, task or ())
        except ValueError as error:
            show_missing(missing, console)  # the way out
            raise error
    except (RecordError, OSError, ValueError) as error:
        Console(stderr=True).print(f"robustdistiller compare: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    show_differences(found, one, other, console)
    show_missing(missing, console)


def show_differences(found: list[Difference], one: Side, other: Side, console: Console) -> None:
    """Print one line for each compared cell."""
    names = [side.name + (" †" if side.published else "") for side in (one, other)]
    shown = Table(title=f"{names[0]} minus {names[1]}", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for head in ("task", "condition", "metric"):
        shown.add_column(head)
    for head in (*names, "difference [95 %]", "p"):
        shown.add_column(head, justify="right")
    shown.add_column("")
    sure = significant([one.comparison.p_value for one in found])
    for line, stands in zip(found, sure):
        difference = line.comparison.difference
        bounds = f" [{difference.low:+.2f}, {difference.high:+.2f}]" if difference.low is not None else ""
        digits = f"{difference.value:+.4f}" if line.metric == "mtwv" else f"{difference.value:+.2f}"
        shown.add_row(
            *(f"{line.task} {line.split}", condition_title(line.condition)),
            f"{line.metric} {line.unit} {'↑' if line.higher_is_better else '↓'}",
            *(number(line.first, line.metric), number(line.second, line.metric)),
            f"{digits}{bounds}".replace("[", r"\["),
            _p_value(line.comparison.p_value),
            _verdict(line, stands, names),
        )
    print_whole(shown, console)
    tests = sorted({line.comparison.test for line in found if line.comparison.test})
    if tests:
        console.print(
            f"p: {' or '.join(tests)}, two-sided; a verdict stands at a false discovery rate of 5 % over these lines.",
            style="dim",
            soft_wrap=True,
        )
    if one.published or other.published:
        console.print("† published by others, not measured here; protocols may differ.", style="dim", soft_wrap=True)


def _p_value(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(line: Difference, stands: bool, names: list[str]) -> str:
    if line.comparison.p_value is None:
        return line.remark
    if not stands or not line.winner:
        return "no difference shown"
    return f"{names[0] if line.winner == 'first' else names[1]} is better"


def show_missing(missing: list[Missing], console: Console) -> None:
    """Print which cells one side lacks, and the commands that make them."""
    for one in missing:
        console.print(
            f"{one.name} has no {one.task} under {', '.join(one.conditions)}; to fill it:",
            soft_wrap=True,
            markup=False,
            highlight=False,
        )
        for command in one.commands:
            console.print(f"  {command}", soft_wrap=True, markup=False, highlight=False)
