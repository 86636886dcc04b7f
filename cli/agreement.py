"""`robustdistiller agreement`: do feature distance and linear probe rank students alike?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.printing import new_table, print_whole, say

if TYPE_CHECKING:
    from pandas import DataFrame


@command()
def agreement(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs with validation and probe.", metavar="RUN...")],
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy over distance.", metavar="FILE.png")] = None,
) -> None:
    """
    \b
      robustdistiller agreement exp/a exp/b exp/c
      robustdistiller agreement exp/* --plot agreement.png

    From each run's validation.csv: Spearman's rank correlation of the distance to the teacher (cosine, L1) and the
    probe's accuracy, over all steps and over the last steps, with its bootstrap interval over runs.
    """
    from robustdistiller.pretrain.training.agreement import draw_agreement, rank_agreement

    if plot is not None and plot.suffix.lower() != ".png":
        raise ValueError(f"--plot {plot}: found {plot.suffix or 'no suffix'}, expected a name that ends in .png")
    found = rank_agreement(runs)
    if plot is not None:
        draw_agreement(runs, plot)
    console = Console()
    show_agreement(found, console)
    if plot is not None:
        say(console, f"Written: {plot}")


def show_agreement(found: DataFrame, console: Console) -> None:
    """Print one line for each condition, distance and choice of points; notes once each, by number."""
    numbers: dict[str, int] = {}
    title = "Spearman's rho of feature distance and probe accuracy"
    rows = []
    for line in found.itertuples():
        note = str(numbers.setdefault(line.note, len(numbers) + 1)) if line.note else ""
        rho = "-" if line.rho != line.rho else f"{line.rho:+.2f}"
        interval = "" if line.low != line.low else f"[{line.low:+.2f}, {line.high:+.2f}]"
        counts = str(line.points), str(line.runs)
        rows.append((line.condition, line.distance, line.points_of, *counts, rho, interval, note))
    heads = ["condition", "distance", "points"], ["number", "runs", "rho", "95 %", "note"]
    print_whole(new_table(title, *heads, rows), console)
    say(console, *(f"{number}  {note}." for note, number in numbers.items()))
    say(
        console,
        "-1: the closer a student is to the teacher, the better the probe; 0: its distance says nothing about it.",
        "Over all steps both also follow the course of each training; the last steps compare finished students.",
        style="dim",
    )
