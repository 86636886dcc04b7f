"""The training step of recipe `robustdistiller`: ours, as `distill` runs it, and the released way of it.

Beside it that of recipe `small` at width 384, whose student is another: what the two together gain in a step.

Each way runs in a process of its own, in turns; a turn is a few steps after one that is not counted. On a CPU seconds
are processor time, data and corruption included. The teacher has the shape of WavLM Base+ and random weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from research.bench.measure import Comparison, work_clock
from research.bench.settings import Findings, Settings
from research.bench.training_peer import PeerData, PeerStep
from research.bench.training_profile import StepParts, StepProfile, where_time_goes
from research.bench.training_work import (
    EPOCH_STEPS,
    Turn,
    Work,
    in_new_process,
    peak_bytes,
    prepare,
    run_config,
    time_ours,
    with_targets_kept,
)
from robustdistiller import mini
from robustdistiller.pretrain import distill
from robustdistiller.pretrain.training.build import make_distiller
from robustdistiller.upstream import load_encoder, register

_TARGET = {"cpu": 2.0, "cuda": 3.0}
_KEPT_TARGET = 3.0  # of a fast student, with the teacher's targets on disk
#: Another student, whose step is timed beside; its front end is trained before.
_FAST = ("student.embed_dim=384", "student.num_heads=6", "student.ffn_dim=1536", "stages.warm=null")
_FAST_NAME = "recipe small at width 384"
#: What makes a GPU fast; on a CPU the recipe stays as it is.
_GPU = {"cpu": (), "cuda": ("trainer.precision=bf16", "teacher.autocast=true", "trainer.compile=true")}


@dataclass(frozen=True)
class _Way:
    """One of the ways to do a step, and what is said of it."""

    run: Callable[[Work], dict[str, Any]]
    work: Work
    name: str
    equal: str = ""
    target: float | None = None


def run(settings: Settings) -> Findings:
    """All ways in turns, losses on equal inputs, and a profile of our step."""
    kind = settings.device.partition(":")[0]
    sizes = ((2, 1.0),) if settings.quick else ((4, 10.0), (8, 10.0)) if kind == "cpu" else ((4, 10.0), (24, 10.0))
    base = Work(settings.work / "training", settings.work / "corpus", settings.device, torch.get_num_threads(),
                *sizes[0], 20 if kind != "cpu" else 1, settings.seed, _GPU[kind])  # fmt: skip
    comparisons, text = [], ()
    for number, (batch, duration_s) in enumerate(sizes):
        work = replace(base, batch=batch, duration_s=duration_s)
        prepare(work, small=settings.quick)
        if number == 0:
            equal = in_new_process(_trajectories, replace(work, batch=2, duration_s=min(duration_s, 5.0), overrides=()))
        ways = _ways(work, equal, kind) if number == 0 else _ways(work, equal, kind)[:2]
        turns = _in_turns(ways, settings.rounds if number == 0 else max(settings.rounds // 3, 1))
        comparisons += [_compare(way, turns[way.name], turns[ways[0].name]) for way in ways[1:]]
        if number == 0:
            text = where_time_goes(in_new_process(profile_ours, replace(work, steps=2)), comparisons[0])
    return Findings(tuple(comparisons), text=(*text, *([_memory(comparisons)] if len(sizes) > 1 else [])))


def _ways(work: Work, worst: dict[str, float], kind: str) -> tuple[_Way, ...]:
    """The released way first, ours second, with what it computes equal to."""
    differences = ", ".join(f"{name} {value:.0e}" for name, value in worst.items())
    equal = f"5 steps of 2 x 5 s on equal inputs, float32, no dropout, epsilon of Adam 1e-12: {differences} relative"
    said = ", ".join(["distill", *work.overrides])
    kept = "targets kept in fp16, after the first epoch"
    fast = replace(work, recipe="small", overrides=(*work.overrides, *_FAST))
    return (
        _Way(time_peer, work, "s3prl's modules, float32"),
        _Way(time_ours, work, said, equal, _TARGET[kind]),
        _Way(time_kept, work, f"{said}, {kept}", "the same but for the rounding of targets", _TARGET[kind]),
        _Way(time_ours, fast, f"{said}, {_FAST_NAME}", "another student and other targets", _TARGET[kind]),
        _Way(time_kept, fast, f"{said}, {_FAST_NAME}, {kept}", "another student and other targets", _KEPT_TARGET),
    )


def _in_turns(ways: Sequence[_Way], rounds: int) -> dict[str, list[dict[str, Any]]]:
    for way in ways:
        if way.run is time_kept:
            in_new_process(fill_cache, way.work)
    turns: dict[str, list[dict[str, Any]]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            turns[way.name].append(in_new_process(way.run, way.work))
    return turns


def time_kept(work: Work) -> dict[str, Any]:
    """As `time_ours`, with the teacher's targets read from a cache that `fill_cache` has filled."""
    return time_ours(with_targets_kept(work))


def fill_cache(work: Work) -> None:
    """One epoch: all there is to keep."""
    time_kept(replace(work, steps=EPOCH_STEPS - 1))


def time_peer(work: Work) -> dict[str, Any]:
    """The same of the released way."""
    register()
    module = make_distiller(run_config(work), load_encoder(work.folder / "teacher.ckpt"))
    step = PeerStep(module, work.folder).to(work.device)
    step.student.train()
    step.head.train()
    corpus = mini.MiniCorpus(work.corpus)
    files = [
        sorted(folder.rglob("*.flac")) for folder in (work.folder / "speech", corpus.noise_train, corpus.rir_train)
    ]
    data, clock, ends = PeerData(*files, seed=work.seed), work_clock(work.device), []
    for _ in range(work.steps + 1):
        clean, heard = (part.to(work.device) for part in data.batch(work.batch))
        float(step(clean, heard)["loss"])  # its trainer looks at the loss of every step
        ends.append(clock())
    return {"seconds": [after - before for before, after in pairwise(ends)],
            "peak_bytes": peak_bytes(work.device)}  # fmt: skip


def _trajectories(work: Work, *overrides: str) -> dict[str, float]:
    """Largest relative difference of losses, terms and gradient norms over some steps on equal inputs, no dropout.

    Adam's epsilon is next to nothing: s3prl's optimizer adds it before the bias of the second moment is corrected, up
    to 32 times as much in the first steps.
    """
    register()
    off = [f"student.{name}=0" for name in ("dropout", "attention_dropout", "activation_dropout")]
    heard, ours = _Heard(), _Values()
    config = run_config(work, *off, "objectives.enhancement.dropout=0", "trainer.max_steps=5", "optim.eps=1e-12",
                        f"data.max_samples={round(16_000 * work.duration_s)}", "optim.weight_decay=0.01",
                        *overrides)  # fmt: skip
    peer = PeerStep(make_distiller(config, load_encoder(work.folder / "teacher.ckpt")), work.folder).to(work.device)
    shutil.rmtree(work.folder / "run", ignore_errors=True)
    distill(config, callbacks=[heard, ours])
    worst: dict[str, float] = {}
    for (clean, corrupted), values in zip(heard.batches, ours.values):
        for name, value in peer(clean.to(work.device), corrupted.to(work.device)).items():
            worst[name] = max(worst.get(name, 0.0), abs(float(value) / values[name] - 1))
    return worst


class _Heard:
    def __init__(self):
        self.batches = []

    def on_batch_start(self, distiller, batch, step) -> None:
        self.batches.append((batch.waveforms.cpu(), batch.corrupted.waveforms.cpu()))


class _Values:
    def __init__(self):
        self.values = []

    def on_step_end(self, distiller, report) -> None:
        self.values.append({name: float(value) for name, value in report.values.items()})


def profile_ours(work: Work) -> StepParts:
    """What the kernels of one step of `distill` take."""
    profile, turn = StepProfile(work.device), Turn(work)
    shutil.rmtree(work.folder / "run", ignore_errors=True)
    distill(run_config(work, f"trainer.max_steps={work.steps + 1}"), callbacks=[profile, turn])
    return profile.parts(f"{work.batch} x {work.duration_s:g} s", turn.seconds[0])


def _compare(way: _Way, turns: list[dict], peer_turns: list[dict]) -> Comparison:
    seconds, peer_s = (tuple(float(np.median(turn["seconds"])) for turn in taken) for taken in (turns, peer_turns))
    targets = ", ".join(map(str, run_config(way.work).targets.layers))
    peaks = [max(turn["peak_bytes"] for turn in taken) / 1e9 for taken in (turns, peer_turns)]
    return Comparison(
        part=f"training step, {way.work.batch} x {way.work.duration_s:g} s, targets {targets}",
        ours=way.name,
        peer="s3prl's modules, float32",
        ours_s=seconds,
        peer_s=peer_s,
        equal=way.equal,
        target=way.target,
        notes={"ours_peak_GB": peaks[0], "peer_peak_GB": peaks[1]},
    )


def _memory(comparisons: list[Comparison]) -> str:
    """What a batch of 24 would take by the peaks of the smallest and the largest batch measured."""
    first, last = comparisons[0], comparisons[-1]
    small, large = (int(one.part.split(", ")[1].split(" x ")[0]) for one in (first, last))
    amounts = []
    for name, key in (("ours", "ours_peak_GB"), ("the other way", "peer_peak_GB")):
        slope = (float(last.notes[key]) - float(first.notes[key])) / (large - small)
        amounts.append(f"{float(last.notes[key]) + slope * (24 - large):.0f} GB ({name})")
    return (
        f"Batches of 24, as published, were not run where {large} is the largest above. Peak memory from {small} to "
        f"{large} utterances, continued in a straight line, would be {' and '.join(amounts)} there."
    )
