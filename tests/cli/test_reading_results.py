"""Tables and comparisons are made where neither PyTorch nor s3prl is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "results" / "quickstart" / "records"
ABSENT = (
    "torch",
    "torchaudio",
    "s3prl",
    "librosa",
    "soundfile",
    "lightning_fabric",
    "lhotse",
    "transformers",
    "safetensors",
)
HIDE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (["leaderboard", str(RECORDS), "--no-published", "--plots", "."], ["words-test-596_items.png"]),
        (["leaderboard", str(RECORDS), "--out", "."], ["leaderboard.csv", "leaderboard.html", "leaderboard.md"]),
        (["compare", "teacher", "robust student", "--records", str(RECORDS)], []),
    ],
)
def test_results_are_read_without_pytorch(arguments, made, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "robustdistiller.cli", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "teacher" in done.stdout
    assert set(made) <= {file.name for file in tmp_path.iterdir()}


def test_systems_are_sought_where_records_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["compare", "mine", "DPHuBERT"])
    assert result.exit_code == 2 and "(no records: --records FOLDER says where some are)" in result.stderr
