"""`robustdistiller evaluate` hands over what was typed, and says what came out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.api import Results
from tests.records import example_record


@pytest.fixture
def asked(monkeypatch, tmp_path) -> list:
    """What the function behind the command is called with; it finds one score."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def evaluate(*arguments, **options):
        calls.append((arguments, options))
        return Results([example_record(condition="reverb")], tmp_path)

    monkeypatch.setattr("robustdistiller.eval.api.evaluate", evaluate)
    return calls


def test_tasks_tables_and_conditions(asked) -> None:
    for number in range(20):
        soundfile.write(f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(8000), 16000)
    Path("labels.csv").write_text("path,label\n" + "".join(f"{i}.wav,{'ab'[i % 2]}\n" for i in range(20)))
    command = ["evaluate", "student.ckpt", "--task", "ks=/data/kws", "--task", "IC=/data/a=b", "--csv", "labels.csv"]
    command += ["--condition", "reverb", "--suite", "srb", "--seed", "1", "--seed", "2", "--quick", "--label", "mine"]
    command += ["--noise", "cafe", "--noise", "street", "--rir", "rooms"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    (((model, tasks, conditions, data), options),) = asked
    assert (model, data) == ("student.ckpt", {"KS": "/data/kws", "IC": "/data/a=b"})
    assert tasks[:2] == ["KS", "IC"] and tasks[2].title and len(tasks) == 3
    assert conditions == ["reverb", "srb"] and options["seeds"] == [1, 2] and options["quick"] is True
    assert options["sources"] == {"noise": ["cafe", "street"], "rir": ["rooms"]}
    assert options["features"].folder == str(Path("exp/evaluate/features").absolute()), "computed once"
    assert options["label"] == "mine" and options["device"] == "auto"
    assert result.stdout == "IC reverb: accuracy 75.00%\n"


def test_json(asked) -> None:
    result = CliRunner().invoke(app, ["evaluate", "fbank", "--task", "IC=/data", "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout)[0]["condition"] == "reverb"
    assert asked[0][0][2] == ["clean"] and asked[0][1]["seeds"] == (1337,)
    assert asked[0][1]["sources"] == {} and asked[0][1]["features"] is None


def test_no_folder_of_a_task_is_passed_over(asked) -> None:
    result = CliRunner().invoke(app, ["evaluate", "fbank", "--task", "IC=/a", "--task", "ic=/b"])
    assert result.exit_code == 2 and "one task has several folders, found IC=/a, IC=/b" in result.stderr


def test_a_mistyped_suite_is_told_as_one(asked) -> None:
    result = CliRunner().invoke(app, ["evaluate", "fbank", "--task", "IC=/data", "--suite", "sbr"])
    assert result.exit_code == 2 and "sbr" in result.stderr and "srb" in result.stderr and asked == []
