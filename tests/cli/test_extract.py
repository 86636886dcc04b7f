"""`robustdistiller extract` as a user calls it."""

import argparse
import json

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, checkpoint_digest, save_checkpoint

SHAPE = {"embed_dim": 24, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), (16, 8, 4))}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    save_checkpoint("teacher.ckpt", SpeechEncoder(EncoderConfig(**SHAPE)), {})
    (tmp_path / "speech").mkdir()
    generator = np.random.default_rng(0)
    soundfile.write("speech/a.wav", generator.normal(0, 0.1, 4000), 16000)
    soundfile.write("speech/b.wav", generator.normal(0, 0.1, 4000), 8000)


def run(*arguments):
    result = CliRunner().invoke(app, ["extract", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_extract_and_continue():
    first = run("teacher.ckpt", "speech", "--layer", "1", "--out", "features")
    assert first.exit_code == 0 and "2 written: features/manifest.jsonl" in first.output
    assert "resampled to 16000 Hz: 1 at 8000 Hz" in first.output
    assert "%|" not in first.output  # no progress bar where there is no terminal
    assert np.load("features/a.npy").shape == (198, 24)
    again = run("teacher.ckpt", "speech", "--layer", "1", "--out", "features")
    assert again.exit_code == 0 and "0 written, 2 there already" in again.output


def test_failures_are_listed_last_and_the_exit_code_says_so(tmp_path):
    (tmp_path / "speech" / "broken.wav").write_text("no audio")
    result = run("teacher.ckpt", "speech", "--out", "features")
    assert result.exit_code == 1
    assert "2 written, 1 failed" in result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("failed: speech/broken.wav cannot be read as audio")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["teacher.ckpt", "speech", "--layer", "5", "--out", "f"], "layer '5': expected 0 to 2"),
        (["teacher.ckpt", "nowhere", "--out", "f"], "nowhere does not exist"),
        (["absent.ckpt", "speech", "--out", "f"], "checkpoint absent.ckpt: expected a file or folder"),
        (["speech/a.wav", "speech", "--out", "f"], "speech/a.wav cannot be read as a checkpoint"),
        (["teacher.ckpt", "speech", "--layer", "weighted", "--out", "f"], "give --head FILE"),
    ],
)
def test_errors_are_one_sentence(arguments, message, tmp_path):
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.output
    assert result.output.startswith("robustdistiller extract: ")
    assert result.output.count("\n") == 1 and "Traceback" not in result.output
    assert not (tmp_path / "f").exists()


def test_nothing_is_fetched_before_there_are_recordings(monkeypatch):
    monkeypatch.setattr("robustdistiller.upstream.resolve", lambda name: pytest.fail(f"{name} is fetched"))
    result = run("robustdistiller_wavlm", "/no/speech", "--out", "f")
    assert result.exit_code == 2 and "/no/speech does not exist" in result.output


def test_the_best_head_of_a_folder_is_taken_and_its_note_heeded(tmp_path):
    arguments = argparse.Namespace(upstream_feature_selection="hidden_states", upstream_trainable=False)
    for name, first in (("states-10", 0.0), ("dev-best", 9.0)):
        weights = {"weights": torch.tensor([first, 0.0, 0.0])}
        torch.save({"Featurizer": weights, "Args": arguments}, tmp_path / f"{name}.ckpt")
    note = {"upstream": "robustdistiller_local", "checkpoint": "old.ckpt", "digest": "ab" * 32}
    (tmp_path / "upstream.json").write_text(json.dumps(note))
    command = ["teacher.ckpt", "speech", "--layer", "weighted", "--head", ".", "--out", "f"]
    refused = run(*command)
    assert refused.exit_code == 2 and "was trained on old.ckpt" in refused.output
    (tmp_path / "upstream.json").write_text(json.dumps({**note, "digest": checkpoint_digest("teacher.ckpt")}))
    assert run(*command).exit_code == 0
    assert json.loads((tmp_path / "f" / "extraction.json").read_text())["weights"][0] > 0.9
