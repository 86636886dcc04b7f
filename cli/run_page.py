"""`robustdistiller run-page`: a page of a distillation run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustdistiller.cli.command import command


@command()
def run_page(
    run: Annotated[Path, typer.Argument(help="Folder of the run, its out_dir.", metavar="RUN")],
    out: Annotated[Path | None, typer.Option(help="File to write; default: RUN/run.html.", metavar="FILE")] = None,
) -> None:
    """
    \b
      robustdistiller run-page exp/student
      robustdistiller run-page exp/student --out page.html

    The page shows how far each stage is, the loss and its terms over the steps, sparsity, validation under its
    conditions and probes, learning rate and speed, parameters, MACs and predicted speed, and the merged configuration.
    It is one file that opens offline.

    distill writes it at its end. This command writes it at any time, for a run that is under way or was stopped, too.
    """
    from robustdistiller.pretrain.page.run import write_run_page  # slow to import

    typer.echo(write_run_page(run, out))
