"""Shared by the evaluation tests: toy corpora, a toy student, s3prl imported through the bridge."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def toy_corpora() -> ModuleType:
    """The builders of tiny corpora in the official layouts."""
    from robustdistiller.eval.check import toy_corpora

    return toy_corpora


@pytest.fixture(scope="session")
def noise_folder(tmp_path_factory) -> Path:
    """Two noise files."""
    folder = tmp_path_factory.mktemp("noise")
    for number in range(2):
        samples = 0.1 * np.random.default_rng(number).standard_normal(16000)
        soundfile.write(folder / f"noise{number}.wav", samples, 16000)
    return folder


@pytest.fixture(scope="session")
def rir_folder(tmp_path_factory) -> Path:
    """One room: exponentially decaying noise after a direct path."""
    folder = tmp_path_factory.mktemp("rir")
    decay = 0.2 * np.random.default_rng(0).standard_normal(6400) * 10 ** (-3 * np.arange(6400) / 6400)
    decay[:40], decay[40] = 0.0, 0.9
    soundfile.write(folder / "room.wav", decay, 16000)
    return folder


@pytest.fixture(autouse=True)
def cache_in_tmp(tmp_path_factory, monkeypatch) -> None:
    """Nothing is written to the user's cache."""
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
