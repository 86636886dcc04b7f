"""The shipped noise: continuous where it counts, of sources that are licensed and disjoint."""

from __future__ import annotations

import pytest

from research.embedded_noise.cut import measures
from robustdistiller.mini import data_dir
from robustdistiller.mini.pack import read_rows, read_table


@pytest.fixture(scope="module")
def pieces():
    rows = [row for row in read_table(data_dir() / "noise.tsv") if row["kind"] == "noise"]
    return [(row, samples.astype("float32") / 32768) for row, samples in read_rows(data_dir() / "noise", rows)]


def test_noise_for_tests_lasts_as_long_as_an_utterance(pieces):
    test = [row for row, _ in pieces if row["split"] == "test"]
    assert all(5 * 16000 <= int(row["num_samples"]) <= 30 * 16000 for row in test)
    assert sum(int(row["num_samples"]) for row in test) > 5 * 60 * 16000


def test_continuous_noise_is_neither_silence_nor_clicks(pieces):
    continuous = [(row["name"], samples) for row, samples in pieces if row["file"].startswith("continuous-")]
    for name, samples in continuous:
        found = measures(samples)
        assert found["quiet"] < 0.05, name
        assert found["p5_db"] > -13, name
        assert found["p95_db"] < 7, name
        assert found["crest_db"] < 30, name
        assert found["centroid_hz"] > 100, name
    assert len(continuous) == 65


def test_pieces_are_whole(pieces):
    assert all(len(samples) == int(row["num_samples"]) for row, samples in pieces)


def test_packages_of_training_and_test_are_disjoint(pieces):
    train, test = ({row["source"] for row, _ in pieces if row["split"] == split} for split in ("train", "test"))
    assert train
    assert test
    assert not train & test
