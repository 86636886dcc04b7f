"""`robustdistiller export`: write a checkpoint as a file that runs without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import Model, NumHeads, Overwrite

CALIBRATION_FILES = 64


@command()
def export(
    source: Model,
    target: Annotated[Path, typer.Argument(help="File to write.", metavar="OUT")],
    to: Annotated[
        Literal["onnx", "onnx-int8-dynamic", "onnx-int8-static", "torch"], typer.Option("--to", help="Kind of file.")
    ] = "onnx",
    layers: Annotated[str, typer.Option(help="Hidden states, by number or name, with commas.", metavar="LIST")] = "all",
    calibration: Annotated[Path | None, typer.Option(help="Speech for onnx-int8-static.", metavar="FOLDER")] = None,
    calibration_files: Annotated[int | None, typer.Option(min=1, help="Recordings of it.", show_default="64")] = None,
    int8: Annotated[
        str | None,
        typer.Option(
            help="What is in int8, with commas: linear, extractor and, in static files, position.",
            show_default="linear",
            metavar="PARTS",
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Version of ONNX's operators, 18 to 23.", show_default="20")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write a step of streams, to onnx or onnx-int8-dynamic.")
    ] = False,
    chunk_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a step, 20 ms each.", show_default="8: 160 ms")
    ] = None,
    left_frames: Annotated[
        int | None, typer.Option(min=0, help="Frames before a step that attention sees.", show_default="256")
    ] = None,
    look_ahead_frames: Annotated[
        int | None, typer.Option(min=0, help="Frames behind a step that it waits for.", show_default="0")
    ] = None,
    num_heads: NumHeads = None,
    overwrite: Overwrite = False,
) -> None:
    """
    \b
      robustdistiller export student.ckpt student.onnx --layers layer_2
      robustdistiller export student.ckpt static.onnx --to onnx-int8-static \\
          --calibration LibriSpeech/dev-clean
      run_downstream.py -u robustdistiller_onnx -k static.onnx ...

    \b
      onnx               for ONNX Runtime, in float32
      onnx-int8-dynamic  linear maps in int8; ranges of activations are found
                         at run time
      onnx-int8-static   the same, with ranges measured over the mini corpus or
                         --calibration
      torch              for torch.export.load (.pt2); batches of two frames,
                         720 samples, or more

    The convolutions of the extractor stay in float32 unless --int8 names them: in int8 they cost accuracy.

    \b
    The file takes
      waveforms      (batch, samples) float32, 16 kHz, zeros after each end
      lengths        (batch,) int64, samples of each; at least 400
    and gives
      layer_1, ...   (batch, frames, dim) float32, by the names of --layers
      frame_lengths  (batch,) int64; frames after these mean nothing
    for any batch and length; an utterance is the same in any batch. Its metadata
    name layers, checkpoint and configuration.

    \b
    With --stream the file is a step of streams, any number of them at once:
      samples        (streams, block) float32; the next step begins `hop` later
      num_samples    (streams,) int64, samples there are: less at the end
      begins         (streams,) bool, true where an utterance begins
      state.NAME     zeros at first, then next.NAME of the step before
    gives layers and frame_lengths as above, of one chunk, and next.NAME. The
    metadata `stream` says hop_samples, block_samples and padding_samples: zeros
    before and behind an utterance, for log-mel front ends, that num_samples
    counts.

    ONNX needs: pip install onnx onnxruntime onnxscript
    """
    from robustdistiller.mini.calibration import calibration_speech  # slow to import
    from robustdistiller.upstream import ChunkOptions, resolve
    from robustdistiller.upstream.export import export_model

    static = to == "onnx-int8-static"
    if not static and not calibration is calibration_files is None:
        raise ValueError(f"--calibration is for --to onnx-int8-static; --to {to} measures no ranges")
    sizes = {"chunk_frames": chunk_frames, "left_frames": left_frames, "look_ahead_frames": look_ahead_frames}
    sizes = {name: value for name, value in sizes.items() if value is not None}
    if sizes and not stream:
        raise ValueError(f"--{next(iter(sizes)).replace('_', '-')} is for streams; give --stream, too")
    exported = export_model(
        resolve(source),
        target,
        to,
        layers=None if layers == "all" else [layer.strip() for layer in layers.split(",")],
        calibration=calibration_speech(calibration, calibration_files or CALIBRATION_FILES) if static else None,
        int8_parts=None if int8 is None else [part.strip() for part in int8.split(",")],
        opset=opset,
        overwrite=overwrite,
        num_heads=num_heads,
        progress=True,
        stream=ChunkOptions(**{"chunk_frames": 8, **sizes}) if stream else None,
    )
    deviation = exported.deviation
    typer.echo(f"{exported.path}  {exported.num_bytes / 1e6:.1f} MB: {', '.join(exported.names)}")
    compared = "streams" if stream else "padded batches"
    typer.echo(
        f"on random {compared} it is off by at most {deviation.max_relative_error:.1e} of a hidden state's largest "
        f"value, root mean square {deviation.rms_relative_error:.1e}"
    )
