"""Distillation with the teacher's targets kept on disk or asked for in every step.

Steps in turns, for a teacher of the shape of WavLM Base+ with random weights and for the mini teacher; then whole
distillations of the mini teacher, which say what keeping the targets in fewer bits does to the losses.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import soundfile
import torch

from research.bench.measure import Comparison
from research.bench.settings import Findings, Settings
from research.bench.training_work import (
    EPOCH_STEPS,
    Turn,
    Work,
    in_new_process,
    prepare,
    run_config,
    time_ours,
    with_targets_kept,
)
from robustdistiller import mini
from robustdistiller.pretrain import distill
from robustdistiller.pretrain.teacher.cache import TargetCodec
from robustdistiller.pretrain.training.log import read_history

_MINI = ("targets.layers=[2,3,5]", "optim.lr=1e-3")
_MINI_FILES, _MINI_BATCH, _MINI_STEPS = 200, 8, 100
_MINI_S = (0.5, 1.5)
_OPTIONS = {"asked": "targets.cache=null"} | {
    dtype: f"targets.cache={{dtype: {dtype}}}" for dtype in ("fp32", "fp16", "int8")
}
_LIBRISPEECH_H = {"train-clean-100": 100.6, "all 960 hours": 961.1}
_FRAMES_PER_S = 50


def run(settings: Settings) -> Findings:
    """Steps with a filled cache, with one that they fill, and without; then whole distillations of the mini teacher."""
    quick, on_cpu = settings.quick, settings.device == "cpu"
    batch, duration_s = (2, 1.0) if quick else (2, 10.0) if on_cpu else (24, 10.0)
    base = Work(settings.work / "cache-base", settings.work / "corpus", settings.device, torch.get_num_threads(), batch,
                duration_s, EPOCH_STEPS - 1, settings.seed)  # fmt: skip
    prepare(base, small=quick)
    shape = f"teacher of the shape of WavLM Base+ (random weights), {batch} x {duration_s:g} s"
    small = replace(base, folder=settings.work / "cache-mini", batch=_MINI_BATCH, steps=6 if quick else _MINI_STEPS)
    prepare_mini(small, files=24 if quick else _MINI_FILES)
    runs = {name: in_new_process(whole_run, replace(small, overrides=(*_MINI, option)))
            for name, option in _OPTIONS.items()}  # fmt: skip
    comparisons = (*_steps(shape, base, settings.rounds), _epochs(runs))
    return Findings(comparisons, text=(_sizes(), *_effects(runs, small.steps)))


def prepare_mini(work: Work, files: int) -> None:
    """The shipped teacher and short recordings of the shipped speech, as `run_config` expects them."""
    shutil.rmtree(work.folder, ignore_errors=True)
    speech = work.folder / "speech"
    speech.mkdir(parents=True)
    (work.folder / "teacher.ckpt").symlink_to(mini.teacher_checkpoint())
    found = [path for path in sorted(mini.build(work.corpus).pool.resolve().rglob("*.flac"))
             if _MINI_S[0] <= soundfile.info(path).duration <= _MINI_S[1]]  # fmt: skip
    for number in range(files):
        path = found[number * len(found) // files]
        (speech / f"{number:04d}-{path.name}").symlink_to(path)


def time_kept(work: Work) -> dict[str, Any]:
    """As `time_ours`, with the cache in `work.folder`."""
    return time_ours(with_targets_kept(work))


def time_filling(work: Work) -> dict[str, Any]:
    """As `time_ours`, with an empty cache."""
    shutil.rmtree(work.folder / "targets", ignore_errors=True)
    return time_kept(work)


def whole_run(work: Work) -> dict[str, Any]:
    """Losses of every step, distances to the teacher after the last one, and seconds of the epochs' steps."""
    folder = work.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    turn = Turn(work)
    distill(
        run_config(work, f"trainer.max_steps={work.steps}", f"optim.schedule_steps={work.steps}",
                   "trainer.log_every_steps=1", f"validation.every_steps={work.steps}"),
        callbacks=[turn],
    )  # fmt: skip
    history, validation = read_history(folder / "history.csv"), (folder / "validation.csv").read_text().splitlines()
    names = validation[0].split(",")
    distances = {}
    for line in validation[1:]:
        values = dict(zip(names, line.split(",")))
        distances[values["condition"]] = float(values["cosine"])
    return {"losses": [line["loss"] for line in history], "distances": distances,
            "epochs": [line["epoch"] for line in history][1:], "seconds": turn.seconds}  # fmt: skip


def _steps(shape: str, work: Work, rounds: int) -> tuple[Comparison, ...]:
    in_new_process(time_filling, work)
    kept = replace(work, folder=work.folder.with_name(work.folder.name + "-kept"))
    shutil.rmtree(kept.folder, ignore_errors=True)
    shutil.copytree(work.folder, kept.folder)  # stays filled while the other is filled again and again
    ways: dict[str, tuple[Callable, Work]] = {
        "kept": (time_kept, kept), "filling": (time_filling, work), "asked": (time_ours, work),
    }  # fmt: skip
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
            way, where = ways[name]
            seconds[name].append(float(np.median(in_new_process(way, where)["seconds"])))
    asked, equal = tuple(seconds["asked"]), "the same but for the rounding of targets: see below"
    return (
        Comparison(f"step after the first epoch, {shape}", "targets kept in fp16", "teacher asked",
                   tuple(seconds["kept"]), asked, equal),
        Comparison(f"step of the first epoch, {shape}", "teacher asked, targets written", "teacher asked",
                   tuple(seconds["filling"]), asked, equal),
    )  # fmt: skip


def _epochs(runs: dict[str, dict[str, Any]]) -> Comparison:
    kept, asked = (_by_epoch(runs[name])[1:] for name in ("fp16", "asked"))
    part = f"mean step of the second and each later epoch, mini teacher, batches of {_MINI_BATCH}"
    return Comparison(part, "targets kept in fp16", "teacher asked", tuple(kept), tuple(asked), "see below")


def _sizes() -> str:
    amounts = []
    for name, hours in _LIBRISPEECH_H.items():
        frames = hours * 3600 * _FRAMES_PER_S
        sizes = {dtype: TargetCodec(dtype, 3 * (768,)).frame_bytes * frames / 1e9 for dtype in ("fp16", "int8")}
        amounts.append(f"{name} {sizes['fp16']:.0f} GB in fp16, {sizes['int8']:.0f} GB in int8")
    return f"Three targets of 768 values take, by arithmetic, for LibriSpeech's {'; '.join(amounts)}."


def _effects(runs: dict[str, dict[str, Any]], steps: int) -> list[str]:
    asked, lines = runs["asked"], []
    for name in ("fp32", "fp16", "int8"):
        off = [abs(a / b - 1) for a, b in zip(runs[name]["losses"], asked["losses"])]
        lines.append(
            f"Targets kept in {name}: the loss differs by at most {max(off):.1e} (relative) in any step, by "
            f"{np.mean(off[-10:]):.1e} over the last ten; distances {_distances(runs[name])}."
        )
    return [
        f"Distillations of the mini teacher: recipe robustdistiller, {steps} steps of {_MINI_BATCH} recordings of "
        f"{_MINI_S[0]} to {_MINI_S[1]} s, "
        f"{len(_by_epoch(asked))} epochs, one seed. With the teacher asked in every step the loss goes from "
        f"{asked['losses'][0]:.3f} to {np.mean(asked['losses'][-10:]):.3f} (mean of the last ten), and the cosine "
        f"distances to the teacher on held-out speech are {_distances(asked)} at the end. " + " ".join(lines)
    ]


def _distances(run: dict[str, Any]) -> str:
    return ", ".join(f"{condition} {value:.5f}" for condition, value in run["distances"].items())


def _by_epoch(run: dict[str, Any]) -> list[float]:
    """Mean seconds of a step, epoch by epoch."""
    by_epoch: dict[float, list[float]] = {}
    for epoch, seconds in zip(run["epochs"], run["seconds"]):
        by_epoch.setdefault(epoch, []).append(seconds)
    return [float(np.mean(values)) for _, values in sorted(by_epoch.items())]
