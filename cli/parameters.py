"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "-k", "--checkpoint", help="Model that the upstream loads: a path, a URL, org/name or a registered name."
    ),
]
Device = Annotated[str, typer.Option(help="Device, such as cpu or cuda:1; auto: a GPU if there is one.")]
Model = Annotated[
    str, typer.Argument(help="A path, a URL, org/name on the Hub, or a registered name.", metavar="MODEL")
]
NumHeads = Annotated[int | None, typer.Option(help="Attention heads, for files that do not say.", min=1)]
Official = Annotated[list[str] | None, typer.Option(help="Task whose test set counts as the official one.")]
Options = Annotated[
    str | None,
    typer.Option("-g", "--options", help="File of options for the upstream, as for -g of run_downstream.py."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Upstream = Annotated[str, typer.Argument(help="Entry of s3prl's hub, or a model's name.", metavar="UPSTREAM")]
