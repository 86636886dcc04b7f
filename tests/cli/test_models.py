"""`robustdistiller models`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.upstream.pretrained.registry import MODELS


def test_every_model_is_listed_and_whether_it_is_here(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "copy.ckpt").touch()
    monkeypatch.setenv("DPWAVLM_CKPT", str(tmp_path / "copy.ckpt"))
    table = CliRunner().invoke(app, ["models"]).output
    rows = {line.split()[0]: line for line in table.splitlines() if line.split() and line.split()[0] in MODELS}
    assert rows.keys() == MODELS.keys()
    assert "Apache-2.0" in rows["robustdistiller_mini"] and " yes " in rows["robustdistiller_mini"]
    assert " yes " in rows["dpwavlm"] and " no " in rows["robustdistiller_hubert"]
    assert "363" in rows["robustdistiller_wavlm"] and "WavLM Base+" in rows["robustdistiller_wavlm"]


def test_as_json(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["models", "--json"]).output)}
    assert rows.keys() == MODELS.keys()
    assert rows["robustdistiller_mini"]["path"].endswith("teacher.ckpt") and rows["dphubert"]["licence"] is None
