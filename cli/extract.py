"""`robustdistiller extract`: features of audio files on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Device

if TYPE_CHECKING:
    from robustdistiller.upstream.features.extraction import ExtractionReport


@command(keeps="what is written")
def extract(
    upstream: Annotated[str, typer.Argument(help="Entry, checkpoint or URL.", metavar="UPSTREAM")],
    audio: Annotated[list[Path], typer.Argument(help="Audio files and folders.", metavar="AUDIO")],
    out: Annotated[Path, typer.Option(help="Folder for the features.", metavar="DIR")],
    layer: Annotated[str, typer.Option(help="Number or name of a hidden state, all, or weighted.")] = "all",
    head: Annotated[Path | None, typer.Option(help="s3prl's head checkpoint, for --layer weighted.")] = None,
    format_: Annotated[Literal["npy", "safetensors"], typer.Option("--format", help="Kind of file.")] = "npy",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Type stored.")] = "float32",
    device: Device = "auto",
    batch_s: Annotated[float, typer.Option("--batch-seconds", help="Seconds of audio computed together.")] = 60.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where other features are.")] = False,
) -> int:
    """
    \b
      robustdistiller extract student.ckpt speech/ --layer 2 --out features
      robustdistiller extract student.ckpt speech/ --layer weighted \\
          --head result/downstream/ic/dev-best.ckpt --out features

    \b
    --layer is
      a number       0 is what the transformer starts from, 4 the output of its
                     layer 4; as s3prl's -l
      a name         layer_4, prediction_8
      all            every hidden state and prediction
      weighted       their sum with the weights that a head learned: --head FILE

    \b
    DIR then holds
      NAME.npy         (frames, dim); with --layer all (states, frames, dim)
      manifest.jsonl   one line each: audio, output, frames, layers, digests
      extraction.json  what decided the features

    Run it again to continue: what is there, and unchanged, is skipped. What cannot be read is listed at the end.
    """
    from robustdistiller.acoustics import audio_info, load_audio  # slow to import
    from robustdistiller.acoustics.audio.listing import name_recordings
    from robustdistiller.eval.run.head_checkpoint import find_head
    from robustdistiller.eval.run.head_note import HeadNote
    from robustdistiller.upstream import checkpoint_digest, resolve
    from robustdistiller.upstream.features.extraction import AudioReader
    from robustdistiller.upstream.features.extraction import extract as extract_features

    recordings = name_recordings(audio)  # first: a model may have to be fetched
    checkpoint = resolve(upstream)
    if head is not None:
        head = find_head(head.expanduser())
        note, weights = HeadNote.read(head.parent) or HeadNote(), checkpoint_digest(checkpoint)
        note.require_upstream({"name": "", "checkpoint": upstream, "weights": weights, "weights_of": "file"}, head)
    report = extract_features(
        *(checkpoint, recordings, out, AudioReader(audio_info, load_audio), layer, head),
        format_=format_,
        dtype=dtype,
        device=device,
        batch_s=batch_s,
        progress=True,
        overwrite=overwrite,
    )
    for line in summary(report):
        typer.echo(line)
    for path, reason in report.failed:
        typer.secho(f"failed: {reason if str(path) in reason else f'{path}: {reason}'}", fg="red", err=True)
    return bool(report.failed)


def summary(report: ExtractionReport) -> list[str]:
    """What was done, in a line or two."""
    counts = [f"{report.written} written"]
    counts += [f"{report.skipped} there already"] if report.skipped else []
    counts += [f"{len(report.failed)} failed"] if report.failed else []
    lines = [f"{', '.join(counts)}: {report.manifest}"]
    if report.resampled:
        rates = ", ".join(f"{count} at {rate} Hz" for rate, count in sorted(report.resampled.items()))
        lines.append(f"resampled to 16000 Hz: {rates}")
    return lines
