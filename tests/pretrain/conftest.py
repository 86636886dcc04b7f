"""A tiny teacher and a tiny corpus of every kind of audio file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from robustdistiller.pretrain import DistillConfig, distill, load_config
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

TEACHER = EncoderConfig(
    conv_layers=((12, 10, 5), (12, 3, 2), (12, 3, 2), (12, 3, 2), (12, 3, 2), (12, 2, 2), (12, 2, 2)),
    embed_dim=24,
    num_layers=5,
    num_heads=4,
    ffn_dim=48,
    position_kernel=16,
    position_groups=4,
    dropout=0.1,
)


@dataclass(frozen=True)
class Corpus:
    """Roots of generated audio."""

    speech: Path
    noise: Path
    rir: Path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """26 utterances of 0.15 to 2.5 s in four formats, five rates, one to three channels; noises; rooms."""
    root = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    kinds = [("wav", 16000, 1), ("flac", 44100, 2), ("ogg", 22050, 1), ("mp3", 8000, 2), ("wav", 48000, 3)]
    for index in range(25):
        suffix, rate_hz, channels = kinds[index % len(kinds)]
        samples = generator.normal(0, 0.1, (int(rate_hz * generator.uniform(0.3, 2.5)), channels))
        _write(root / "speech" / f"speaker{index % 3}" / f"{index:02d}.{suffix}", samples, rate_hz)
    _write(root / "speech" / "speaker0" / "syllable.wav", generator.normal(0, 0.1, 2400), 16000)
    for index in range(3):
        _write(root / "noise" / f"noise{index}.wav", generator.normal(0, 0.1, 16000 * (index + 1)), 16000)
    for index in range(2):
        decay = np.exp(-np.arange(4000) / (300 * (index + 1)))
        response = generator.normal(0, 0.05, 4000) * decay
        response[40] = 1.0
        _write(root / "rir" / f"room{index}.wav", response, 16000)
    return Corpus(root / "speech", root / "noise", root / "rir")


def _write(path: Path, samples: np.ndarray, rate_hz: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz)


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of an untrained teacher."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
        save_checkpoint(path, SpeechEncoder(TEACHER), {"name": "tiny teacher"})
    return path


@pytest.fixture
def make_config(corpus: Corpus, teacher_path: Path) -> Callable[..., DistillConfig]:
    """A run of the robust recipe on the tiny corpus; further overrides can be given."""

    def make(out_dir: Path, *overrides: str, recipe: str = "robustdistiller") -> DistillConfig:
        return load_config(recipe, [*run_overrides(corpus, teacher_path, out_dir), *overrides])

    return make


def run_overrides(corpus: Corpus, teacher_path: Path, out_dir: Path) -> list[str]:
    """What a run on the tiny corpus sets."""
    return [
        f"teacher.checkpoint={teacher_path}",
        f"data.speech={corpus.speech}",
        f"data.noise={corpus.noise}",
        f"data.rir={corpus.rir}",
        f"out_dir={out_dir}",
        "data.num_workers=0",
        "data.max_samples=24000",
        "student.num_layers=2",
        "targets.layers=[2,4]",
        "objectives.enhancement.hidden_size=8",
        "objectives.enhancement.num_layers=2",
        "trainer.accelerator=cpu",
        "trainer.batch_size=5",
        "trainer.max_steps=6",
        "trainer.log_every_steps=2",
        "optim.schedule_steps=6",
    ]


@pytest.fixture(scope="session")
def straight(tmp_path_factory, corpus, teacher_path) -> Path:
    """Six steps without interruption; the second epoch begins in the last one."""
    out_dir = tmp_path_factory.mktemp("straight")
    distill(load_config("robustdistiller", run_overrides(corpus, teacher_path, out_dir)))
    return out_dir


def last_checkpoint(out_dir: Path, stage: str = "distil") -> dict:
    return torch.load(max((out_dir / "checkpoints").glob(f"{stage}-*[0-9].ckpt")), weights_only=True)


def assert_equal_states(found: object, expected: object, place: str = "") -> None:
    """Bit for bit, through nested containers."""
    assert type(found) is type(expected), place
    if isinstance(found, torch.Tensor):
        assert torch.equal(found, expected), place
    elif isinstance(found, dict):
        assert found.keys() == expected.keys(), place
        for key in found:
            assert_equal_states(found[key], expected[key], f"{place}/{key}")
    elif isinstance(found, (list, tuple)):
        assert len(found) == len(expected), place
        for index, (one, other) in enumerate(zip(found, expected)):
            assert_equal_states(one, other, f"{place}/{index}")
    else:
        assert found == expected, place
