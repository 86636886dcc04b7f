"""`robustdistiller convert`: write a checkpoint for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Model, NumHeads, Overwrite

HELP = """
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
  robustdistiller convert student.ckpt student-hf --to huggingface \\
      --records exp/records
  robustdistiller convert WavLM-Base+.pt wavlm.ckpt --to native
  robustdistiller convert robustdistiller_hubert rd_hubert --to huggingface
  robustdistiller convert hubert-base-ls960/ hubert.pt --to s3prl

What cannot be expressed is refused, with the property that prevents it.
"""


@command(HELP)
def convert(
    source: Model,
    target: Annotated[Path, typer.Argument(help="File, or for huggingface folder, to write.", metavar="OUT")],
    to: Annotated[Literal["native", "s3prl", "huggingface", "torchaudio", "dphubert"], typer.Option(help="Format.")],
    drop_heads: Annotated[bool, typer.Option("--drop-heads", help="Leave the prediction heads out.")] = False,
    records: Annotated[Path | None, typer.Option(help="Folder of records, for a model card.", metavar="DIR")] = None,
    license_: Annotated[str, typer.Option("--license", help="To note, such as cc-by-4.0.", metavar="NAME")] = "",
    num_heads: NumHeads = None,
    overwrite: Overwrite = False,
) -> None:
    from robustdistiller.upstream import checkpoint_digest, export_checkpoint, resolve  # slow to import

    if records is not None and to != "huggingface":
        raise ValueError(f"--records is for the model card of --to huggingface; --to {to} has none")
    path = resolve(source)
    results = "" if records is None else results_markdown(records, checkpoint_digest(path))
    exported = export_checkpoint(path, target, to, drop_heads, overwrite, results, license_, num_heads)
    for note in exported.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    typer.echo(f"{exported.path}  ({exported.model})")


def results_markdown(folder: Path, digest: str) -> str:
    """The tables of a folder of records, for a model card, and which of their rows is the checkpoint.

    Args:
        folder: records.
        digest: the checkpoint's SHA-256.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: none of the records is of this checkpoint.
    """
    from robustdistiller.eval.report import leaderboard

    board = leaderboard([folder], published=False)
    systems = set(board.records.system[board.records.weights == digest])
    rows = [row.name for row in board.rows if row.system in systems]
    if not rows:
        raise ValueError(f"no record in {folder} is of this checkpoint (SHA-256 {digest[:12]})")
    return "\n".join([f"This model is the row {', '.join(rows)}.", "", board.to_markdown()])
