"""The released way of corrupting, as it is compared with, and the benchmark of both."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from research.bench import load_reports
from research.bench.__main__ import main
from research.bench.corruption import Speech, agreement
from research.bench.corruption_audio import Library
from research.bench.released_corruption import ReleasedCorruption
from robustdistiller.acoustics import AudioSource, RIRSource


def test_the_released_formulas() -> None:
    rng = np.random.default_rng(0)
    clean, noise, room = (torch.from_numpy(rng.standard_normal(n, np.float32)) for n in (900, 400, 50))
    added = ReleasedCorruption.add_noise(clean, noise, 0, 6.0) - clean
    assert torch.allclose(added[:400] / added[400:800], torch.ones(400), atol=1e-3)  # repeated
    assert 10 * torch.log10(clean.dot(clean) / added.dot(added)) == pytest.approx(6.0, abs=1e-3)
    expected = np.convolve(clean.numpy(), room.numpy())[:900]
    np.testing.assert_allclose(ReleasedCorruption.reverberate(clean, room).numpy(), expected, atol=1e-4)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Two noises, one of them shorter than the speech, and a room whose direct path comes late."""
    rng = np.random.default_rng(1)
    for kind in ("noise", "rir"):
        (tmp_path / kind).mkdir()
    for name, length in (("long", 20_000), ("short", 700)):
        soundfile.write(tmp_path / "noise" / f"{name}.wav", 0.1 * rng.standard_normal(length), 16_000)
    room = 0.02 * rng.standard_normal(800) * np.exp(-np.arange(800) / 200)
    room[:40], room[40] = 0.0, 0.9
    soundfile.write(tmp_path / "rir" / "room.wav", room, 16_000)
    files = {kind: sorted((tmp_path / kind).iterdir()) for kind in ("noise", "rir")}
    sources = AudioSource.from_path(tmp_path / "noise"), RIRSource.from_path(tmp_path / "rir")
    return Library(files["noise"], files["rir"], *sources)


@pytest.mark.parametrize("broken", [None, "add_noise", "reverberate"])
def test_both_ways_agree_unless_one_is_broken(library: Library, monkeypatch, broken: str | None) -> None:
    if broken:
        formula = getattr(ReleasedCorruption, broken)
        monkeypatch.setattr(ReleasedCorruption, broken, staticmethod(lambda *given: 1.01 * formula(*given)))
    rng = np.random.default_rng(2)
    said = agreement(Speech([rng.standard_normal(length, np.float32) for length in (5000, 3000)], 1), library)
    noise_off, reverb_off, ratio_off_db = map(float, re.findall(r"\d+e-?\d+", said))
    assert ratio_off_db < 1e-4
    assert (noise_off < 1e-5) == (broken != "add_noise") and (reverb_off < 1e-5) == (broken != "reverberate")


@pytest.mark.slow
def test_the_benchmark_of_corruption(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["corruption", "--device", "cpu", "--quick", "--out", "out", "--work", "work"]) == 0
    (report,) = load_reports(tmp_path / "out")
    assert len(report.comparisons) == 10 and len(report.series) == 1
    recipe = next(one for one in report.comparisons if one.part == "the recipe's mix, 44.1 and 48 kHz WAV")
    assert recipe.ratio > 0 and "SNR within" in recipe.equal
    assert not (tmp_path / "work" / "corruption" / "many").exists()
    assert re.search(r"data wait \d+\.\d+%, .*corrupting its audio takes \d+\.\d+%", report.text[-1])
