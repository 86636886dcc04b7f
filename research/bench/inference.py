"""Features of one utterance on one core: teacher and student, our encoder, s3prl's modules, onnxruntime.

Base+ shapes with random weights, whose speed is that of trained ones. s3prl's modules read the same weights, written by
`robustdistiller convert --to s3prl`. The student runs without its prediction heads, which are for training.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from research.bench.measure import Comparison, alternate, work_clock
from research.bench.settings import Findings, Settings
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.common.process import call_apart
from robustdistiller.eval.cost.protocol import noise
from robustdistiller.mini.calibration import calibration_speech
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from robustdistiller.upstream.checkpoints.export import export_checkpoint
from robustdistiller.upstream.contract import open_upstream
from robustdistiller.upstream.export import export_model
from robustdistiller.upstream.export.quantize import PARTS
from robustdistiller.upstream.s3prl import bridge

DURATION_S = 10.0
STUDENT, TEACHER = "student", "teacher"
#: Whether ranges are measured beforehand, and what is quantised.
INT8 = {
    "int8 dynamic": (False, ("linear",)),
    "int8 dynamic extractor too": (False, ("linear", "extractor")),
    "int8 static": (True, ("linear",)),
    "int8 static convolutions too": (True, PARTS),
}
WAVLM = {"relative_position": True, "gated_relative_position": True, "reference_mask": "block"}
#: What `--quick` makes of a shape.
SMALL: dict[str, Any] = {
    "conv_layers": ((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2),
    **{"embed_dim": 64, "num_heads": 4, "ffn_dim": 128},
}


@dataclass(frozen=True)
class Way:
    """One way to compute features: an entry of s3prl's hub, and its file."""

    entry: str
    path: Path
    equal: str = ""

    @property
    def megabytes(self) -> float:
        return self.path.stat().st_size / 1e6


def run(settings: Settings) -> Findings:
    """Real-time factor, peak memory and file size of each way, and the ratios that the targets are about."""
    bridge.install()
    settings.work.mkdir(parents=True, exist_ok=True)
    ways = _make(settings)
    duration_s = 2.0 if settings.quick else DURATION_S
    waveform = noise(round(duration_s * SAMPLE_RATE_HZ), settings.seed)
    upstreams = {name: _open(way) for name, way in ways.items()}
    states = {name: upstream(waveform)[-1] for name, upstream in upstreams.items()}
    calls = {name: lambda upstream=upstream: upstream(waveform) for name, upstream in upstreams.items()}
    seconds = alternate(calls, settings.rounds, device=settings.device, clock=work_clock(settings.device))
    memory = {name: peak_bytes(way, duration_s) for name, way in ways.items()}
    comparisons = []
    for part, ours, peer, target in _pairs(ways):
        notes: dict[str, float | str] = {}
        for label, name in (("ours", ours), ("other", peer)):
            notes[f"real_time_factor_{label}"] = sorted(seconds[name])[settings.rounds // 2] / duration_s
            notes[f"peak_memory_MB_{label}"] = memory[name] / 1e6
            notes[f"file_MB_{label}"] = ways[name].megabytes
        model = ours.split(",")[0]
        same = peer.split(",")[0] == model
        equal = f"last layers differ by {_difference(states[ours], states[peer]):.1e}" if same else "other models"
        comparisons.append(Comparison(part, ours, peer, seconds[ours], seconds[peer], equal, target, notes))
    text = [
        f"One utterance of {duration_s:g} s of noise, batch of one, one thread, processor time. Weights are random, of "
        "the shapes of WavLM Base+ (teacher) and of a DistilHuBERT of that width (student, two layers): they tell "
        "nothing about accuracy. Differences are root mean squares relative to the values. Memory is the peak of a "
        "process of its own, Python and its packages included; there the student's encoder runs its heads, too.",
    ]
    return Findings(tuple(comparisons), text=tuple(text))


def _pairs(ways: dict[str, Way]) -> list[tuple[str, str, str, float | None]]:
    """What is compared: title, our way, the other way, target."""
    stock, student = f"{TEACHER}, s3prl", f"{STUDENT}, ours"
    pairs: list[tuple[str, str, str, float | None]] = [
        ("student against teacher, float32", student, stock, 5.0),
        ("student against teacher, float32, ours both", student, f"{TEACHER}, ours", None),
        ("student, float32", student, f"{STUDENT}, s3prl", None),
        ("teacher, float32", f"{TEACHER}, ours", stock, None),
        ("student against teacher, float32, s3prl both", f"{STUDENT}, s3prl", stock, None),
        ("student, onnxruntime", f"{STUDENT}, ONNX", student, None),
        ("teacher, onnxruntime", f"{TEACHER}, ONNX", f"{TEACHER}, ours", None),
    ]
    for name in ways:
        if name.startswith(STUDENT) and "int8" in name:
            pairs.append(("student in int8 against teacher", name, stock, 10.0))
            pairs.append(("student in int8", name, student, None))
        elif "int8" in name:
            pairs.append(("teacher in int8", name, f"{TEACHER}, ours", None))
    return pairs


def _make(settings: Settings) -> dict[str, Way]:
    """Every file, by the name of the way."""
    small = SMALL if settings.quick else {}
    shapes = {
        TEACHER: EncoderConfig(**WAVLM, **small),
        STUDENT: EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12), **small),
    }
    speech = calibration_speech(None, 4 if settings.quick else 16)
    ways: dict[str, Way] = {}
    for name, shape in shapes.items():
        torch.manual_seed(settings.seed)
        checkpoint = settings.work / f"{name}.ckpt"
        save_checkpoint(checkpoint, SpeechEncoder(shape), {})
        stock = export_checkpoint(checkpoint, settings.work / f"{name}-s3prl.pt", "s3prl", overwrite=True)
        ways[f"{name}, ours"] = Way("robustdistiller_local", checkpoint)
        ways[f"{name}, s3prl"] = Way(stock.model.split()[-1], stock.path)
        layers = range(shape.num_layers + 1)
        plain = export_model(checkpoint, settings.work / f"{name}.onnx", "onnx", layers, overwrite=True)
        ways[f"{name}, ONNX"] = Way("robustdistiller_onnx", plain.path)
        for kind, (calibrated, parts) in INT8.items():
            path, given = settings.work / f"{name}-{kind.replace(' ', '-')}.onnx", speech if calibrated else None
            to = "onnx-int8-static" if calibrated else "onnx-int8-dynamic"
            export_model(checkpoint, path, to, layers, given, parts, overwrite=True)
            ways[f"{name}, {kind}"] = Way("robustdistiller_onnx", path)
    return ways


def _open(way: Way) -> Callable[[Tensor], list[Tensor]]:
    """From a waveform to hidden states, without predictions."""
    with contextlib.redirect_stdout(io.StringIO()):
        upstream = open_upstream(way.entry, str(way.path), None).eval()
    if hasattr(upstream, "accelerate"):
        upstream.accelerate()
    without = {"no_pred": True} if way.entry in ("robustdistiller_local", "distiller_local") else {}

    @torch.no_grad()
    def call(waveform: Tensor) -> list[Tensor]:
        return list(upstream([waveform], **without)["hidden_states"])

    return call


def _difference(a: Tensor, b: Tensor) -> float:
    frames = min(a.shape[1], b.shape[1])
    a, b = a[:, :frames], b[:, :frames]
    return float(((a - b).square().sum() / b.square().sum()).sqrt())


def peak_bytes(way: Way, duration_s: float) -> int:
    """Of a process that loads the file and encodes one utterance."""
    given = {"name": way.entry, "checkpoint": str(way.path), "options": None, "repeats": 1, "librispeech": None}
    given |= {"durations_s": [duration_s], "device": "cpu", "threads": 1, "superb": False}
    time_upstream = "robustdistiller.eval.cost.timing:time_upstream"
    (run,) = call_apart(time_upstream, given, environment={"OMP_NUM_THREADS": "1"})
    return max(run["peak_memory_bytes"], run["loaded_memory_bytes"])
