"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Checkpoint = Annotated[str | None, typer.Option("-k", "--checkpoint", help="Its model, by any kind of name.")]
Device = Annotated[str, typer.Option(help="Such as cpu or cuda:1; auto: a GPU if there is one.")]
Model = Annotated[
    str, typer.Argument(help="A path, a URL, org/name on the Hub, or a registered name.", metavar="MODEL")
]
NumHeads = Annotated[int | None, typer.Option(help="Attention heads, for files that do not say.", min=1)]
Official = Annotated[list[str] | None, typer.Option(help="Task whose test set counts as the official one.")]
Options = Annotated[str | None, typer.Option("-g", "--options", help="Its own options file, as for -g.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Upstream = Annotated[str, typer.Argument(help="Entry of s3prl's hub, or a model's name.", metavar="UPSTREAM")]
