"""Students that are really small: speed on one core against s3prl's WavLM Base+ and DistilHuBERT, float32 and int8.

Random weights, whose speed is that of trained ones, of the shapes of recipes fast50, fast25 and small, and of others to
compare with. Where a recipe prunes, all layers have lost the same share. Utterances of 10 s and 2 s, alone and eight
in a batch.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from research.bench.inference import SMALL, WAVLM, Way, peak_bytes
from research.bench.measure import Comparison, alternate, work_clock
from research.bench.settings import Findings, Settings
from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.eval.cost.protocol import noise
from robustdistiller.mini.calibration import calibration_speech
from robustdistiller.pretrain import load_config
from robustdistiller.pretrain.student.pruning.gates import pruned_evenly
from robustdistiller.pretrain.student.shapes import student_shape
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from robustdistiller.upstream.checkpoints.export import export_checkpoint
from robustdistiller.upstream.contract import open_upstream
from robustdistiller.upstream.export import export_model
from robustdistiller.upstream.model.cost import encoder_cost
from robustdistiller.upstream.s3prl import bridge

#: Name to recipe, settings, and how many times as fast as s3prl's WavLM Base+ it has to be in float32.
STUDENTS: dict[str, tuple[str, list[str], float | None]] = {
    "fast50": ("fast50", [], 5.0),
    "fast25": ("fast25", [], 8.0),
    "small": ("small", [], None),
    "SEW's front end, 2 x 768": ("distilhubert", ["student.conv_layers=sew"], 5.0),
    "SEW's front end, 12 x 384, 25 Hz": ("thin", ["student.conv_layers=sew", "student.squeeze=2"], None),
}
INT8_TARGET = 10.0
KINDS = {"ONNX": "onnx", "int8 dynamic": "onnx-int8-dynamic", "int8 static": "onnx-int8-static"}
#: What `--quick` makes of a student.
SMALL_STUDENT = ["student.num_layers=2", "student.embed_dim=64", "student.num_heads=4", "student.ffn_dim=128"]
WAVLM_BASE_PLUS, DISTILHUBERT = "WavLM Base+, s3prl", "DistilHuBERT, s3prl"
#: Seconds and utterances.
BATCHES = ((10.0, 1), (2.0, 1), (10.0, 8), (2.0, 8))


def run(settings: Settings) -> Findings:
    """Ratios of every student to both peers, with memory, file size, parameters and MACs."""
    bridge.install()
    settings.work.mkdir(parents=True, exist_ok=True)
    ways, notes = _make(settings)
    upstreams = {name: _open(way) for name, way in ways.items()}
    memory = {name: peak_bytes(way, BATCHES[0][0]) for name, way in ways.items()}
    comparisons = []
    for duration_s, count in BATCHES[1:2] if settings.quick else BATCHES:
        waveforms = [noise(round(duration_s * SAMPLE_RATE_HZ), settings.seed + number) for number in range(count)]
        calls = {name: partial(upstream, waveforms) for name, upstream in upstreams.items()}
        seconds = alternate(calls, settings.rounds, device=settings.device, clock=work_clock(settings.device))
        for name in ways:
            if name in (WAVLM_BASE_PLUS, DISTILHUBERT):
                continue
            student, _, kind = name.rpartition(", ")
            target = INT8_TARGET if "int8" in kind else STUDENTS[student][2] if kind == "ours" else None
            for peer in (WAVLM_BASE_PLUS, DISTILHUBERT):
                told = {
                    "real_time_factor_ours": sorted(seconds[name])[settings.rounds // 2] / duration_s / count,
                    "peak_memory_MB_ours": memory[name] / 1e6,
                    "peak_memory_MB_other": memory[peer] / 1e6,
                    "file_MB_ours": ways[name].megabytes,
                    "file_MB_other": ways[peer].megabytes,
                    **notes[student],
                }
                part = f"{duration_s:g} s, batch of {count}"
                goal = target if peer == WAVLM_BASE_PLUS else None
                measured = seconds[name], seconds[peer]
                comparisons.append(Comparison(part, name, peer, *measured, "other models", goal, told))
    text = [
        "Noise, one thread, processor time, all hidden states and no predictions. Weights are random, which tells "
        "nothing about accuracy. Memory is the peak of a process of its own that encodes 10 s, Python and its "
        "packages included.",
    ]
    return Findings(tuple(comparisons), text=tuple(text))


def final_shape(teacher: EncoderConfig, recipe: str, options: list[str]) -> EncoderConfig:
    """Of the student that a recipe ends with; a pruned one has lost the same share of every layer."""
    config = load_config(recipe, options)
    shape = student_shape(teacher, config.student)
    return shape if config.pruning is None else pruned_evenly(SpeechEncoder(shape), config.pruning)


def _make(settings: Settings) -> tuple[dict[str, Way], dict[str, dict[str, float | str]]]:
    """Every file by the name of the way, and size and work of each student."""
    speech = calibration_speech(None, 4 if settings.quick else 16)
    small, less = (SMALL, SMALL_STUDENT) if settings.quick else ({}, [])
    teacher = EncoderConfig(**WAVLM, **small)
    peers = {
        WAVLM_BASE_PLUS: teacher,
        DISTILHUBERT: EncoderConfig(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12), **small),
    }
    ways: dict[str, Way] = {}
    for number, (name, shape) in enumerate(peers.items()):
        checkpoint = _save(shape, settings, f"peer{number}")
        stock = export_checkpoint(checkpoint, settings.work / f"peer{number}-s3prl.pt", "s3prl", overwrite=True)
        ways[name] = Way(stock.model.split()[-1], stock.path)
    notes: dict[str, dict[str, float | str]] = {}
    chosen = dict(list(STUDENTS.items())[:2]) if settings.quick else STUDENTS
    for number, (name, (recipe, options, _)) in enumerate(chosen.items()):
        shape = final_shape(teacher, recipe, options + less)
        checkpoint = _save(shape, settings, f"student{number}")
        cost = encoder_cost(SpeechEncoder(shape))
        notes[name] = {"parameters_M": cost.parameters_used / 1e6, "GMAC_per_s": cost.macs_per_s / 1e9}
        ways[f"{name}, ours"] = Way("robustdistiller_local", checkpoint)
        for kind, to in {
            "ONNX": "onnx",
            "int8 dynamic": "onnx-int8-dynamic",
            "int8 static": "onnx-int8-static",
        }.items():
            path = settings.work / f"student{number}-{to}.onnx"
            export_model(checkpoint, path, to, calibration=speech if "static" in to else None, overwrite=True)
            ways[f"{name}, {kind}"] = Way("robustdistiller_onnx", path)
    return ways, notes


def _save(shape: EncoderConfig, settings: Settings, name: str) -> Path:
    torch.manual_seed(settings.seed)
    path = settings.work / f"{name}.ckpt"
    save_checkpoint(path, SpeechEncoder(shape), {})
    return path


def _open(way: Way) -> Callable[[list[Tensor]], object]:
    """From waveforms to hidden states, without predictions."""
    with contextlib.redirect_stdout(io.StringIO()):
        upstream = open_upstream(way.entry, str(way.path), None).eval()
    if hasattr(upstream, "accelerate"):
        upstream.accelerate()
    without = {"no_pred": True} if way.entry in ("robustdistiller_local", "distiller_local") else {}
    return torch.no_grad()(lambda waveforms: upstream(waveforms, **without))
