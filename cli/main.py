"""The `robustdistiller` command: one file per sub-command, each parses, calls a room and prints."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


def main() -> None:
    """Entry point of the console script `robustdistiller`."""
    app()
