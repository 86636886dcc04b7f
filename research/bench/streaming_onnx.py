"""Steps of streams in onnxruntime alone, one stream or several at once, beside the stream of this package."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from research.bench.measure import Comparison, alternate, work_clock
from research.bench.settings import Settings
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.upstream import ChunkOptions, SpeechEncoder, Stream, accelerate, save_checkpoint
from robustdistiller.upstream.export import export_model
from robustdistiller.upstream.export.runtime import open_session
from robustdistiller.upstream.export.stream import OnnxStreams

KINDS = {"float32": "onnx", "int8 dynamic": "onnx-int8-dynamic"}
STREAMS = (1, 4)


def compare_exported(
    name: str, encoder: SpeechEncoder, waveform: Tensor, options: ChunkOptions, target: float, settings: Settings
) -> list[Comparison]:
    """Seconds of exported steps over an utterance, last hidden state only, against this package's stream.

    Args:
        name: of the encoder.
        encoder: that is exported; float32.
        waveform: ``(samples,)``, heard by every stream.
        options: of the chunks.
        target: the real-time factor of one stream that is aimed at.
        settings: of the benchmark; files go to ``settings.work``.
    """
    settings.work.mkdir(parents=True, exist_ok=True)
    checkpoint = settings.work / f"{name}.ckpt"
    save_checkpoint(checkpoint, encoder, {})
    steps = {kind: _exported(checkpoint, to, encoder.config.num_layers, options) for kind, to in KINDS.items()}
    accelerated, duration_s = accelerate(encoder), len(waveform) / SAMPLE_RATE_HZ

    def here(streams: int) -> list[Tensor]:
        found = []
        for _ in range(streams):
            stream = Stream(accelerated, options)
            pieces = waveform.split(options.chunk_frames * encoder.downsample_rate)
            outputs = [*(stream.push(piece) for piece in pieces), stream.finish()]
            found.append(torch.cat([one.hidden_states[-1] for one in outputs if one is not None], dim=1)[0])
        return found

    comparisons = []
    for streams in STREAMS:
        ways = {kind: lambda play=play, streams=streams: play(waveform, streams) for kind, play in steps.items()}
        times = alternate(
            {**ways, "here": lambda streams=streams: here(streams)}, settings.rounds, clock=work_clock("cpu")
        )
        expected = here(1)[0]
        for kind, play in steps.items():
            found = torch.from_numpy(play(waveform, streams)[-1])
            error = float((found - expected).abs().max() / expected.abs().max())
            real_time_factor = statistics.median(times[kind]) / duration_s / streams
            met = "met" if real_time_factor < target else "not met"
            notes: dict[str, float | str] = {
                "real_time_factor": real_time_factor,
                "target": f"real_time_factor below {target:g}: {met}",
                "waits_for_audio_ms": options.latency_ms(encoder.config),
            }
            part = f"{name}, chunks of {20 * options.chunk_frames} ms, {streams} at once, onnxruntime alone"
            equal = f"equal to the stream to {error:.1e} of the largest value"
            comparisons.append(
                Comparison(
                    part, kind, "streams of this package, one by one", times[kind], times["here"], equal, None, notes
                )
            )
    return comparisons


def _exported(checkpoint: Path, to: str, layer: int, options: ChunkOptions) -> Callable[[Tensor, int], np.ndarray]:
    """What plays an utterance to some streams: last hidden states ``(streams, frames, dim)``."""
    path = checkpoint.with_suffix(f".{to}.onnx")
    export_model(checkpoint, path, to, layers=[layer], stream=options, overwrite=True)
    session = open_session(path, threads=1)
    notes = json.loads(session.get_modelmeta().custom_metadata_map["stream"])

    def play(waveform: Tensor, streams: int) -> np.ndarray:
        hop, size, padding = notes["hop_samples"], notes["block_samples"], notes["padding_samples"]
        samples = np.pad(waveform.numpy(), (padding, padding))
        player, found, start = OnnxStreams(session, streams), [], 0
        while start == 0 or start + size - hop < len(samples):
            part = samples[start : start + size]
            block = np.zeros((streams, size), np.float32)
            block[:, : len(part)] = part
            (states,), frames = player.step(block, np.full(streams, len(part)), np.full(streams, start == 0))
            found.append(states[:, : frames[0]])
            start += hop
        return np.concatenate(found, axis=1)

    return play
