"""Text and tables in the terminal. Whatever is printed is what was given: brackets are no markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def new_table(
    title: str, left: Sequence[str] = (), right: Sequence[str] = (), rows: Iterable[Sequence[str | Text]] = ()
) -> Table:
    """A table in the look that all commands share: under a title, columns of text, and columns of numbers after them.

    >>> [column.header for column in new_table("Sizes", ["model"], ["MB"]).columns]
    ['model', 'MB']
    """
    table = Table(
        title=escape(title) or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False,
        min_width=len(title),  # on one line
    )  # fmt: skip
    for heads, side in ((left, "left"), (right, "right")):
        for head in heads:
            table.add_column(escape(head), justify=side)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def say(console: Console, *lines: str, style: str | None = None) -> None:
    """Print plain text as it is; long lines are the terminal's to wrap, so that they can be copied."""
    for line in lines:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def print_whole(shown: Table, console: Console) -> None:
    """Print a table wider than the terminal rather than cut: no digit is ever lost."""
    needed = console.measure(shown, options=console.options.update(width=1000)).maximum
    terminal = console.width
    try:
        console.width = max(terminal, needed)
        console.print(shown)
    finally:
        console.width = terminal
