"""Students that hear their utterance in chunks, as it arrives: work per chunk, and beside the whole utterance at once.

The shapes of a DistilHuBERT of Base size and of the fast recipes, random weights: their speed is that of trained ones.
"""

from __future__ import annotations

import statistics

import torch

from research.bench.edge import SMALL_STUDENT, final_shape
from research.bench.inference import SMALL, WAVLM
from research.bench.measure import Comparison, Series, alternate, work_clock
from research.bench.settings import Findings, Settings
from research.bench.streaming_onnx import compare_exported
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
SHORT_FRAMES = 8
CHUNKS = ((SHORT_FRAMES, 0), (SHORT_FRAMES, 4), (16, 0), (16, 8), (32, 0), (32, 16), (64, 0))
#: Where only what is computed is looked at.
QUICK_CHUNKS = CHUNKS[:3]
#: Recipes whose students are compared with one of two layers.
FAST = ("fast50", "fast25")
#: What an exported stream of a fast student may take of its time at most, in chunks of 160 ms.
TARGET_REAL_TIME_FACTOR = 0.1


def run(settings: Settings) -> Findings:
    """Work of whole streams against that of the encoder, and latencies."""
    duration_s = 2.0 if settings.quick else DURATION_S
    found = [_stream(name, shape, duration_s, settings) for name, shape in _shapes(settings.quick).items()]
    exported = [one for name in FAST for one in _exported(name, duration_s, settings)]
    text = (
        f"One utterance of {duration_s:g} s, batch of one, one thread, processor time. `latency_ms` is the age of a "
        "chunk's first sample when the chunk's features are there: no sample waits longer, the last of a chunk waits a "
        "chunk less. The left context is 256 frames (5 s). What the chunks cost in accuracy: results/study.",
    )
    comparisons = [*(one for lines, _ in found for one in lines), *exported]
    return Findings(tuple(comparisons), tuple(series for _, series in found), text)


def _exported(name: str, duration_s: float, settings: Settings) -> list[Comparison]:
    encoder = SpeechEncoder(_shapes(settings.quick)[name]).eval()
    waveform = noise(round(duration_s * SAMPLE_RATE_HZ), settings.seed)
    return compare_exported(name, encoder, waveform, ChunkOptions(SHORT_FRAMES), TARGET_REAL_TIME_FACTOR, settings)


def _shapes(quick: bool) -> dict[str, EncoderConfig]:
    """Two layers behind wav2vec's extractor, as DistilHuBERT, and the students of the fast recipes."""
    small, less = (SMALL, SMALL_STUDENT) if quick else ({}, [])
    teacher = EncoderConfig(**WAVLM, **small)
    fast = {name: final_shape(teacher, name, less) for name in FAST}
    return {"two layers": EncoderConfig(num_layers=2, feature_norm=False, **small), **fast}


def _stream(name: str, shape: EncoderConfig, duration_s: float, settings: Settings) -> tuple[list[Comparison], Series]:
    encoder = accelerate(SpeechEncoder(shape).eval())  # as streams are to be given one
    waveform = noise(round(duration_s * SAMPLE_RATE_HZ), settings.seed)
    chunks = {
        f"{name}, chunks of {20 * chunk} ms, look-ahead {20 * ahead} ms": (chunk, ahead)
        for chunk, ahead in (QUICK_CHUNKS if settings.quick else CHUNKS)
    }

    def listen(chunk: int, ahead: int) -> list[EncoderOutput | None]:
        stream = Stream(encoder, ChunkOptions(chunk, look_ahead_frames=ahead))
        pieces = waveform.split(chunk * encoder.downsample_rate)
        return [*(stream.push(piece) for piece in pieces), stream.finish()]

    @torch.no_grad()
    def whole() -> EncoderOutput:
        return encoder(waveform[None])

    ways = {part: lambda sizes=sizes: listen(*sizes) for part, sizes in chunks.items()}
    seconds = alternate({"whole": whole, **ways}, settings.rounds, clock=work_clock("cpu"))
    comparisons, latencies, works = [], [], []
    for part, (chunk, ahead) in chunks.items():
        options = ChunkOptions(chunk, look_ahead_frames=ahead)
        streamed = torch.cat([output.hidden_states[-1] for output in listen(chunk, ahead) if output is not None], dim=1)
        masked = ChunkedEncoder(encoder, options)(waveform[None]).hidden_states[-1]
        error = float((streamed - masked).abs().max() / masked.abs().max())
        work_ms = [1000 * value * 0.02 * chunk / duration_s for value in seconds[part]]
        latency_ms, real_time_factor = options.latency_ms(encoder.config), statistics.median(seconds[part]) / duration_s
        notes = {
            "waits_for_audio_ms": latency_ms,
            "work_per_chunk_ms": statistics.median(work_ms),
            "latency_ms": latency_ms + statistics.median(work_ms),
            "real_time_factor": real_time_factor,
        }
        equal = f"the stream equals the masked whole to {error:.1e} of the largest value"
        comparisons.append(
            Comparison(part, "stream", "whole utterance", seconds[part], seconds["whole"], equal, None, notes)
        )
        latencies.append(20.0 * chunk)
        works.append((tuple(work_ms), ahead))
    without = [(x, y) for x, (y, ahead) in zip(latencies, works) if ahead == 0]
    series = Series(
        f"work of one chunk, no look-ahead, {name}", "chunk_ms", "work_ms", tuple(x for x, _ in without),
        tuple(y for _, y in without), "1 is proportional: no cost of small chunks.",
    )  # fmt: skip
    return comparisons, series
