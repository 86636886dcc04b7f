"""`robustdistiller leaderboard`: measured and published systems side by side, as tables and as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from robustdistiller.cli.printing import print_whole
from robustdistiller.common.files import write_text
from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.measured import read_systems
from robustdistiller.eval.report.page.html import to_html
from robustdistiller.eval.report.published import load_published
from robustdistiller.eval.report.rows import REFERENCE_SYSTEMS, build_board
from robustdistiller.eval.report.tables import Grid, clean_grid, condition_grids, to_csv
from robustdistiller.eval.results.record import RecordError

FORMATS = {"terminal": "", "csv": "leaderboard.csv", "markdown": "leaderboard.md", "latex": "leaderboard.tex"}
FORMATS["html"] = "leaderboard.html"


def leaderboard(
    records: Annotated[list[Path], typer.Argument(help="Folders with records at any depth, e.g. EXPDIR/records.")],
    published: Annotated[
        bool, typer.Option("--published/--no-published", help="Show published systems, marked as such.")
    ] = True,
    system: Annotated[
        list[str] | None,
        typer.Option(
            help="Published system to show in the terminal, Markdown and LaTeX, repeatable; 'all' for every one. "
            f"Default: {', '.join(REFERENCE_SYSTEMS)}. CSV and HTML hold all of them."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: leaderboard.")] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"What to make, separated by commas: {','.join(FORMATS)}. Default: the terminal's; with --out, all.",
        ),
    ] = None,
    official: Annotated[
        list[str] | None,
        typer.Option(help="Task whose records are of the official test set though its size is not known, repeatable."),
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the HTML page.")] = "RobustDistiller leaderboard",
) -> None:
    """Show task scores, SUPERB's score and robustness of all measured systems beside the published ones.

    Records only are read; cells that are partial or failed are left out, each with a sentence. Measured cells stand in
    a column with published ones only if they are of the official test set.
    """
    console = Console()
    try:
        wanted = _formats(formats or (",".join(FORMATS) if out else "terminal"))
        numbers = load_published() if published else None
        systems = [s if s == "all" else load_published().find(s).name for s in system or REFERENCE_SYSTEMS]
        board = build_board(read_systems(records), numbers, official or ())
        if "terminal" in wanted:
            show_board(board, systems, console)
        written = write_board(board, systems, out or Path("leaderboard"), wanted, title)
    except (RecordError, OSError, ValueError) as error:
        Console(stderr=True).print(f"robustdistiller leaderboard: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if written:
        console.print("Written: " + ", ".join(map(str, written)), soft_wrap=True, markup=False)


def _formats(text: str) -> list[str]:
    """The formats asked for.

    Raises:
        ValueError: a format that is none.
    """
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in wanted if part not in FORMATS]
    if unknown or not wanted:
        raise ValueError(
            f"--format {text}: unknown format {', '.join(unknown) or 'nothing'}; known: {','.join(FORMATS)}"
        )
    return wanted


def show_board(board: Board, systems: Sequence[str], console: Console) -> None:
    """Print the table of clean speech and one table for each task under conditions."""
    for grid in (clean_grid(board, systems), *condition_grids(board, systems)):
        print_whole(rich_grid(grid), console)
        for note in grid.notes:
            console.print(note, style="dim", markup=False, highlight=False, soft_wrap=True)
        console.print()


def rich_grid(grid: Grid) -> Table:
    """A grid for the terminal, the best values bold."""
    shown = Table(title=grid.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    for j, (head, below) in enumerate(zip(grid.header, grid.subheader)):
        width = max([len(row[j]) for row in grid.rows], default=0)
        name = head.replace(" (", "\n(").replace("noise ", "noise\n").replace(" + ", " +\n") if j else head
        shown.add_column(f"{name}\n{below}".rstrip(), justify="right" if j else "left", min_width=width)
    for i, row in enumerate(grid.rows):
        escaped = [text.replace("[", r"\[") for text in row]
        shown.add_row(*(f"[bold]{text}[/bold]" if (i, j) in grid.best else text for j, text in enumerate(escaped)))
    return shown


def write_board(board: Board, systems: Sequence[str], out: Path, wanted: Sequence[str], title: str) -> list[Path]:
    """Write the files asked for; returns them."""
    grids = [clean_grid(board, systems), *condition_grids(board, systems)]
    makers = {
        "csv": lambda: to_csv(board).to_csv(index=False),
        "markdown": lambda: "\n".join(grid.to_markdown() for grid in grids),
        "latex": lambda: "% needs \\usepackage{booktabs}\n" + "\n".join(grid.to_latex() for grid in grids),
        "html": lambda: to_html(board, title),
    }
    written = []
    for name in wanted:
        if name in makers:
            written.append(write_text(out / FORMATS[name], makers[name]()))
    return written
