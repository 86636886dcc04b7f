"""Writing a checkpoint as a file that runs without this package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.files import write_atomically
from robustdistiller.upstream.checkpoints import Checkpoint, read_checkpoint
from robustdistiller.upstream.checkpoints.files import checkpoint_digest, is_part_of
from robustdistiller.upstream.export.check import TOLERANCE, Deviation, ExportError, compare
from robustdistiller.upstream.export.graph import EncoderGraph
from robustdistiller.upstream.export.layers import choose_states
from robustdistiller.upstream.export.quantize import DEFAULT_PARTS, PARTS
from robustdistiller.upstream.export.runtime import require_packages
from robustdistiller.upstream.export.stream import StreamGraph, compare_streams, trace_stream
from robustdistiller.upstream.model.cost import used_parameters
from robustdistiller.upstream.model.encoder import SpeechEncoder
from robustdistiller.upstream.model.streaming import ChunkOptions, require_chunkable

#: What a checkpoint can be exported to, with what runs it.
TARGETS = {
    "onnx": "onnxruntime and others, in float32",
    "onnx-int8-dynamic": "onnxruntime, linear maps in int8, ranges of activations found at run time",
    "onnx-int8-static": "onnxruntime, the same with ranges from calibration speech",
    "torch": "torch.export.load",
}
STREAM_TARGETS = ("onnx", "onnx-int8-dynamic")
OPSET, MIN_OPSET, MAX_OPSET = 20, 18, 23


@dataclass(frozen=True)
class ExportedModel:
    """What :func:`export_model` wrote.

    Attributes:
        path: the file.
        names: of the hidden states it returns.
        num_bytes: its size.
        deviation: from what the encoder computes.
    """

    path: Path
    names: tuple[str, ...]
    num_bytes: int
    deviation: Deviation


def export_model(
    source: str | Path,
    path: str | Path,
    to: str,
    layers: Sequence[str | int] | None = None,
    calibration: Sequence[np.ndarray] | None = None,
    int8_parts: Sequence[str] | None = None,
    opset: int | None = None,
    overwrite: bool = False,
    num_heads: int | None = None,
    progress: bool = False,
    stream: ChunkOptions | None = None,
) -> ExportedModel:
    """Write a checkpoint of any readable format for another runtime, and compare what the file computes.

    The file takes ``waveforms`` ``(batch, samples)`` float32 at 16 kHz and ``lengths`` ``(batch,)`` int64, valid
    samples, of any batch and length (``"torch"``: of two frames, 720 samples, or more), and returns hidden states
    ``(batch, frames, dim)``, by their names, and ``frame_lengths`` ``(batch,)`` int64. As in the encoder, an
    utterance's features do not depend on its batch. With ``stream`` it is a step of streams instead, see
    :mod:`~robustdistiller.upstream.export.stream`.

    Args:
        source: the checkpoint.
        path: file to write; it is whole or absent.
        to: a key of :data:`TARGETS`.
        layers: numbers or names of the hidden states to return; ``None`` is all.
        calibration: speech for ``"onnx-int8-static"``, waveforms ``(samples,)`` at 16 kHz.
        int8_parts: what is quantised, of :data:`PARTS`; ``None`` is :data:`DEFAULT_PARTS`.
        opset: version of ONNX's operators, 20 if not given.
        overwrite: replace what is there.
        num_heads: attention heads, for files that do not say (torchaudio's state dicts).
        progress: show a bar where it takes long.
        stream: what a frame of a stream may see; ``None`` writes an encoder of whole utterances.

    Raises:
        ExportError: the encoder cannot be exported, or the float32 file computes something else.
        FileExistsError: something is there, and ``overwrite`` is false.
        ValueError: an argument does not fit, ``source`` is unreadable, or packages of the extra are missing.

    >>> export_model("student.ckpt", "student.onnx", "onyx")
    Traceback (most recent call last):
    ValueError: 'onyx' is nothing to export to; there are onnx, onnx-int8-dynamic, onnx-int8-static, torch
    """
    if to not in TARGETS:
        raise ValueError(f"{to!r} is nothing to export to; there are {', '.join(TARGETS)}")
    if (calibration is None) != (to != "onnx-int8-static"):
        raise ValueError(
            f"calibration speech is for onnx-int8-static, which needs it; found {to} "
            f"{'without' if calibration is None else 'with'} any"
        )
    if opset is not None and to == "torch":
        raise ValueError(f"opset {opset} is for ONNX files; a program of torch.export has none")
    opset = OPSET if opset is None else opset
    if stream is not None and to not in STREAM_TARGETS:
        raise ValueError(f"a step of streams is exported to {' or '.join(STREAM_TARGETS)}; found {to}")
    parts = _choose_parts(int8_parts, to)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ValueError(f"opset is {opset}; expected {MIN_OPSET} to {MAX_OPSET}")
    if to != "torch":
        require_packages()
    source, path = Path(source).expanduser(), Path(path).expanduser()
    checkpoint = read_checkpoint(source, num_heads)
    if path.is_dir() or (path.exists() and not overwrite):
        kind = "is a folder; expected the name of a file" if path.is_dir() else "exists already; use --overwrite"
        raise FileExistsError(f"{path} {kind}")
    if is_part_of(path, source):
        raise FileExistsError(f"{path} is the checkpoint to export; give another place for the result")
    encoder = checkpoint.build(padding="masked")
    shortest, least = min(map(len, calibration or ()), default=0), encoder.config.receptive_field
    if calibration is not None and shortest < least:
        found = f"a waveform of {shortest} samples" if len(calibration) else "no waveform"
        raise ValueError(f"calibration speech has {found}; expected one or more of at least {least} samples, one frame")
    if stream is not None:
        require_chunkable(encoder.config, stream)
    chosen = choose_states(layers, encoder.state_names())
    notes = _notes(checkpoint, encoder, source, chosen, to)
    deviations: list[Deviation] = []

    def write(file: Path) -> None:
        if to == "torch":
            deviations.append(_write_torch(encoder, chosen, file, notes))
        else:
            graph = EncoderGraph(encoder, chosen, rows=True) if stream is None else StreamGraph(encoder, chosen, stream)
            deviations.append(_write_onnx(encoder, graph, file, notes, calibration, parts, opset, progress))

    write_atomically(path, write)
    return ExportedModel(path, tuple(notes["layers"]), path.stat().st_size, deviations[0])


def _choose_parts(parts: Sequence[str] | None, to: str) -> tuple[str, ...]:
    if parts is None:
        return DEFAULT_PARTS
    if "int8" not in to:
        raise ValueError(f"parts in int8 are for int8 files; found {', '.join(parts)} for {to}")
    # onnxruntime has no convolution whose ranges are found at run time.
    known = [part for part in PARTS if part != "position" or to == "onnx-int8-static"]
    unknown = [part for part in parts if part not in known]
    if unknown or not parts:
        raise ValueError(f"int8 for {', '.join(unknown) or 'nothing'}; {to} takes some of {', '.join(known)}")
    return tuple(parts)


def _notes(
    checkpoint: Checkpoint, encoder: SpeechEncoder, source: Path, chosen: Sequence[int], to: str
) -> dict[str, Any]:
    """What a reader of the file needs to know, and where it comes from."""
    config, names, waveform = encoder.config, encoder.state_names(), torch.zeros(1, encoder.config.block_samples(2))
    precision = {"onnx-int8-dynamic": "int8, dynamic", "onnx-int8-static": "int8, static"}.get(to, "float32")
    return {
        "layers": [names[layer] for layer in chosen],
        "layer_numbers": list(chosen),
        "num_layers": config.num_layers,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "downsample_rate": config.downsample_rate,
        "receptive_field": config.receptive_field,
        "precision": precision,
        "parameters": used_parameters(
            encoder, lambda: [encoder(waveform).upstream_states(config)[layer] for layer in chosen]
        ),
        "config": config.to_dict(),
        "checkpoint": source.name,
        "checkpoint_digest": checkpoint_digest(source),
        "checkpoint_metadata": checkpoint.metadata,
        "versions": {name: version(name) for name in ("robustdistiller", "torch")},
    }


def _write_onnx(
    encoder: SpeechEncoder,
    graph: EncoderGraph | StreamGraph,
    file: Path,
    notes: Mapping[str, Any],
    calibration: Sequence[np.ndarray] | None,
    parts: Sequence[str],
    opset: int,
    progress: bool,
) -> Deviation:
    from robustdistiller.upstream.export.onnx_file import load_model, save_model, trace_onnx
    from robustdistiller.upstream.export.quantize import quantize
    from robustdistiller.upstream.export.runtime import open_session
    from robustdistiller.upstream.export.spectral_position import multiply_spectra

    def measure(path: Path) -> Deviation:
        session = open_session(path)
        if isinstance(graph, StreamGraph):
            return compare_streams(graph, session)
        return compare(encoder, graph.layers, _session_runner(session))

    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        written = Path(folder) / "float32.onnx"
        traced = trace_stream(graph, opset) if isinstance(graph, StreamGraph) else trace_onnx(graph, opset)
        save_model(traced, written)
        if notes["precision"] != "float32":
            _require_close(measure(written))
            plain, written = written, Path(folder) / "int8.onnx"
            quantize(plain, written, calibration, parts, progress)
        model = load_model(written)
        # A chunk of a stream is too short for spectra to pay.
        spectral = not isinstance(graph, StreamGraph) and multiply_spectra(model) > 0
        save_model(model, written)
        deviation = measure(written)
        if notes["precision"] == "float32":
            _require_close(deviation)
        used: dict[str, Any] = {} if notes["precision"] == "float32" else {"int8_parts": list(parts)}
        used |= {} if calibration is None else {"calibration_seconds": _seconds(calibration)}
        used |= {"stream": graph.notes} if isinstance(graph, StreamGraph) else {"spectral_position": spectral}
        save_model(model, file, {**notes, **used, "opset": opset, **vars(deviation)})
    return deviation


def _write_torch(encoder: SpeechEncoder, chosen: tuple[int, ...], file: Path, notes: Mapping[str, Any]) -> Deviation:
    from robustdistiller.upstream.export.program import load_program, save_program, trace_program

    program = trace_program(EncoderGraph(encoder, chosen))
    save_program(program, file, notes)
    deviation = compare(encoder, chosen, load_program(file)[0])
    _require_close(deviation)
    save_program(program, file, {**notes, **vars(deviation)})
    return deviation


def _session_runner(session) -> Callable[[Tensor, Tensor], tuple[list[Tensor], Tensor]]:
    def run(waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        found = session.run(None, {"waveforms": waveforms.numpy(), "lengths": lengths.numpy()})
        *states, frames = map(torch.from_numpy, found)
        return states, frames

    return run


def _require_close(deviation: Deviation) -> None:
    if not deviation.max_relative_error <= TOLERANCE:
        raise ExportError(
            f"the exported graph deviates by {deviation.max_relative_error:.1e} of the largest value from the encoder; "
            f"expected at most {TOLERANCE:.0e}: nothing was written; please report it with the checkpoint's config"
        )


def _seconds(calibration: Sequence[np.ndarray]) -> float:
    return round(sum(map(len, calibration)) / SAMPLE_RATE_HZ, 1)
