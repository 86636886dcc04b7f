"""Tables in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def print_whole(shown: Table, console: Console) -> None:
    """Print a table wider than the terminal rather than cut: no digit is ever lost."""
    needed = console.measure(shown, options=console.options.update(width=1000)).maximum
    terminal = console.width
    try:
        console.width = max(terminal, needed)
        console.print(shown)
    finally:
        console.width = terminal
