"""`robustdistiller clean`: delete what a sweep does not need any more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.printing import new_table, print_whole, say


@command()
def clean(
    folder: Annotated[Path, typer.Argument(help="Folder of the sweep, which its file calls `out`.", metavar="FOLDER")],
    what: Annotated[list[str] | None, typer.Option(help="heads, checkpoints, features, logs; default: all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run/--delete", help="List it, or delete it.")] = True,
) -> None:
    """
    \b
      robustdistiller clean exp/sweep              # what could go, and its size
      robustdistiller clean exp/sweep --delete
      robustdistiller clean exp/sweep --what heads --delete

    Records, the chosen heads and what was tried stay, so that nothing has to be trained again.
    """
    from robustdistiller.eval.sweep.clean import KINDS, clean, removable

    console = Console()
    kinds = list(dict.fromkeys(what or KINDS))
    found = removable(folder, kinds) if dry_run else clean(folder, kinds)
    rows = []
    for kind in kinds:
        sizes = [one.size_bytes for one in found if one.kind == kind]
        rows.append((f"{kind}: {KINDS[kind]}", str(len(sizes)), f"{sum(sizes) / 1e6:,.1f}"))
    print_whole(new_table("", ["what"], ["files or folders", "MB"], rows), console)
    if dry_run and found:
        say(console, "Nothing was deleted; to delete it, add --delete.")
