"""What benchmarks of distillation run: a recipe on generated folders, a few steps at a time, each in a new process."""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from research.bench.measure import work_clock
from robustdistiller import mini
from robustdistiller.pretrain import distill, load_config
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

EPOCH_STEPS = 2  # as much speech is made
_LONGEST_S = 15.6  # `data.max_samples` of the recipe


@dataclass(frozen=True)
class Work:
    """What both ways are given.

    Attributes:
        folder: teacher, speech and run.
        corpus: the mini corpus, for noise and rooms.
        device: `cpu` or `cuda`.
        threads: of the CPU.
        batch: utterances.
        duration_s: of each; at most 15.6 s, more is cut by the recipe's `data.max_samples`.
        steps: that are timed in a turn.
        seed: of everything drawn.
        overrides: of the recipe.
        recipe: of the runs that are ours.

    >>> Work(Path("exp"), Path("exp/corpus"), "cpu", 1, batch=4, duration_s=10.0, steps=2, seed=0).batch
    4
    """

    folder: Path
    corpus: Path
    device: str
    threads: int
    batch: int
    duration_s: float
    steps: int
    seed: int
    overrides: tuple[str, ...] = ()
    recipe: str = "robustdistiller"


def prepare(work: Work, small: bool = False) -> None:
    """Teacher, speech, noises and rooms of a run in `work.folder`.

    Args:
        work: durations and batch size.
        small: a tiny teacher, to see that it runs.

    Raises:
        ValueError: the recipe would cut the utterances.
    """
    if work.duration_s > _LONGEST_S:
        raise ValueError(
            f"duration_s is {work.duration_s:g}, expected {_LONGEST_S} or less: the recipe cuts what is longer"
        )
    shutil.rmtree(work.folder, ignore_errors=True)
    corpus = mini.build(work.corpus)
    work.folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work.seed)
        save_checkpoint(work.folder / "teacher.ckpt", SpeechEncoder(teacher_shape(small)), {"name": "random weights"})
    write_speech(corpus.pool, work.folder / "speech", EPOCH_STEPS * work.batch, round(16_000 * work.duration_s))


def teacher_shape(small: bool = False) -> EncoderConfig:
    """WavLM Base+, or something tiny with as many layers.

    >>> teacher_shape().total_heads
    12
    """
    tiny = {"conv_layers": ((32, 10, 5), *((32, 3, 2),) * 4, *((32, 2, 2),) * 2), "embed_dim": 48, "num_heads": 4}
    tiny |= {"ffn_dim": 64, "position_groups": 4, "position_kernel": 16}
    options = tiny if small else {}
    return EncoderConfig(relative_position=True, gated_relative_position=True, reference_mask="block", **options)


def write_speech(source: Path, folder: Path, files: int, samples: int) -> None:
    """Files of equal length, from recordings of `source` one after another."""
    folder.mkdir(parents=True)
    recordings = (soundfile.read(path, dtype="float32")[0] for path in sorted(source.rglob("*.flac")))
    rest = np.zeros(0, np.float32)
    for number in range(files):
        while len(rest) < samples:
            rest = np.concatenate([rest, next(recordings)])
        soundfile.write(folder / f"{number:03d}.flac", rest[:samples], 16_000)
        rest = rest[samples:]


def in_new_process(way: Callable[[Any], Any], work: Any) -> Any:
    """What `way` returns in a process of its own, with `work.threads` threads, whose memory is given back."""
    with multiprocessing.get_context("spawn").Pool(1, _start, (work.threads,)) as pool:
        return pool.apply(way, (work,))


def _start(threads: int) -> None:
    torch.set_num_threads(threads)


def run_config(work: Work, *overrides: str):
    """The recipe on what `prepare` made."""
    folder = work.folder
    corpus = mini.MiniCorpus(work.corpus)
    return load_config(work.recipe, [
        f"teacher.checkpoint={folder / 'teacher.ckpt'}", f"data.speech={folder / 'speech'}",
        f"data.noise={corpus.noise_train}", f"data.rir={corpus.rir_train}", f"data.manifest_dir={folder / 'lists'}",
        "data.num_workers=0" if work.device == "cpu" else "data.num_workers=4", f"out_dir={folder / 'run'}",
        f"trainer.batch_size={work.batch}", f"trainer.accelerator={'cpu' if work.device == 'cpu' else 'gpu'}",
        f"seed={work.seed}", "optim.schedule_steps=1000", "trainer.max_steps=1000",
        "trainer.progress=false", *work.overrides, *overrides,
    ])  # fmt: skip


def with_targets_kept(work: Work) -> Work:
    """The same with the teacher's targets read from a cache, where one run of an epoch has filled it."""
    return replace(work, overrides=(*work.overrides, f"targets.cache.folder={work.folder / 'targets'}"))


class Turn:
    """Seconds of the steps after the first, data included."""

    def __init__(self, work: Work):
        self.work, self.clock, self.ends = work, work_clock(work.device), []

    def on_step_end(self, distiller, report) -> None:
        if self.work.device != "cpu":
            torch.accelerator.synchronize()
        self.ends.append(self.clock())

    @property
    def seconds(self) -> list[float]:
        return [after - before for before, after in pairwise(self.ends)]


def time_ours(work: Work) -> dict[str, Any]:
    """Seconds of each timed step of `distill`, and the largest memory."""
    turn = Turn(work)
    shutil.rmtree(work.folder / "run", ignore_errors=True)
    distill(run_config(work, f"trainer.max_steps={work.steps + 1}"), callbacks=[turn])
    return {"seconds": turn.seconds, "peak_bytes": peak_bytes(work.device)}


def peak_bytes(device: str) -> int:
    if device != "cpu":
        return torch.cuda.max_memory_allocated()
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
