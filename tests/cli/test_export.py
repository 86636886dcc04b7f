"""`robustdistiller export` as a user calls it."""

import json

import numpy as np
import onnx
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.mini.calibration import calibration_speech
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, load_encoder, save_checkpoint
from robustdistiller.upstream.export import OnnxEncoder

SHAPE = {"embed_dim": 24, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), (16, 8, 4)), "feature_norm": False, "prediction_layers": (4, 8)}


@pytest.fixture
def student(tmp_path):
    torch.manual_seed(1)
    save_checkpoint(tmp_path / "student.ckpt", SpeechEncoder(EncoderConfig(**SHAPE)), {"recipe": "robustdistiller"})
    return tmp_path / "student.ckpt"


def run(*arguments):
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.usefixtures("integer_products")
def test_static_int8_of_chosen_layers_at_an_older_opset(student, tmp_path):
    (tmp_path / "speech" / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        soundfile.write(tmp_path / "speech" / "a" / f"{number}.flac", rng.normal(0, 0.1, 8000 * (number + 1)), 8000)
    options = ["--to", "onnx-int8-static", "--calibration", tmp_path / "speech", "--calibration-files", 3]
    options += ["--int8", "linear,extractor"]
    result = run(student, tmp_path / "s.onnx", "--layers", "layer_1, 0", "--opset", 18, *options)
    assert result.exit_code == 0, result.output
    assert "MB: projected, layer_1" in result.output and "off by at most" in result.output
    model, encoder = OnnxEncoder(tmp_path / "s.onnx"), load_encoder(student)
    waveforms = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    found, frames = model(waveforms.numpy(), np.array([8000, 3000]))
    with torch.no_grad():
        output = encoder(waveforms, torch.tensor([8000, 3000]))
    assert model.names == ("projected", "layer_1") and frames.tolist() == output.frame_lengths.tolist()
    for ours, theirs in zip((output.projected, output.hidden_states[1]), found, strict=True):
        assert 1e-4 < np.linalg.norm(theirs[0] - ours[0].numpy()) / np.linalg.norm(ours[0]) < 0.1
    notes, graph = model.metadata, onnx.load(tmp_path / "s.onnx")
    assert {entry.domain: entry.version for entry in graph.opset_import}[""] == 18
    assert notes["precision"] == "int8, static" and notes["calibration_seconds"] == 1 + 3 + 5  # files 0, 2 and 4
    assert notes["int8_parts"] == ["linear", "extractor"]
    assert any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    # What the chosen layers do not need is not in the file.
    assert notes["parameters"] == encoder.count_parameters(heads=False)
    weights = sum(np.prod(tensor.dims) for tensor in graph.graph.initializer if len(tensor.dims) > 1)
    assert 0.8 * notes["parameters"] < weights < 1.1 * notes["parameters"]


def test_a_step_of_streams(student, tmp_path):
    result = run(student, tmp_path / "s.onnx", "--stream", "--look-ahead-frames", 1, "--layers", "layer_1")
    assert result.exit_code == 0, result.output
    assert "MB: layer_1" in result.output and "on random streams it is off by at most" in result.output
    notes = {entry.key: entry.value for entry in onnx.load(tmp_path / "s.onnx").metadata_props}
    assert json.loads(notes["stream"]) == {
        **{"chunk_frames": 8, "left_frames": 256, "look_ahead_frames": 1, "hop_samples": 160, "block_samples": 205},
        "padding_samples": 0,
        "latency_ms": pytest.approx(205 / 16),
    }


def test_the_mini_corpus_is_what_is_calibrated_on_by_default():
    speech = calibration_speech(None, 10)
    assert len(speech) == 10 and all(wave.dtype == np.float32 and 0.01 < np.abs(wave).max() <= 1 for wave in speech)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.ckpt", "out"], "absent.ckpt"),
        (["student.ckpt", "page.ckpt"], "exists already"),
        (["student.ckpt", "out", "--layers", "layer_7"], "layer 'layer_7': expected 0 to 3"),
        (["student.ckpt", "out", "--opset", "9"], "opset is 9"),
        (["student.ckpt", "out", "--calibration", "."], "--to onnx measures no ranges"),
        (["student.ckpt", "out", "--calibration-files", "3"], "--to onnx measures no ranges"),
        (["student.ckpt", "out", "--int8", "linear"], "for int8 files; found linear for onnx"),
        (["student.ckpt", "out", "--to", "onnx-int8-dynamic", "--int8", "position"], "takes some of linear, extractor"),
        (["student.ckpt", "out", "--to", "onnx-int8-static", "--calibration", "nowhere"], "nowhere does not exist"),
        (["student.ckpt", "out", "--left-frames", "9"], "--left-frames is for streams; give --stream, too"),
        (["student.ckpt", "out", "--to", "torch", "--stream"], "exported to onnx or onnx-int8-dynamic; found torch"),
    ],
)
def test_errors_are_one_sentence(student, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.ckpt").write_text("<html>404</html>")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output and "Traceback" not in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()
