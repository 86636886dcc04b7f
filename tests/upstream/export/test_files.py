"""Exported files compute what the encoder computes, for any batch and length, and say what they are."""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import robustdistiller.upstream.export as export_room
from robustdistiller.upstream import checkpoint_digest, export_checkpoint, load_encoder, save_checkpoint
from robustdistiller.upstream.export import ExportError, OnnxEncoder, export_model, program
from robustdistiller.upstream.export.program import load_program
from robustdistiller.upstream.export.quantize import PARTS, quantize

from .conftest import ENCODERS, build

LENGTHS = [20000, 12345, 5000, 1300]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def speech(count=6):
    return [(noise(9000 + 500 * number, seed=number) * (1 + number)).numpy() for number in range(count)]


@torch.no_grad()
def worst_error(encoder, waveforms, lengths, found, frames, layers=None):
    """Relative to the largest value of each state of each utterance, valid frames only."""
    output = encoder(waveforms, lengths)
    expected = output.upstream_states(encoder.config)
    expected = expected if layers is None else [expected[layer] for layer in layers]
    assert frames.tolist() == output.frame_lengths.tolist() and len(found) == len(expected)
    errors = []
    for ours, theirs in zip(expected, found):
        for row, count in enumerate(frames.tolist()):
            a, b = ours[row, :count].numpy(), np.asarray(theirs[row, :count])
            errors.append(np.abs(a - b).max() / np.abs(a).max())
    return max(errors)


def test_log_mel_students_hear_silence_and_faint_speech_as_the_encoder_does(tmp_path):
    encoder = build(front_end="log_mel", conv_layers=((24, 3, 1), (24, 3, 2)))
    save_checkpoint(tmp_path / "log_mel.ckpt", encoder, {})
    model = OnnxEncoder(export_model(tmp_path / "log_mel.ckpt", tmp_path / "log_mel.onnx", "onnx").path)
    waveforms, lengths = noise(2, 9000), torch.tensor([9000, 7000])
    waveforms[0, 2000:6000] = 0.0
    waveforms[1] *= 1e-4  # about the last of 16 bits
    found, frames = model(waveforms.numpy(), lengths.numpy())
    assert worst_error(encoder, waveforms, lengths, found, frames) <= 1e-4
    silent, _ = model(
        np.zeros((1, 5000), np.float32)
    )  # the same in all frames: a norm over time has nothing to divide by
    assert all(np.isfinite(state).all() for state in silent)


@pytest.mark.parametrize("name", ["student", "large"])
def test_onnx_equals_the_encoder_in_any_batch(name, checkpoints, exported):
    model, encoder = OnnxEncoder(exported(name, "onnx").path), load_encoder(checkpoints[name])
    for lengths in (LENGTHS, LENGTHS[1:2], [encoder.config.receptive_field]):
        waveforms = noise(len(lengths), max(lengths))  # what stands past an end is noise, and must not matter
        found, frames = model(waveforms.numpy(), np.array(lengths))
        assert worst_error(encoder, waveforms, torch.tensor(lengths), found, frames) <= 1e-5
    alone, _ = model(noise(4, 20000)[1:2, :12345].numpy())
    batched, frames = model(noise(4, 20000).numpy(), np.array(LENGTHS))
    for single, together in zip(alone, batched):
        np.testing.assert_allclose(together[1, : frames[1]], single[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["student", "large"])
def test_rumble_below_and_hiss_above_need_no_doubles(name, checkpoints, exported):
    """Machines without double precision run the file, and its group norm is as exact as the encoder's."""
    path = exported(name, "onnx").path
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    kinds = {value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {weight.data_type for weight in graph.initializer}
    casts = [field.i for node in graph.node if node.op_type == "Cast" for field in node.attribute if field.name == "to"]
    assert onnx.TensorProto.FLOAT in kinds and onnx.TensorProto.DOUBLE not in kinds | set(casts)
    time_s = torch.arange(20000) / 16000
    waveforms = 0.5 * torch.cos(2 * torch.pi * 20 * time_s) + 1e-3 * noise(1, 20000)
    found, frames = OnnxEncoder(path)(waveforms.numpy())
    encoder = load_encoder(checkpoints[name])
    assert worst_error(encoder, waveforms, torch.tensor([20000]), found, frames) <= 2e-5


def test_the_comparison_notices_other_weights(checkpoints, exported):
    model, encoder = OnnxEncoder(exported("student", "onnx").path), load_encoder(checkpoints["student"])
    waveforms, lengths = noise(1, 8000), torch.tensor([8000])
    with torch.no_grad():
        encoder.transformer.layers[1].up.weight[0, 0] += 0.5
    assert worst_error(encoder, waveforms, lengths, *model(waveforms.numpy())) > 1e-4


def test_a_graph_that_computes_something_else_is_not_written(exported, tmp_path, monkeypatch):
    other = torch.export.load(exported("student", "torch").path.open("rb"))
    monkeypatch.setattr(program, "trace_program", lambda graph: other)
    save_checkpoint(tmp_path / "in" / "s.ckpt", build(**ENCODERS["student"], seed=2), {})
    with pytest.raises(ExportError, match=r"deviates by .* of the largest value from the encoder"):
        export_model(tmp_path / "in" / "s.ckpt", tmp_path / "out" / "s.pt2", "torch")
    assert not list((tmp_path / "out").iterdir())


def test_torch_program_equals_the_encoder(checkpoints, exported):
    module, notes = load_program(exported("student", "torch").path)
    encoder = load_encoder(checkpoints["student"])
    for lengths in (LENGTHS, [720, 400], [720]):
        waveforms = noise(len(lengths), max(lengths))
        found, frames = module(waveforms, torch.tensor(lengths))
        assert worst_error(encoder, waveforms, torch.tensor(lengths), found, frames) <= 1e-5
    assert notes["layers"] == list(encoder.state_names()) and notes["max_relative_error"] <= 1e-5


def test_metadata_say_what_the_file_is(checkpoints, exported):
    written = exported("student", "onnx")
    notes = OnnxEncoder(written.path).metadata
    assert notes["checkpoint_digest"] == checkpoint_digest(checkpoints["student"])
    assert notes["config"] == json.loads(json.dumps(load_encoder(checkpoints["student"]).config.to_dict()))
    assert notes["checkpoint_metadata"]["license"] == "cc-by-4.0" and notes["precision"] == "float32"
    assert notes["layers"] == ["projected", "layer_1", "layer_2", "prediction_4", "prediction_8"]
    assert notes["sample_rate_hz"] == 16000 and notes["receptive_field"] == 400
    assert notes["max_relative_error"] == written.deviation.max_relative_error <= 1e-5
    assert notes["parameters"] == load_encoder(checkpoints["student"]).count_parameters()
    model = onnx.load(written.path)
    onnx.checker.check_model(model)
    assert [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", "samples"]
    assert str(Path(export_room.__file__).parent).encode() not in written.path.read_bytes()  # no folder of this machine


def test_a_runtime_that_multiplies_integers_wrongly_makes_no_int8(exported, tmp_path, monkeypatch):
    class Wrong:
        def __init__(self, *_, **__):
            pass

        def run(self, *_):
            return [np.zeros((1, 300, 24), np.int32)]

    monkeypatch.setattr("onnxruntime.InferenceSession", Wrong)
    with pytest.raises(ValueError, match=r"onnxruntime \S+ multiplies integers wrongly .* pip install -U onnxruntime"):
        quantize(exported("student", "onnx").path, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("integer_products")
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_int8_is_smaller_and_close(kind, checkpoints, exported, tmp_path):
    plain, small = exported("student", "onnx").path, tmp_path / "int8.onnx"
    parts = PARTS if kind == "static" else ("linear", "extractor")
    quantize(plain, small, speech() if kind == "static" else None, parts)
    weights = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(small).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    }
    # Six matrices of the extractor, the projection, twelve of the layers, the heads' common one and one of each;
    # with static ranges the convolution that encodes position.
    assert len(weights) == 6 + 1 + 12 + 3 + (kind == "static")
    # With eight bits, processors without VNNI saturate: the sum of two products no longer fits sixteen bits.
    assert max(np.abs(value.astype(int)).max() for value in weights.values()) <= 64
    if kind == "static":
        # Nothing else reads quantised values: not the statistics of group norm, not attention.
        graph = onnx.load(small).graph
        restored = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        readers = [node for node in graph.node if restored & set(node.input)]
        assert len(readers) == len(weights) and all(len(restored & set(node.input)) >= 2 for node in readers)
    model, encoder = OnnxEncoder(small), load_encoder(checkpoints["student"])
    waveforms = torch.from_numpy(speech()[2])[None]
    found, frames = model(waveforms.numpy())
    assert 1e-4 < worst_error(encoder, waveforms, torch.tensor([waveforms.shape[1]]), found, frames) < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "onnx", "layers": ["layer_9"]}, "layer 'layer_9': expected 0 to 4"),
        ({"to": "onnx", "opset": 7}, "opset is 7; expected 18 to 23"),
        ({"to": "torch", "opset": 20}, "opset 20 is for ONNX files"),
        ({"to": "onnx-int8-static"}, "onnx-int8-static, which needs it"),
        ({"to": "onnx", "calibration": [np.zeros(400)]}, "found onnx with any"),
        ({"to": "onnx-int8-static", "calibration": []}, "calibration speech has no waveform; expected one or more"),
        ({"to": "onnx-int8-static", "calibration": [np.zeros(399)]}, "a waveform of 399 samples; .* of at least 400"),
    ],
)
def test_arguments_that_do_not_fit(checkpoints, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export_model(checkpoints["student"], tmp_path / "s.onnx", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "onnxscript"])
def test_a_missing_package_is_one_sentence(package, checkpoints, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"ONNX files need .* pip install onnx onnxruntime onnxscript"):
        export_model(checkpoints["student"], tmp_path / "s.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_unasked(checkpoints, tmp_path):
    (tmp_path / "s.onnx").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already; use --overwrite"):
        export_model(checkpoints["student"], tmp_path / "s.onnx", "onnx")
    with pytest.raises(FileExistsError, match="is the checkpoint to export"):
        export_model(checkpoints["student"], checkpoints["student"], "onnx", overwrite=True)
    assert (tmp_path / "s.onnx").read_text() == "mine"
    folder = export_checkpoint(checkpoints["student"], tmp_path / "folder", "published").path
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="is the checkpoint to export"):
        export_model(folder, folder / "model.safetensors", "onnx", overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == before


def test_bad_input_of_a_file_is_named(exported):
    model = OnnxEncoder(exported("student", "onnx").path)
    with pytest.raises(ValueError, match=r"waveforms have shape \(800,\); expected \(batch, samples\)"):
        model(np.zeros(800))
    with pytest.raises(ValueError, match=r"lengths are \[399\].*from 400 \(one frame\) to 800"):
        model(np.zeros((1, 800)), np.array([399]))


def test_other_onnx_files_are_refused(exported, tmp_path):
    model = onnx.load(exported("student", "onnx").path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"without the notes layers, .*one that `robustdistiller export` wrote"):
        OnnxEncoder(tmp_path / "other.onnx")
    (tmp_path / "page.onnx").write_text("<html>")
    with pytest.raises(ValueError, match="cannot be read as an ONNX file"):
        OnnxEncoder(tmp_path / "page.onnx")


def test_the_example_says_which_files_it_reads(exported, tmp_path):
    with wave.open(str(tmp_path / "8k.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 800, "NONE", ""))
        file.writeframes(bytes(1600))
    example = Path(export_room.__file__).with_name("example_onnx.py")
    command = [sys.executable, str(example), str(exported("student", "onnx").path), str(tmp_path / "8k.wav")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "8k.wav: expected 16000 Hz, 1 channel and 16 bits, found (8000, 1, 16)" in done.stderr


def test_the_example_needs_numpy_and_onnxruntime_alone(checkpoints, exported, tmp_path):
    samples = (noise(2, 9000).numpy() * 32767).astype("<i2")
    for row, length in enumerate((9000, 4000)):
        with wave.open(str(tmp_path / f"{row}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, length, "NONE", ""))
            file.writeframes(samples[row, :length].tobytes())
    example = Path(export_room.__file__).with_name("example_onnx.py")
    # Any other package of the environment, ours and PyTorch first, cannot be imported.
    code = f"""
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "robustdistiller", "scipy", "soundfile", "onnx", "pandas"}}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = {["example", str(exported("student", "onnx").path), str(tmp_path / "0.wav"), str(tmp_path / "1.wav")]!r}
runpy.run_path({str(example)!r}, run_name="__main__")
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}, check=False
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "1.wav layer_2" in line)
    with torch.no_grad():
        waveform = torch.from_numpy(samples[1:, :4000].astype(np.float32) / 32768)
        state = load_encoder(checkpoints["student"])(waveform).hidden_states[2][0]
    assert line.endswith(f"layer_2 (12, 32) mean {state.mean():.4f} std {state.numpy().std():.4f}")


def test_heads_of_a_pre_norm_student_see_the_normed_state(tmp_path):
    options = {"norm_first": True, "last_state_normed": False, "prediction_layers": (4,), "num_layers": 1}
    save_checkpoint(tmp_path / "s.ckpt", build(**options), {})
    written = export_model(tmp_path / "s.ckpt", tmp_path / "s.onnx", "onnx")
    assert written.names[-1] == "prediction_4" and written.deviation.max_relative_error < 1e-4
