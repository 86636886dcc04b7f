"""`robustdistiller table`: tables and plots of a folder of records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from robustdistiller.cli.printing import print_whole
from robustdistiller.common.files import slug
from robustdistiller.eval.report.plots import plot_table
from robustdistiller.eval.report.table import TaskTable, build_tables
from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.results.record import RecordError


def table(
    records: Annotated[list[Path], typer.Argument(help="Folders with records at any depth, e.g. EXPDIR/records.")],
    out: Annotated[Path | None, typer.Option(help="Folder for tables and plots; default: beside the records.")] = None,
    reference: Annotated[str | None, typer.Option(help="Row to draw as the reference line, e.g. teacher.")] = None,
) -> None:
    """Print and draw one table per task from records only; write CSV, Markdown and PNG."""
    console = Console()
    try:
        written = show_tables(records, out or records[0].parent, console, reference)
    except (RecordError, FileNotFoundError, ValueError) as error:
        Console(stderr=True).print(f"robustdistiller table: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print("Written: " + ", ".join(map(str, written)), soft_wrap=True)


def show_tables(records: list[Path], out: Path, console: Console, reference: str | None = None) -> list[Path]:
    """Print every task's table and write ``table.csv``, ``table.md`` and one ``TASK-SPLIT.png`` each.

    Args:
        records: folders of records.
        out: folder to write to.
        console: where to print.
        reference: label of the plot's reference line; left out of plots whose table lacks it.

    Returns:
        The files written.

    Raises:
        FileNotFoundError: no such folder of records.
        RecordError: the records are broken, unfinished or do not belong together.
        ValueError: no table has the reference.
    """
    tables = build_tables([record for folder in records for record in read_records(folder)])
    if reference is not None and not any(reference in one.values.index for one in tables):
        labels = sorted({label for one in tables for label in one.values.index})
        raise ValueError(f"no row is called {reference!r}; there are {', '.join(labels)}")
    out.mkdir(parents=True, exist_ok=True)
    written = [out / "table.csv", out / "table.md"]
    pd.concat([one.to_frame() for one in tables]).to_csv(written[0], index=False)
    written[1].write_text("\n".join(one.to_markdown() for one in tables), encoding="utf-8")
    for one in tables:
        print_whole(rich_table(one), console)
        if one.note:
            console.print(one.note, style="dim", markup=False, highlight=False, soft_wrap=True)
        line = reference if reference in one.values.index else None
        name = "-".join(slug(part) for part in (one.task, one.split, one.part) if part)
        written.append(plot_table(one, out / f"{name}.png", line))
    return written


def rich_table(one: TaskTable) -> Table:
    """A task's table for the terminal; the best value of each condition is bold.

    >>> from robustdistiller.eval.results.record import example_record
    >>> rich_table(build_tables([example_record()])[0]).title
    'IC test: accuracy (%), higher is better, 4 items'
    """
    shown = Table(
        title=one.title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    if one.errors.notna().to_numpy().any():
        shown.caption = "± one standard error; bold: best of the column"
    shown.add_column("upstream", min_width=max(map(len, one.values.index)))
    shown.add_column("size", justify="right", min_width=max(len(one.size(label)) for label in one.values.index))
    for condition in one.values.columns:
        width = max(len(one.cell(label, condition)) for label in one.values.index)
        shown.add_column(
            condition.replace("noise ", "noise\n").replace(" + ", " +\n"), justify="right", min_width=width
        )
    best = one.values.max() if one.metric.higher_is_better else one.values.min()
    for label in one.values.index:
        cells = [
            f"[bold]{one.cell(label, c)}[/bold]" if one.values.loc[label, c] == best[c] else one.cell(label, c)
            for c in one.values.columns
        ]
        shown.add_row(label, one.size(label), *cells)
    return shown
