"""A student that hears its utterance in chunks, as it arrives: work per chunk, and beside the whole utterance at once.

The shape of a DistilHuBERT of Base size, random weights: its speed is that of a trained one.
"""

from __future__ import annotations

import statistics

import torch

from research.bench.measure import Comparison, Series, alternate, work_clock
from research.bench.settings import Findings, Settings
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.cost.protocol import noise
from robustdistiller.upstream import (
    ChunkedEncoder,
    ChunkOptions,
    EncoderConfig,
    EncoderOutput,
    SpeechEncoder,
    Stream,
    accelerate,
)

DURATION_S = 10.0
#: Frames of a chunk, and of its look-ahead.
CHUNKS = ((8, 4), (16, 0), (16, 8), (32, 0), (32, 16), (64, 0))


def run(settings: Settings) -> Findings:
    """Work of whole streams against that of the encoder, and latencies."""
    duration_s, small = DURATION_S, {}
    if settings.quick:
        layers = ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2)
        duration_s, small = 2.0, {"conv_layers": layers, "embed_dim": 64, "num_heads": 4, "ffn_dim": 128}
    encoder = SpeechEncoder(EncoderConfig(num_layers=2, feature_norm=False, **small)).eval()
    encoder = accelerate(encoder)  # as streams are to be given one
    waveform = noise(round(duration_s * SAMPLE_RATE_HZ), settings.seed)
    chunks = {f"chunks of {20 * chunk} ms, look-ahead {20 * ahead} ms": (chunk, ahead) for chunk, ahead in CHUNKS}

    def listen(chunk: int, ahead: int) -> list[EncoderOutput | None]:
        stream = Stream(encoder, ChunkOptions(chunk, look_ahead_frames=ahead))
        pieces = waveform.split(chunk * encoder.downsample_rate)
        return [*(stream.push(piece) for piece in pieces), stream.finish()]

    @torch.no_grad()
    def whole() -> EncoderOutput:
        return encoder(waveform[None])

    ways = {name: lambda sizes=sizes: listen(*sizes) for name, sizes in chunks.items()}
    seconds = alternate({"whole": whole, **ways}, settings.rounds, clock=work_clock("cpu"))
    comparisons, latencies, works = [], [], []
    for name, (chunk, ahead) in chunks.items():
        options = ChunkOptions(chunk, look_ahead_frames=ahead)
        streamed = torch.cat([output.hidden_states[-1] for output in listen(chunk, ahead) if output is not None], dim=1)
        masked = ChunkedEncoder(encoder, options)(waveform[None]).hidden_states[-1]
        error = float((streamed - masked).abs().max() / masked.abs().max())
        work_ms = [1000 * value * 0.02 * chunk / duration_s for value in seconds[name]]
        latency_ms = options.latency_ms(encoder.config)
        notes = {
            "waits_for_audio_ms": latency_ms,
            "work_per_chunk_ms": statistics.median(work_ms),
            "latency_ms": latency_ms + statistics.median(work_ms),
            "real_time_factor": statistics.median(seconds[name]) / duration_s,
        }
        equal = f"the stream equals the masked whole to {error:.1e} of the largest value"
        comparisons.append(
            Comparison(name, "stream", "whole utterance", seconds[name], seconds["whole"], equal, None, notes)
        )
        latencies.append(20.0 * chunk)
        works.append((tuple(work_ms), ahead))
    without = [(x, y) for x, (y, ahead) in zip(latencies, works) if ahead == 0]
    series = Series(
        "work of one chunk, no look-ahead", "chunk_ms", "work_ms", tuple(x for x, _ in without),
        tuple(y for _, y in without), "1 is proportional: no cost of small chunks.",
    )  # fmt: skip
    text = (
        f"One utterance of {duration_s:g} s, batch of one, one thread, processor time. `latency_ms` is the age of a "
        "chunk's first sample when the chunk's features are there: no sample waits longer, the last of a chunk waits a "
        "chunk less. The left context is 256 frames (5 s). What the chunks cost in accuracy: results/export.",
    )
    return Findings(tuple(comparisons), (series,), text)
