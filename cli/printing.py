"""Text and tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def new_table(title: str, left: Sequence[str] = (), right: Sequence[str] = ()) -> Table:
    """An empty table in the look that all commands share.

    Args:
        title: above it.
        left: heads of the first columns, texts.
        right: heads of the columns after them, numbers.

    >>> [column.header for column in new_table("Sizes", ["model"], ["MB"]).columns]
    ['model', 'MB']
    """
    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    for head in left:
        table.add_column(head)
    for head in right:
        table.add_column(head, justify="right")
    return table


def say(console: Console, text: str) -> None:
    """Print plain text as it is; long lines are the terminal's to wrap, so that they can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_whole(shown: Table, console: Console) -> None:
    """Print a table wider than the terminal rather than cut: no digit is ever lost."""
    needed = console.measure(shown, options=console.options.update(width=1000)).maximum
    terminal = console.width
    try:
        console.width = max(terminal, needed)
        console.print(shown)
    finally:
        console.width = terminal


def print_notes(notes: Sequence[str], console: Console, style: str = "dim") -> None:
    """Print each note on a line of its own, brackets and all."""
    for note in notes:
        console.print(note, style=style, markup=False, highlight=False, soft_wrap=True)
