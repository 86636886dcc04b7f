"""Folders as the benchmarks of distillation expect them, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from research.bench.training_work import Work, teacher_shape
from robustdistiller import mini
from robustdistiller.upstream import SpeechEncoder, save_checkpoint


@pytest.fixture
def work(tmp_path: Path) -> Work:
    corpus = mini.MiniCorpus(tmp_path / "corpus")
    generator = np.random.default_rng(0)

    def write(folder: Path, files: int, samples: int, decay: float = 1.0) -> None:
        folder.mkdir(parents=True)
        for number in range(files):
            audio = generator.normal(0, 0.1, samples) * decay ** np.arange(samples)
            soundfile.write(folder / f"{number}.flac", audio, 16_000)

    write(tmp_path / "run" / "speech", files=4, samples=8000)
    write(corpus.noise_train, files=2, samples=20_000)
    write(corpus.rir_train, files=2, samples=2000, decay=0.99)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "run" / "teacher.ckpt", SpeechEncoder(teacher_shape(small=True)), {"name": "random"})
    return Work(tmp_path / "run", tmp_path / "corpus", "cpu", 1, batch=2, duration_s=0.5, steps=2, seed=0)
