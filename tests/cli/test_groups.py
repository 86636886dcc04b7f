"""`robustdistiller groups` as a user calls it."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.pretrain import load_config
from robustdistiller.pretrain.teacher.groups.find import LayerGroups
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

SHAPE = {"embed_dim": 24, "num_layers": 4, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), (16, 8, 4))}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    save_checkpoint("teacher.ckpt", SpeechEncoder(EncoderConfig(**SHAPE)), {})
    (tmp_path / "speech").mkdir()
    generator = np.random.default_rng(0)
    for name in "abc":
        soundfile.write(f"speech/{name}.wav", generator.normal(0, 0.1, 4000), 16000)


def run(*arguments):
    result = CliRunner().invoke(app, ["groups", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_what_is_written_and_printed_agrees():
    result = run("teacher.ckpt", "speech", "--out", "found", "--count", "2", "--utterances", "2", "--seed", "5")
    assert result.exit_code == 0, result.output
    found = LayerGroups.load("found/groups.json")
    assert len(found.groups) == 2 and sorted(chain(*found.groups)) == [1, 2, 3, 4]
    assert found.measured_on["utterances"] == 2 and found.measured_on["seed"] == 5
    assert found.measured_on["teacher"]["file"] == "teacher.ckpt"

    line = next(line for line in result.output.splitlines() if line.startswith("targets.layers="))
    assert json.loads(line.partition("=")[2]) == found.groups
    config = load_config("found/groups.yaml")
    assert [list(group) for group in config.targets.layers] == found.groups
    assert config.optim == load_config("distilhubert").optim and "2 groups" in config.about
    table = pd.read_csv("found/similarity.csv", index_col="layer")
    assert list(table.index) == [1, 2, 3, 4] and list(table.columns) == ["1", "2", "3", "4"]
    np.testing.assert_allclose(table.to_numpy(), found.similarity, atol=1e-6)
    assert Path("found/groups.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "layers", "count"),
    [
        (["--include-layer-0", "--linkage", "complete", "--similarity", "cosine"], [0, 1, 2, 3, 4], 3),
        (["--layers", "2,4", "--count", "1", "--contiguous"], [2, 4], 1),
        (["--layers", "3", "--count", "1"], [3], 1),
        (["--count", "4", "--similarity", "cca", "--linkage", "single"], [1, 2, 3, 4], 4),
    ],
)
def test_options_reach_the_result(options, layers, count):
    result = run("teacher.ckpt", "speech", "--out", "found", *options)
    assert result.exit_code == 0, result.output
    found = LayerGroups.load("found/groups.json")
    assert found.layers == layers and len(found.groups) == count
    for option, name in (("--linkage", "linkage"), ("--similarity", "similarity")):
        if option in options:
            assert getattr(found.settings, name) == options[options.index(option) + 1]
    assert found.settings.contiguous == ("--contiguous" in options)


def test_the_base_can_be_a_file_elsewhere(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: distilhubert\n")
    assert run("teacher.ckpt", "speech", "--out", "found", "--base", "mine.yaml").exit_code == 0
    recipe = yaml.safe_load((tmp_path / "found/groups.yaml").read_text(encoding="utf-8"))
    assert recipe["base"] == str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.ckpt", "speech"], "absent.ckpt"),
        (["speech/a.wav", "speech"], "speech/a.wav cannot be read as a checkpoint"),
        (["teacher.ckpt", "nowhere"], "nowhere does not exist"),
        (["teacher.ckpt", "empty"], "empty"),
        (["teacher.ckpt", "speech", "--count", "5"], "5 groups of 4 layers"),
        (["teacher.ckpt", "nowhere", "--layers", "2,9"], "layers to group: the teacher has no layer 9"),
        (["teacher.ckpt", "speech", "--layers", "2-4"], "--layers '2-4': expected numbers with commas"),
        (
            ["teacher.ckpt", "speech", "--linkage", "ward"],
            "linkage: found 'ward', expected 'average', 'complete' or 'single'",
        ),
        (["teacher.ckpt", "speech", "--base", "distilhubrt"], "unknown recipe 'distilhubrt'"),
        (["teacher.ckpt", "speech", "--device", "cudda"], "cudda"),
        (["teacher.ckpt", "speech", "--device", "cuda:99"], "device 'cuda:99' cannot be used"),
    ],
)
def test_errors_are_one_sentence(arguments, message, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run(*arguments, "--out", "found")
    assert result.exit_code == 2 and message in result.output
    assert result.output.startswith("robustdistiller groups: ") and result.output.count("\n") == 1
    assert not (tmp_path / "found" / "groups.json").exists()
