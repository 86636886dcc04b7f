"""`robustdistiller data` as a user calls it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from robustdistiller.cli.main import app


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """wham/ with three parts at 8 kHz, own/ with 13 files of no use and one that is."""
    monkeypatch.chdir(tmp_path)
    for part in ("tr", "cv", "tt"):
        (tmp_path / "wham" / part).mkdir(parents=True)
        soundfile.write(f"wham/{part}/a.wav", np.full(8000 * 5, 0.1), 8000)
    (tmp_path / "own").mkdir()
    soundfile.write("own/fan.wav", np.zeros(3200), 16000)
    for number in range(13):
        (tmp_path / "own" / f"broken{number:02d}.wav").touch()
    return tmp_path


def run(*arguments: str):
    result = CliRunner().invoke(app, ["data", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_corpora_parts_and_useless_files_are_said(roots):
    result = run("wham", "own")
    assert result.exit_code == 0
    assert "wham\n  wham: 3 files, 15.0 s, 8000 Hz\n" in result.stdout
    assert "    noise: train 1 file, 5.0 s; dev 1 file, 5.0 s; test 1 file, 5.0 s\n" in result.stdout
    assert "own\n  folder: 1 file, 0.2 s, 16000 Hz\n" in result.stdout
    assert "13 files of no use:" in result.stdout and "own/broken09.wav is an empty file" in result.stdout
    assert "and 3 more (--all lists them)" in result.stdout and "broken10" not in result.stdout
    everything = run("own", "--all").stdout
    assert "own/broken12.wav" in everything and "more" not in everything
    assert "silent" not in everything and "fan.wav: is silent" in run("own", "--all", "--listen").stdout


def test_as_json(roots):
    found = json.loads(run("wham/tt", "own", "--json").stdout)
    assert [one["path"] for one in found] == ["wham/tt", "own"] and len(found[1]["troubles"]) == 13
    (corpus,) = found[0]["corpora"]
    assert (corpus["kind"], corpus["root"], corpus["sample_rates_hz"]) == ("wham", str(roots / "wham"), {"8000": 1})
    assert corpus["services"]["noise"]["parts"] == {"test": {"files": 1, "seconds": 5.0}}


@pytest.mark.parametrize("bad", ["nowhere", "nothing"])
def test_a_root_without_audio_is_one_sentence_and_status_2(bad, roots):
    (roots / "nothing").mkdir()
    result = run("wham", bad)
    assert result.exit_code == 2 and not result.stdout
    assert result.stderr.startswith("robustdistiller data: ") and bad in result.stderr
    assert result.stderr.count("\n") == 1
