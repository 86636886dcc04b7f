"""`robustdistiller listen`: embedded and own speech, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from robustdistiller.cli.main import app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listen(*words: str):
    return CliRunner().invoke(app, ["listen", *words])


def test_embedded_speech_noise_and_rooms(folder: Path, toy_student: Path):
    done = listen(
        "noise+reverb:snr_db=0", "clean", "--utterances", "2", "--seconds", "1.5", "--model", str(toy_student)
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().startswith("listen.html (0.") and done.stdout.strip().endswith(" MB)")
    page = (folder / "listen.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 4 and "2 utterances under" in page and "rir" in page
    assert "Hidden states" in page and "layer 1" in page and "As the enhancement head" not in page


def test_own_speech_and_noise_at_any_rate(folder: Path):
    generator = np.random.default_rng(0)
    for name, rate_hz in (("talks/b.wav", 44100), ("talks/a.flac", 8000), ("hum/hum.wav", 22050)):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, generator.normal(0, 0.1, (2 * rate_hz, 2)), rate_hz)
    words = ("noise:snr_db=5", "--audio", "talks", "--noise", "hum", "--out", "new/page.html")
    assert listen(*words, "--utterances", "1").exit_code == 0
    page = (folder / "new/page.html").read_text(encoding="utf-8")
    assert "hum.wav" in page and ">a</h2>" in page and ">b</h2>" not in page
    assert listen(*words).exit_code == 0 and ">b</h2>" in (folder / "new/page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["noise:snr=5"], "did you mean 'snr_db'"),
        (["music"], "--music"),
        (["clean", "--audio", "nowhere"], "nowhere does not exist"),
        (["clean", "--teacher", "x"], "--teacher x is for a student: give --model STUDENT, too"),
        (["clean", "--model", "./nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, words, message):
    done = listen(*words)
    assert done.exit_code == 2 and message in done.output and not (folder / "listen.html").exists()
