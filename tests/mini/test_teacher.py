"""The shipped teacher: what the file says, and that its features are worth more than what it is compared with."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression

from robustdistiller.mini import teacher_checkpoint
from robustdistiller.upstream import SpeechEncoder, load_encoder, read_checkpoint


def test_file_is_small_and_says_what_it_is():
    path = teacher_checkpoint()
    assert path.stat().st_size <= 16e6
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "robustdistiller"
    assert {"name", "recipe", "seed", "packs", "corruption", "licence", "versions"} <= checkpoint.metadata.keys()
    encoder = checkpoint.build()
    assert 4e6 < encoder.count_parameters() < 8e6
    assert (encoder.downsample_rate, encoder.config.num_layers, encoder.config.embed_dim) == (320, 5, 256)
    assert (path.parent / "README.md").is_file()


def test_log_shows_that_it_learnt():
    with (teacher_checkpoint().parent / "log.csv").open() as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


def mean_features(encoder: SpeechEncoder, waveforms: list[torch.Tensor]) -> np.ndarray:
    """Mean over frames of each layer's output, side by side."""
    with torch.no_grad():
        outputs = [encoder(waveform[None]).hidden_states[1:] for waveform in waveforms]
    return np.stack([torch.cat([state[0].mean(0) for state in states]).numpy() for states in outputs])


@pytest.fixture(scope="module")
def initials(corpus):
    """Syllables of nine frequent initials: waveforms and labels of training and test."""
    data = {}
    for split in ("train", "test"):
        table = pd.read_csv(corpus.syllables / "data" / f"{split}_data.csv")
        table = table[table.action.isin(["zero", "l", "d", "h", "t", "p", "zh", "ch", "sh"])]
        waveforms = [soundfile.read(corpus.syllables / path, dtype="float32")[0] for path in table.path]
        data[split] = ([torch.from_numpy(waveform) for waveform in waveforms], table.action.to_numpy())
    return data


def accuracy(encoder: SpeechEncoder, data) -> float:
    train, test = (mean_features(encoder, data[split][0]) for split in ("train", "test"))
    mean, scale = train.mean(0), train.std(0) + 1e-6
    probe = LogisticRegression(C=0.01, max_iter=300).fit((train - mean) / scale, data["train"][1])
    return probe.score((test - mean) / scale, data["test"][1])


def test_teacher_beats_its_random_initialisation(initials):
    """A linear probe on initials. Also shows that the probe cannot tell much without training."""
    trained = load_encoder(teacher_checkpoint())
    torch.manual_seed(0)
    untrained = SpeechEncoder(trained.config).eval()
    items = len(initials["test"][1])
    error = np.sqrt(0.25 / items)
    scores = accuracy(trained, initials), accuracy(untrained, initials)
    assert scores[0] > 0.7, scores
    assert scores[0] - scores[1] > 5 * error, (scores, items)
