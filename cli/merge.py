"""`robustdistiller merge`: a student between two of one shape."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustdistiller.cli.command import command


@command()
def merge(
    a: Annotated[str, typer.Argument(help="Model at weight 0, by any kind of name.", metavar="A")],
    b: Annotated[str, typer.Argument(help="Model at weight 1, of the same shape.", metavar="B")],
    out: Annotated[Path, typer.Option("--out", help="File to write, in this package's format.", metavar="FILE")],
    weight: Annotated[float, typer.Option(help="Weight of B, from 0 to 1.")] = 0.5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
) -> None:
    """
    The mean is (1 - weight) * A + weight * B. Where B was trained on from A, or both from one student, the weight moves
    between what each is good at, such as clean and noisy speech, and costs no training. Students that began differently
    average to nothing.

    \b
    Examples:
      robustdistiller merge clean.ckpt noisy.ckpt --out between.ckpt
      robustdistiller merge clean.ckpt noisy.ckpt --weight 0.25 --out quarter.ckpt

    \b
    Then, for instance
      run_downstream.py -u robustdistiller_local -k between.ckpt ...
    """
    from robustdistiller.pretrain.student.merge import merge_checkpoints  # slow to import

    typer.echo(merge_checkpoints(a, b, out, weight, overwrite))
