"""How the cost of a training step grows with batch, length and depth, and that of an evaluation with its conditions.

The steps are those of recipe `robustdistiller` with a teacher of the shape of WavLM Base+ and random weights. From the
operations counted per second of audio the published training is projected to processors that are not here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from research.bench.machine import matrix_rate
from research.bench.measure import Series, alternate, work_clock
from research.bench.settings import Findings, Settings
from research.bench.training_work import Work, in_new_process, prepare, teacher_shape, time_ours
from robustdistiller import mini
from robustdistiller.eval.run import launcher
from robustdistiller.upstream import EncoderConfig
from robustdistiller.upstream.model.cost import encoder_macs
from robustdistiller.upstream.s3prl import bridge

#: Of recipe `robustdistiller`; the mean length of LibriSpeech's 281,241 training utterances.
_PUBLISHED_STEPS, _PUBLISHED_BATCH, _PUBLISHED_S = 200_000, 24, 12.3
#: Dense bfloat16 rate of an H100 SXM by NVIDIA's data sheet; none was measured.
_GPU_FLOPS = 989e12
_ASSUMED_UTILISATION, _ASSUMED_EFFICIENCY = 0.3, 0.85
_CONDITIONS = ("clean", "noise:snr_db=10", "noise:snr_db=0", "reverb", "noise+reverb:snr_db=10", "noise:snr_db=5",
               "noise:snr_db=15", "noise+reverb:snr_db=5")  # fmt: skip


def run(settings: Settings) -> Findings:
    """Four series, and the projection."""
    quick = settings.quick
    duration_s = 1.0 if quick else 5.0
    batches, lengths = (1, 2) if quick else (1, 2, 4), (1.0, 2.0) if quick else (2.5, 5.0, 10.0, 15.0)
    layers, conditions = (1, 2) if quick else (1, 2, 4, 8), (1, 2) if quick else (1, 2, 4, 8)
    base = Work(settings.work / "scaling", settings.work / "corpus", settings.device, torch.get_num_threads(), 1,
                duration_s, 1 if quick else 2, settings.seed)  # fmt: skip
    by_batch = {size: _step(replace(base, batch=size), quick) for size in batches}
    by_length = {length: _step(replace(base, duration_s=length), quick) for length in lengths}
    by_depth = {depth: _step(replace(base, overrides=(f"student.num_layers={depth}",)), quick) for depth in layers}
    evaluation = in_new_process(evaluate, Evaluation(settings.work, base.threads, settings.device, conditions,
                                                     1 if quick else min(settings.rounds, 3)))  # fmt: skip
    unit = "processor time, s" if settings.device == "cpu" else "time, s"
    series = (
        _series(f"training step, utterances of {duration_s:g} s", "utterances", by_batch, unit, "1 is proportional."),
        _series("training step, one utterance", "length, s", by_length, unit, "1 is proportional, attention alone 2."),
        _series(
            f"training step, one utterance of {duration_s:g} s",
            "layers of the student",
            by_depth,
            unit,
            "The teacher's twelve layers, the convolutions and the enhancement head stay.",
        ),
        _series("evaluation of a trained head", "test conditions", evaluation, unit, "0 would be conditions for free."),
    )
    speed = max(batches) * duration_s / series[0].medians[-1]
    return Findings(series=series, text=(project(speed, settings.device, matrix_rate(settings.device)),))


def _step(work: Work, quick: bool) -> tuple[float, ...]:
    prepare(work, small=quick)
    return tuple(in_new_process(time_ours, work)["seconds"])


def _series(part: str, x_name: str, points: Mapping[float, tuple[float, ...]], unit: str, note: str) -> Series:
    return Series(part, x_name, unit, tuple(points), tuple(points.values()), note)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` is given.

    Attributes:
        work: folder.
        threads: of the CPU.
        device: `cpu` or `cuda`.
        counts: of conditions.
        rounds: of each.

    >>> Evaluation(Path("exp"), 1, "cpu", (1, 2), 3).counts
    (1, 2)
    """

    work: Path
    threads: int
    device: str
    counts: tuple[int, ...]
    rounds: int


def evaluate(settings: Evaluation) -> dict[int, tuple[float, ...]]:
    """Seconds of `run_downstream.py -m evaluate` on the mini corpus's syllables, by number of conditions."""
    bridge.install()
    corpus = mini.build(settings.work / "corpus")
    folder = settings.work / "scaling-evaluation"
    shutil.rmtree(folder, ignore_errors=True)
    options = {**corpus.overrides("fluent_commands"), "config.downstream_expert.datarc.num_workers": 0}
    options |= {f"config.runner.{name}": 1 for name in ("total_steps", "save_step", "log_step")}
    options |= {"config.runner.eval_step": 100}
    text = ",,".join(f"{name}={value!r}" for name, value in options.items())
    _launch("-m", "train", "-u", "robustdistiller_mini", "-d", "fluent_commands", "-p", str(folder), "-o", text,
            "--device", settings.device)  # fmt: skip

    def way(count: int) -> None:
        shutil.rmtree(folder / "records", ignore_errors=True)
        asked = [word for condition in _CONDITIONS[:count] for word in ("--condition", condition)]
        _launch("-m", "evaluate", "-e", str(folder / "states-1.ckpt"), "--records", str(folder / "records"), *asked,
                "--device", settings.device)  # fmt: skip

    ways = {str(count): lambda count=count: way(count) for count in settings.counts}
    clock = work_clock(settings.device)
    found = alternate(ways, settings.rounds, warm_up=0, device=settings.device, clock=clock)
    return {int(count): seconds for count, seconds in found.items()}


def _launch(*arguments: str) -> None:
    if launcher.main(list(arguments)) != 0:
        raise RuntimeError("run_downstream.py failed; see above")


def step_flops(teacher: EncoderConfig, student: EncoderConfig, duration_s: float) -> dict[str, float]:
    """Floating-point operations of a training step on one utterance, 2 per multiplication and addition.

    The gradient takes twice what the forward pass takes. The enhancement head is three bidirectional LSTM layers of 256
    units at 100 frames per second.

    >>> shape = teacher_shape()
    >>> found = step_flops(shape, shape.replace(num_layers=2, prediction_layers=(4, 8, 12)), 10.0)
    >>> {part: round(flops / 10e9, 1) for part, flops in found.items()}  # per second of audio, in 1e9
    {'teacher': 14.8, 'student': 22.0, 'enhancement': 2.9}
    """
    lstm = sum(2 * 4 * 256 * (width + 256) for width in (512, 512, 512)) + 512 * 257
    return {
        "teacher": 2.0 * encoder_macs(teacher, duration_s),
        "student": 3 * 2.0 * encoder_macs(student, duration_s, heads=True),
        "enhancement": 3 * 2.0 * lstm * 100 * duration_s,
    }


def project(audio_s_per_s: float, device: str, best_flops: float) -> str:
    """The published training on this machine, and on GPUs by assumption.

    Args:
        audio_s_per_s: seconds of audio that a step of this machine takes in per second.
        device: that was measured.
        best_flops: operations per second of its best matrix product.

    >>> "One GPU would take" in project(5.0, "cpu", 1e11)
    True
    """
    teacher = teacher_shape()
    student = teacher.replace(
        num_layers=2, relative_position=False, gated_relative_position=False, prediction_layers=(4, 8, 12)
    )
    parts = step_flops(teacher, student, _PUBLISHED_S)
    per_audio_s = sum(parts.values()) / _PUBLISHED_S
    audio_s = _PUBLISHED_STEPS * _PUBLISHED_BATCH * _PUBLISHED_S
    flops, rate = audio_s * per_audio_s, audio_s_per_s * per_audio_s
    one_h = flops / (_GPU_FLOPS * _ASSUMED_UTILISATION) / 3600
    eight_h = one_h / (8 * _ASSUMED_EFFICIENCY)
    scarce = _ASSUMED_UTILISATION / 0.1
    kept = 1 - parts["teacher"] / sum(parts.values())
    shares = ", ".join(f"{part} {value / sum(parts.values()):.0%}" for part, value in parts.items())
    return (
        f"PROJECTION, not a measurement. The published training is {_PUBLISHED_STEPS:,} steps of {_PUBLISHED_BATCH} "
        f"utterances of {_PUBLISHED_S} s on average: {audio_s / 3600:,.0f} h of audio, LibriSpeech's 960 h "
        f"{audio_s / 3600 / 960:.0f} times over, {flops / 1e18:.2f} EFLOP by counting ({shares}). Measured here on "
        f"{device}: {audio_s_per_s:.2f} s of audio per second, that is {rate / 1e9:.0f} GFLOP/s by the same counting, "
        f"beside {best_flops / 1e9:.0f} GFLOP/s of the best matrix product; the training would take "
        f"{audio_s / audio_s_per_s / 86400:,.0f} days. Assumed for GPUs, none of which was measured: "
        f"{_ASSUMED_UTILISATION:.0%} of the {_GPU_FLOPS / 1e12:.0f} TFLOP/s (dense bfloat16) that NVIDIA states for an "
        f"H100 SXM, data that arrive in time, and for eight GPUs with {_PUBLISHED_BATCH // 8} utterances each "
        f"{_ASSUMED_EFFICIENCY:.0%} of eight times the rate of one. One GPU would take {one_h:.1f} h, eight "
        f"{eight_h:.1f} h. Recurrent layers and batches of 3 seldom let a GPU get that far: at 10% of the stated rate "
        f"it would be {scarce * one_h:.1f} h and {scarce * eight_h:.1f} h. With the teacher's targets kept on disk "
        f"{kept:.0%} of the operations remain after the first epoch."
    )
