"""Headers of noise and rooms: read once, and again where something has changed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from robustdistiller.acoustics import AudioSource, CorruptionPolicy, Corruptor, RIRSource
from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.data import headers
from robustdistiller.pretrain.data.roots import open_sources

NEEDED = ("noise", "rir")


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Names of the files whose headers are read."""
    names: list[str] = []
    original = headers.audio_info
    monkeypatch.setattr(headers, "audio_info", lambda path: names.append(Path(path).name) or original(path))
    return names


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    folder = tmp_path / "noise"
    (folder / "deep").mkdir(parents=True)
    for index, place in enumerate(["a.wav", "b.wav", "deep/c.wav"]):
        soundfile.write(folder / place, np.random.default_rng(index).normal(0, 0.1, 4000 * (index + 1)), 16000)
    return folder


def lengths(config) -> dict[str, int]:
    source = open_sources(config, ["noise"])[0]["noise"]
    return {name: source.num_samples(name) for name in source.names}


def test_only_what_changed_is_read_again(make_config, tmp_path: Path, noise: Path, opened: list[str]) -> None:
    config = make_config(tmp_path / "run", f"data.noise={noise}")
    assert lengths(config) == {"a.wav": 4000, "b.wav": 8000, "deep/c.wav": 12000}
    assert sorted(opened) == ["a.wav", "b.wav", "c.wav"]
    opened.clear()
    assert lengths(config) == {"a.wav": 4000, "b.wav": 8000, "deep/c.wav": 12000} and opened == []
    soundfile.write(noise / "new.wav", np.zeros(100) + 0.1, 16000)
    assert lengths(config)["new.wav"] == 100 and opened == ["new.wav"]
    opened.clear()
    soundfile.write(noise / "a.wav", np.zeros(5000) + 0.1, 16000)  # another size
    assert lengths(config)["a.wav"] == 5000 and opened == ["a.wav"]
    opened.clear()
    soundfile.write(noise / "b.wav", np.zeros((4000, 2)) + 0.1, 16000)  # the same size, at another time
    os.utime(noise / "b.wav", (1, 1))
    assert lengths(config)["b.wav"] == 4000 and opened == ["b.wav"]
    opened.clear()
    (noise / "deep" / "c.wav").unlink()
    assert list(lengths(config)) == ["a.wav", "b.wav", "new.wav"] and opened == []


def test_draws_are_the_same_with_and_without_the_cache(make_config, tmp_path: Path, corpus, opened: list[str]) -> None:
    config = make_config(tmp_path / "run")
    plain = (AudioSource.from_path(corpus.noise), RIRSource.from_path(corpus.rir))
    drawn, described, audio = [], [], []
    for start in range(3):
        if start < 2:
            sources, _ = open_sources(config, NEEDED)
            plain_or_kept = (sources["noise"], sources["rir"])
        else:
            plain_or_kept = plain
        corruptor = Corruptor(CorruptionPolicy(), *plain_or_kept, seed=3)
        drawn.append([corruptor.draw(f"utt-{index}", 9000) for index in range(60)])
        described.append(corruptor.describe())
        wave = np.linspace(-0.1, 0.1, 9000, dtype=np.float32)
        audio.append(np.stack([corruptor.apply(wave, one) for one in drawn[-1]]))
    assert len(opened) == 5  # by the first start only
    assert drawn[0] == drawn[1] == drawn[2] and described[0] == described[1] == described[2]
    assert (audio[0] == audio[1]).all() and (audio[0] == audio[2]).all()


def test_one_broken_file_is_left_out_many_are_refused(make_config, tmp_path: Path, noise: Path) -> None:
    config = make_config(tmp_path / "run", f"data.noise={noise}")
    (noise / "d.wav").write_bytes(b"no audio")
    for _ in range(2):
        sources, (report,) = open_sources(config, ["noise"])
        assert "d.wav" not in sources["noise"].names and "left out: " in str(report) and "d.wav cannot" in str(report)
    (noise / "e.wav").touch()
    with pytest.raises(SettingsError, match=r"data\.noise: 2 of 5 files cannot be read; first: .*d\.wav"):
        open_sources(config, NEEDED)


def test_a_damaged_cache_is_made_anew(make_config, tmp_path: Path, noise: Path, opened: list[str], caplog) -> None:
    config = make_config(tmp_path / "run", f"data.noise={noise}")
    lengths(config)
    (cache,) = (tmp_path / "run" / "manifests").glob("noise-*.json")
    cache.write_text('{"cut sh')
    with caplog.at_level(logging.WARNING):
        assert len(lengths(config)) == 3 and len(opened) == 6
    assert "headers are read again" in caplog.text


def test_missing_noise_is_named_before_the_run(make_config, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data\.noise: the corruption adds noise from files and there are none"):
        open_sources(make_config(tmp_path, "data.noise=[]"), NEEDED)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match=r"data\.noise: no audio files in .*empty"):
        open_sources(make_config(tmp_path, f"data.noise={tmp_path / 'empty'}"), NEEDED)
