"""The upstreams of the study: trained students, their teacher, an untrained student, and the spectrum."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn

from research.recipe_study.outcomes import digest
from research.recipe_study.pool import StudyData
from research.recipe_study.student import Student
from robustdistiller.common.files import write_text
from robustdistiller.pretrain import make_student
from robustdistiller.pretrain.config.schema import StudentConfig
from robustdistiller.upstream import UpstreamExpert, checkpoint_digest, load_encoder, register, save_checkpoint

logger = logging.getLogger(__name__)

_LISTED_LINES = 8


class DistillationFailed(RuntimeError):
    """`robustdistiller distill` ended with an error."""


def student_folder(student: Student, data: StudyData, teacher: Path, seed: int, steps: int) -> Path:
    """Folder of a run; other settings or another teacher are another run."""
    key = digest(student.config_digest(steps), checkpoint_digest(teacher))[:8]
    return data.work / "students" / f"{student.name}-seed{seed}-{key}"


def train_student(student: Student, data: StudyData, teacher: Path, seed: int, steps: int, lock: int) -> Path:
    """Trains a student in a process of its own, or goes on with what an earlier call left.

    Args:
        student: which.
        data: prepared audio.
        teacher: checkpoint.
        seed: of the run.
        steps: optimizer steps.
        lock: descriptor of the run's lock, which the process inherits: the lock outlives a killed parent for as long
            as the training itself goes on.

    Returns:
        the student's checkpoint.

    Raises:
        DistillationFailed: with the last lines that it printed.
    """
    out_dir = student_folder(student, data, teacher, seed, steps)
    checkpoint, log = out_dir / "student.ckpt", out_dir / "log.txt"
    arguments = student.arguments(data, teacher, seed, steps, out_dir)
    seconds = out_dir / "seconds.txt"  # written last, and the folder belongs to these settings alone
    if seconds.is_file() and checkpoint.is_file():
        return checkpoint
    out_dir.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run(
            [sys.executable, "-m", "robustdistiller.cli", "distill", *arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=[lock],
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            check=False,
        )
    if done.returncode != 0 or not checkpoint.is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LISTED_LINES:]
        raise DistillationFailed(f"distilling {student.name} (seed {seed}) failed, see {log}:\n" + "\n".join(lines))
    write_text(seconds, f"{time.monotonic() - started:.1f}")
    return checkpoint


def training_seconds(checkpoint: Path) -> float:
    """Wall-clock seconds of the training of a student, its start included; of the last part if it was interrupted."""
    return float(checkpoint.with_name("seconds.txt").read_text())


def load_upstream(checkpoint: Path) -> tuple[nn.Module, str]:
    """An upstream as s3prl would load it, and the digest of its file."""
    return UpstreamExpert(checkpoint), checkpoint_digest(checkpoint)


def untrained_student(teacher: Path, folder: Path, seed: int) -> Path:
    """Writes a student of the teacher's shape with two layers and random weights, the same for the same seed."""
    names = ("feature_grad_mult", "dropout", "attention_dropout", "activation_dropout")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = load_encoder(teacher)  # draws, too: its place decides the student
        as_in_teacher = {name: getattr(encoder.config, name) for name in names}
        student = make_student(encoder, StudentConfig(init="random", **as_in_teacher))
    path = folder / f"random-seed{seed}" / "student.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, student, {"name": "untrained student", "seed": seed})
    return path


def fbank_upstream() -> tuple[nn.Module, str]:
    """s3prl's log-mel baseline with deltas, without mean normalisation, and a name in place of a digest."""
    register()
    import s3prl.hub

    return s3prl.hub.fbank_no_cmvn(), "s3prl fbank_no_cmvn"


def parameters(upstream: nn.Module) -> int:
    """Weights of an upstream, without the prediction heads.

    >>> parameters(nn.Linear(2, 3))
    9
    """
    return sum(weight.numel() for name, weight in upstream.named_parameters() if ".heads." not in f".{name}")
