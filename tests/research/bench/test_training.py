"""The released way of a step is ours in numbers, and what is said about the time adds up."""

from __future__ import annotations

import pytest
import torch

from research.bench import Comparison, training, training_peer, training_profile
from research.bench.__main__ import main
from research.bench.machine import bandwidth, matrix_rate
from research.bench.training_profile import StepParts, where_time_goes


def test_both_ways_have_the_same_losses(work) -> None:
    worst = training._trajectories(work)
    assert set(worst) == {"loss", "l1", "cosine", "enhancement", "grad_norm"}
    assert max(worst.values()) < 1e-4


def test_the_epsilon_of_adam_is_where_the_two_differ(work) -> None:
    worst = training._trajectories(work, "optim.eps=1e-3", "optim.lr=1e-2")
    assert worst["loss"] > 1e-4


def test_a_difference_is_noticed(work, monkeypatch) -> None:
    right = training_peer._magnitudes
    monkeypatch.setattr(training_peer, "_magnitudes", lambda waveforms: right(waveforms) * 1.01)
    worst = training._trajectories(work)
    assert worst["enhancement"] > 5e-3 and worst["l1"] < 1e-4 + worst["enhancement"]


def test_the_other_way_corrupts_as_the_recipe_says(work) -> None:
    folders = (work.folder / "speech", work.corpus / "noise" / "train", work.corpus / "rir" / "train")
    data = training_peer.PeerData(*(sorted(folder.iterdir()) for folder in folders), seed=0)
    clean, heard = data.batch(64)
    assert clean.shape == heard.shape == (64, 8000) and torch.isfinite(heard).all()
    same = (clean == heard).all(1).float().mean()
    assert 0.1 < same < 0.45  # a quarter stays clean


@pytest.mark.slow
def test_steps_are_timed_after_the_first_and_profiled(work, monkeypatch) -> None:
    monkeypatch.setattr(training_profile, "matrix_rate", lambda device: 1e11)
    monkeypatch.setattr(training_profile, "bandwidth", lambda device: 1e10)
    for turn in (training.time_ours(work), training.time_peer(work)):
        assert len(turn["seconds"]) == work.steps and min(turn["seconds"]) > 0 and turn["peak_bytes"] > 1e8
    parts = training.profile_ours(work)
    assert sum(parts.seconds.values()) == pytest.approx(parts.step_s)
    assert parts.flops["matrix products"] > 1e8 and parts.moved_bytes["GELU"] > 1e6
    assert parts.seconds["recurrent layers"] > 0


def test_the_text_says_how_far_the_limits_are() -> None:
    seconds = {"matrix products": 7.0, "GELU": 2.0, "the rest": 1.0}
    parts = StepParts("4 x 10 s", seconds, {"matrix products": 560e9}, {"GELU": 8e9}, 10.0, 100e9, 10e9)
    first, second = where_time_goes(parts, Comparison("step", "ours", "peer", (10.0,), (14.0,), "equal"))
    assert "matrix products 7.00 s (70%), 80.0 GFLOP/s, 80% of the best" in first
    assert "GELU 2.00 s (20%), 4.0 GB/s, 40% of a copy's" in first and "the rest 1.00 s (10%). The best" in first
    assert "560 GFLOP counted would take 5.60 s at that rate, 56% of the step" in second
    assert "1.79 times at most" in second and "more than 2.50 times faster" in second


def test_the_machine_is_measured() -> None:
    assert 1e8 < matrix_rate(repeats=1) < 1e13 and 1e7 < bandwidth(rounds=1, elements=1 << 18) < 1e12


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training", "scaling"])
def test_in_quick_mode_every_benchmark_runs(name: str, tmp_path) -> None:
    options = ["--quick", "--rounds", "1", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main([name, *options]) == 0
    assert (tmp_path / "out" / f"{name}-cpu.json").is_file()
    assert (tmp_path / "out" / f"{name}-cpu.png").is_file() == (name == "scaling")
