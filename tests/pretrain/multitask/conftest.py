"""Tiny labelled corpora: words told apart by their pitch, voices by theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.pretrain import DistillConfig, load_config
from robustdistiller.upstream import SpeechEncoder, save_checkpoint

from ..conftest import TEACHER

WORDS = ("no", "stop", "yes")


@dataclass(frozen=True)
class Labelled:
    """Roots of generated audio."""

    keywords: Path
    speakers: Path
    student: Path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    """Speech-Commands-like and VoxCeleb-like folders, and an untrained student with two prediction heads."""
    root = tmp_path_factory.mktemp("labelled")
    generator = np.random.default_rng(1)
    lists: dict[str, list[str]] = {"validation_list.txt": [], "testing_list.txt": []}
    for index, word in enumerate(WORDS):
        for number in range(9):
            name = f"{word}/{number}.wav"
            write_tone(root / "keywords" / name, 300.0 * (index + 1), generator)
            if number >= 5:
                lists["validation_list.txt" if number < 7 else "testing_list.txt"].append(name)
    for name, lines in lists.items():
        (root / "keywords" / name).write_text("\n".join(lines) + "\n")
    for index in range(6):
        for number in range(7 if index < 4 else 3):
            write_tone(root / "speakers" / f"id{index}" / "video" / f"{number}.wav", 200.0 * (index + 1), generator)
    trials = [("1", 4, 0, 4, 1), ("1", 5, 0, 5, 2), ("0", 4, 0, 5, 0), ("0", 4, 1, 5, 2), ("0", 4, 2, 5, 1)]
    lines = [f"{same} id{a}/video/{b}.wav id{c}/video/{d}.wav\n" for same, a, b, c, d in trials]
    (root / "speakers" / "veri_test.txt").write_text("".join(lines))
    with torch.random.fork_rng():
        torch.manual_seed(4)
        shape = TEACHER.replace(num_layers=2, prediction_layers=(2, 4))
        save_checkpoint(root / "student.ckpt", SpeechEncoder(shape), {"recipe": "untrained"})
    return Labelled(root / "keywords", root / "speakers", root / "student.ckpt")


def write_tone(path: Path, frequency_hz: float, generator: np.random.Generator, duration_s: float = 0.0) -> None:
    """A noisy tone of 0.2 to 0.4 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(int(16000 * (duration_s or generator.uniform(0.2, 0.4)))) / 16000
    samples = 0.2 * np.sin(2 * np.pi * frequency_hz * time_s) + generator.normal(0, 0.02, len(time_s))
    soundfile.write(path, samples, 16000)


def run_options(labelled: Labelled, out_dir: Path) -> list[str]:
    """What a run on the tiny corpora sets."""
    return [
        f"student.checkpoint={labelled.student}",
        f"multitask.keywords.data={labelled.keywords}",
        f"multitask.speakers.data={labelled.speakers}",
        f"out_dir={out_dir}",
        "multitask.keywords.words=[]",
        "multitask.keywords.batch_size=4",
        "multitask.speakers.batch_size=5",
        "multitask.speakers.dev_share=0.3",
        "multitask.dev_every_steps=2",
        "data.num_workers=0",
        "trainer.accelerator=cpu",
        "trainer.max_steps=10",
        "trainer.log_every_steps=2",
        "optim.lr=1e-3",
    ]


@pytest.fixture
def make_run(labelled: Labelled) -> Callable[..., DistillConfig]:
    """A run of the recipe on the tiny corpora; further overrides can be given."""

    def make(out_dir: Path, *overrides: str) -> DistillConfig:
        return load_config("multitask", [*run_options(labelled, out_dir), *overrides])

    return make
