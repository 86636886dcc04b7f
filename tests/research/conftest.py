"""A pool of tones, a tiny teacher, and a plan of two students."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from research.recipe_study.plan import Plan
from research.recipe_study.pool import BABBLE_VOICES, SPLIT_OF_RANK, Materials, prepare
from robustdistiller.common.settings import read
from robustdistiller.mini.pack import rank_of
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    """The pitch tells the word, the timbre the voice."""
    root = tmp_path_factory.mktemp("pool")
    generator = np.random.default_rng(0)
    speech, words, voices = [], [], []
    for file in range(2):
        audio, offset = [], 0
        for index in range(150):
            name, voice, word = f"u{file}_{index}", BABBLE_VOICES[0] if index % 5 == 4 else f"v{index % 2}", index % 3
            samples = _tone(16000 if index % 5 == 4 else 8000, 200 * (word + 1), index % 2, generator)
            row = [f"long-{file}.flac", offset, len(samples), name, voice]
            speech.append(row)
            split = SPLIT_OF_RANK.get(rank_of(name), "train")
            words.append([*row, f"word{word}", split])
            voices.append([*row[:4], f"v{index % 2}", f"v{index % 2}", split])
            audio.append(samples)
            offset += len(samples)
        _write(root / "speech" / f"long-{file}.flac", np.concatenate(audio))
    noise = []
    for split in ("train", "test"):
        _write(root / "noise" / f"{split}.flac", generator.normal(0, 0.1, 40000))
        noise += [[f"{split}.flac", 2000 * i, 2000, f"{split}{i}", "noise", split] for i in range(20)]
    piece = ["file", "offset_samples", "num_samples"]
    _table(root / "speech.tsv", [*piece, "utterance_id", "voice"], speech)
    _table(root / "word30.tsv", [*piece, "utterance_id", "voice", "label", "split"], words)
    _table(root / "voice20.tsv", [*piece, "utterance_id", "voice", "label", "split"], voices)
    _table(root / "noise.tsv", [*piece, "name", "kind", "split"], noise)
    return root


def _tone(num_samples: int, pitch_hz: float, timbre: int, generator: np.random.Generator) -> np.ndarray:
    phase = 2 * np.pi * np.arange(num_samples) * pitch_hz * generator.uniform(0.95, 1.05) / 16000
    return 0.3 * np.sin(phase) + 0.2 * np.sin(phase * (3 if timbre else 5)) + generator.normal(0, 0.01, num_samples)


def _write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16000)


def _table(path: Path, header: list[str], rows: list[list]) -> None:
    path.write_text("\n".join("\t".join(map(str, row)) for row in [header, *rows]) + "\n")


@pytest.fixture(scope="session")
def materials(pool, corpus, tmp_path_factory) -> Materials:
    """The prepared pool, beside the shipped corpus that other tests have built."""
    work = tmp_path_factory.mktemp("study")
    (work / "corpus").symlink_to(corpus.root)
    return prepare(pool, work)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        save_checkpoint(path, SpeechEncoder(EncoderConfig.tiny(num_layers=5)), {"name": "tiny"})
    return path


@pytest.fixture
def plan(teacher) -> Plan:
    return read(
        Plan,
        {
            "teacher": str(teacher),
            "steps": 3,
            "settings": [
                *("targets.layers=[2,3,5]", "data.max_samples=16000", "data.num_workers=0"),
                *("trainer.batch_size=2", "trainer.accelerator=cpu", "trainer.precision=fp32"),
                *("trainer.progress=false", "validation.utterances=4", "probe.max_utterances=40"),
            ],
            "students": {
                "plain": {"recipe": "distilhubert", "about": "clean speech"},
                "robust": {"recipe": "robustdistiller", "settings": ["objectives.enhancement=0"]},
            },
            "measure_every_steps": 2,
            "tasks": {"pool_words": 1e-2},
            "conditions": ["clean", "noise:snr_db=5", "reverb"],
            "baselines": ["fbank"],
            "head_steps": 60,
            "finalists": {"plain": 2, "robust": 2},
        },
    )
