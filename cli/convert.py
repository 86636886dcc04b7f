"""`robustdistiller convert`: write a checkpoint for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Model, NumHeads, Overwrite


@command()
def convert(
    source: Model,
    target: Annotated[Path, typer.Argument(help="File, or for huggingface folder, to write.", metavar="OUT")],
    to: Annotated[Literal["native", "s3prl", "huggingface", "torchaudio", "dphubert"], typer.Option(help="Format.")],
    drop_heads: Annotated[bool, typer.Option("--drop-heads", help="Leave the prediction heads out.")] = False,
    license_: Annotated[str, typer.Option("--license", help="To note, such as cc-by-4.0.", metavar="NAME")] = "",
    num_heads: NumHeads = None,
    overwrite: Overwrite = False,
) -> None:
    """
    \b
      native       one file for this package: configuration, weights, metadata
      s3prl        one file for s3prl alone: -u distiller_local, hubert_local,
                   wav2vec2_local, data2vec_local or wavlm_local
      huggingface  a folder for transformers.AutoModel, with a model card
      torchaudio   one file for torchaudio.models.wav2vec2_model or wavlm_model:
                   their arguments and a state dict
      dphubert     one file for DPHuBERT's code; pruned encoders too

    \b
    Examples:
      robustdistiller convert student.ckpt student-hf --to huggingface
      robustdistiller convert WavLM-Base+.pt wavlm.ckpt --to native
      robustdistiller convert robustdistiller_hubert rd_hubert --to huggingface
      robustdistiller convert hubert-base-ls960/ hubert.pt --to s3prl

    What cannot be expressed is refused, with the property that prevents it. `robustdistiller publish` writes any shape
    for transformers, with the code of the encoder.
    """
    from robustdistiller.upstream import export_checkpoint, resolve  # slow to import

    exported = export_checkpoint(
        resolve(source), target, to, drop_heads, overwrite, license_=license_, num_heads=num_heads
    )
    for note in exported.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    typer.echo(f"{exported.path}  ({exported.model})")
