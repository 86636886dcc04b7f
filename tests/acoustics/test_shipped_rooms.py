"""The rooms and noises that ship with the project, through the whole chain."""

import csv

import numpy as np
import pytest
import torch

from robustdistiller.acoustics import AudioSource, Corruptor, RIRSource, corrupt_utterance, measure_rt60_s
from robustdistiller.mini import data_dir


@pytest.fixture(scope="module")
def rooms():
    with (data_dir() / "rir.tsv").open() as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_measured_times_agree_with_those_of_the_data(rooms):
    source = AudioSource.from_manifest(data_dir() / "rir.tsv")
    measured = np.array([measure_rt60_s(source.read(name)) for name in source.names])
    noted = np.array([float(room["rt60_measured_s"]) for room in rooms])
    assert np.abs(measured / noted - 1).max() < 0.08  # noted with two decimals
    assert abs(np.mean(measured / noted) - 1) < 0.01


@pytest.mark.parametrize("rt60_s", [0.35, 0.5, 0.7, 1.1])
def test_applied_reverberation_in_unseen_rooms(rt60_s):
    rir = RIRSource.from_manifest(data_dir() / "rir.tsv", split="test")
    corruptor = Corruptor(f"reverb:rt60_s={rt60_s}", rir=rir)
    impulse = torch.zeros(32000)
    impulse[0] = 1.0
    used = set()
    for index in range(12):
        applied = corrupt_utterance(impulse, corruptor, f"utt-{index}").numpy()
        assert measure_rt60_s(applied) == pytest.approx(rt60_s, rel=0.15)
        # Lag 0 is the direct path: within 12 dB of the strongest reflection, though at some distance not above it.
        assert abs(applied[0]) > 0.25 * np.abs(applied).max()
        used.add(corruptor.draw(f"utt-{index}", 32000)["rir"]["name"])
    assert len(used) > 1


def test_training_and_test_pieces_are_disjoint():
    for manifest, filters in (("rir.tsv", {}), ("noise.tsv", {"kind": "noise"})):
        train, test = (AudioSource.from_manifest(data_dir() / manifest, split=s, **filters) for s in ("train", "test"))
        assert not set(train.names) & set(test.names)
        assert train.duration_s() > 10
        assert test.duration_s() > 10
