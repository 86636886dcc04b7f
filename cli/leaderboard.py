"""`robustdistiller leaderboard`: measured and published systems side by side, as tables, plots and one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Official
from robustdistiller.cli.printing import new_table, print_whole, say
from robustdistiller.eval.report.board import REFERENCE_SYSTEMS, TITLE, Board
from robustdistiller.eval.report.board import leaderboard as build
from robustdistiller.eval.report.published import load_published
from robustdistiller.eval.report.tables import DEFAULT_FORMATS, FORMATS, Grid, grids, write_board


@command()
def leaderboard(
    folders: Annotated[list[Path], typer.Argument(help="Folders of sweeps, runs or records.", metavar="FOLDER...")],
    published: Annotated[bool, typer.Option("--published/--no-published", help="Show published systems.")] = True,
    system: Annotated[
        list[str] | None,
        typer.Option(
            help="Published system to show in the terminal, Markdown and LaTeX, repeatable; 'all' for every one. "
            f"Default: {', '.join(REFERENCE_SYSTEMS)}. CSV, JSON and HTML hold all of them."
        ),
    ] = None,
    reference: Annotated[str, typer.Option(help="System whose losses others are divided by; dashed in plots.")] = "",
    official: Official = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write files to.")] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            help=f"Files to write to --out, of {','.join(FORMATS)}. Default: {','.join(DEFAULT_FORMATS)}.",
        ),
    ] = "",
    plots: Annotated[Path | None, typer.Option(help="Folder to write a plot of each task to.")] = None,
    title: Annotated[str, typer.Option(help=f"Heading of the HTML page. Default: {TITLE}.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers and notes as JSON instead.")] = False,
) -> None:
    """
    \b
      robustdistiller leaderboard exp/sweep
      robustdistiller leaderboard exp/sweep --no-published --plots board
      robustdistiller leaderboard exp/sweep --reference teacher
      robustdistiller leaderboard exp/sweep others --out board --format html,csv

    Records only are read, in whatever state a sweep is. What cannot be compared has a column of its own or a mark, and
    a note says why. Measured cells stand in a column with published ones only if they are of the official test set.
    Nothing is written without --out or --plots.
    """
    wanted = [part.strip() for part in formats.split(",") if part.strip()] or list(DEFAULT_FORMATS)
    if unknown := [part for part in wanted if part not in FORMATS]:
        raise ValueError(f"--format {formats}: unknown format {', '.join(unknown)}; known: {','.join(FORMATS)}")
    if out is None and (formats or title):
        raise ValueError("--format and --title are of files, and no folder is given to write them to; add --out FOLDER")
    if title and "html" not in wanted:
        raise ValueError(f"--title is the heading of the HTML page, which --format {formats} does not write; add html")
    if system and not published:
        raise ValueError("--system names published systems, and --no-published hides them; type one of the two")
    board = build(folders, published=published, official=official or (), reference=reference)
    systems = [_published(name, board) for name in system or ()] or list(REFERENCE_SYSTEMS)
    if as_json:
        numbers, summaries = (json.loads(f.to_json(orient="records")) for f in (board.frame, board.robustness))
        found = {"numbers": numbers, "summaries": summaries, "notes": board.notes, "sources": board.sources}
        typer.echo(json.dumps(found))
    else:
        show_board(board, systems, Console())
    written = write_board(board, out, wanted, systems, title or TITLE) if out is not None else []
    if plots is not None:
        from robustdistiller.eval.report.plots import plot_board  # matplotlib

        drawn = plot_board(board, plots)
        written += drawn
        if not drawn:
            say(Console(stderr=as_json), "No plot was drawn: no measured system has a score under a condition.")
    if written:
        say(Console(stderr=as_json), f"Written: {', '.join(map(str, written))}")


def _published(name: str, board: Board) -> str:
    """A published system by its name, or by that of its row, such as ``NAME [last layer only]``; or ``all``."""
    if name == "all":
        return name
    found = load_published().find(name.partition(" [")[0]).system
    if not any(row.published and row.system == found for row in board.rows):
        raise ValueError(f"--system {name}: it has no verified number under SUPERB's rules, so that no table has it")
    return found


def show_board(board: Board, systems: list[str], console: Console) -> None:
    """Print the table of clean speech and one table for each task under conditions."""
    for grid in grids(board, systems):
        print_whole(rich_grid(grid), console)
        say(console, *grid.notes, style="dim")
        console.print()


def rich_grid(grid: Grid) -> Table:
    """A grid for the terminal, the best values bold, without columns in which nothing stands."""
    kept = [j for j in range(len(grid.header)) if any(row[j] != "-" for row in grid.rows) or not grid.rows]
    heads = [
        f"{head.replace(' (', chr(10) + '(').replace('noise ', 'noise' + chr(10)) if j else head}\n{below}".rstrip()
        for j, head, below in ((j, grid.header[j], grid.subheader[j]) for j in kept)
    ]
    rows = [
        [Text(row[j], style="bold" if (i, j) in grid.best else "") for j in kept] for i, row in enumerate(grid.rows)
    ]
    shown = new_table(grid.title, heads[:1], heads[1:], rows)
    for j, column in zip(kept, shown.columns):
        column.min_width = max([len(row[j]) for row in grid.rows], default=0)
    return shown
