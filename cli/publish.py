"""`robustdistiller publish`: a student as a folder or Hub repository that `AutoModel` loads, with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Model, Overwrite


@command()
def publish(
    source: Model,
    to: Annotated[str, typer.Option(help="Where to.", metavar="FOLDER|ORG/NAME")],
    records: Annotated[Path | None, typer.Option(help="Folder of records, for the card.", metavar="DIR")] = None,
    license_: Annotated[str, typer.Option("--license", help="To note, such as cc-by-4.0.", metavar="NAME")] = "",
    stock: Annotated[bool, typer.Option("--stock", help="For a class that transformers has.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """
    \b
      robustdistiller publish student.ckpt --to student-hf
      robustdistiller publish student.ckpt --to me/robust-student \\
          --records exp/records --license cc-by-4.0
      robustdistiller publish student.ckpt --to me/robust-student --private

    What is written loads without this package, whatever the student's shape: pruned, thin, with prediction heads:

    \b
      AutoModel.from_pretrained("student-hf", trust_remote_code=True)

    and with it, by its folder or name, as any other model; no code in it is run then.

    \b
      model.safetensors            the weights
      config.json                  the shape
      modeling_robustdistiller.py  the encoder: needs PyTorch and transformers
      preprocessor_config.json     for AutoFeatureExtractor
      README.md                    the model card: how to use it, where it comes
                                   from and, with --records, what it scores

    --stock writes it for a class that transformers has, such as HubertModel or WavLMModel. No trust_remote_code is
    needed then, but they have no place for prediction heads, and know plain shapes only.

    \b
    --to is a folder, or org/name on the Hugging Face Hub:
      me/student     the Hub, unless there is a folder `me` here
      ./me/student   always a folder

    Uploading needs a token that may write: `hf auth login`, or HF_TOKEN=... A repository is made if there is none; what
    is in it is replaced with --overwrite only, and stays in its history. A folder that this package did not write is
    never replaced.
    """
    from robustdistiller.upstream import checkpoint_digest, resolve  # slow to import
    from robustdistiller.upstream import publish as write

    path = resolve(source)
    results = "" if records is None else results_markdown(records, checkpoint_digest(path))
    exported = write(path, to, results, license_, stock=stock, private=private, overwrite=overwrite)
    for note in exported.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    typer.echo(f"{exported.commit or exported.path}  ({exported.model})")


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
