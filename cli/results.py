"""`robustdistiller results`: records shared with others, through a folder or a dataset on the Hugging Face Hub."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.printing import say
from robustdistiller.common.errors import RunFailed
from robustdistiller.eval.results.share import pull, push


@command()
def results(
    direction: Annotated[Literal["push", "pull"], typer.Argument(help="push or pull.", metavar="push|pull")],
    places: Annotated[list[str], typer.Argument(help="From where, and last to where.", metavar="FROM... TO")],
    pull_request: Annotated[bool, typer.Option("--pull-request", help="Propose the records to others.")] = False,
) -> None:
    """
    \b
      robustdistiller results push exp/sweep hf://datasets/ORG/NAME
      robustdistiller results push exp/sweep hf://datasets/ORG/NAME --pull-request
      robustdistiller results pull hf://datasets/ORG/NAME@REVISION others
      robustdistiller leaderboard exp/sweep others

    The last place is where they go. Only finished records are copied, with their results of single items, as they are:
    the digests in them are checked, and a file that lies there with other content is never replaced. What was pulled is
    noted in records/origins.json. Writing to the Hub needs a login: hf auth login.

    Exit status: 0 all copied or there already, 1 some records were refused.
    """
    *sources, to = places
    if not sources or (direction == "pull" and len(sources) > 1):
        raise ValueError(f"results {direction} got {' '.join(places)}; expected where from and where to")
    if direction == "push":
        found = push(sources, to, pull_request=pull_request)
    elif pull_request:
        raise ValueError("--pull-request is for push")
    else:
        found = pull(sources[0], to)
    console = Console()
    say(console, f"{len(found.copied)} copied to {found.where}, {len(found.there)} there already")
    say(console, *found.refused, style="yellow")
    if found.refused:
        raise RunFailed(f"{len(found.refused)} records were refused")
