"""The position convolution of an ONNX file by spectra: the sum itself within rounding, and only where it pays."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from robustdistiller.upstream import load_encoder, save_checkpoint
from robustdistiller.upstream.export import OnnxEncoder, export_model
from robustdistiller.upstream.export.quantize import quantize
from robustdistiller.upstream.export.spectral_position import multiply_spectra

from .conftest import build
from .test_files import noise, worst_error

CHANNELS = 24


def convolution(kernel: int, groups: int = 3, bias: bool = True, opset: int = 20, **attributes) -> onnx.ModelProto:
    """A file of one convolution, whose channels differ in level by 60 dB."""
    rng = np.random.default_rng(0)
    levels = np.logspace(0, -3, CHANNELS, dtype=np.float32)
    weight = rng.standard_normal((CHANNELS, CHANNELS // groups, kernel), np.float32) * levels[:, None, None]
    weights = {"weight": weight, "bias": levels} if bias else {"weight": weight}
    node = helper.make_node("Conv", ["x", *weights], ["y"], group=groups, kernel_shape=[kernel], **attributes)
    graph = helper.make_graph(
        [node],
        "position",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS, "frames"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CHANNELS, "frames_out"])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def kernels(model: onnx.ModelProto) -> list[int]:
    """Taps of each convolution."""
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    return [weights[node.input[1]][-1] for node in model.graph.node if node.op_type == "Conv"]


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("kernel", [64, 95, 128])
@pytest.mark.parametrize(
    "options",
    [{"pads": [64, 63]}, {"pads": [40, 40], "strides": [2], "bias": False}, {"pads": [63, 64], "opset": 18}, {}],
    ids=["around", "pooled", "opset 18", "unpadded"],
)
def test_equal_to_the_sum(kernel, options):
    plain, written = convolution(kernel, **options), convolution(kernel, **options)
    assert multiply_spectra(written) == 1 and "Conv" not in kinds(written)
    onnx.checker.check_model(written, full_check=True)
    rng = np.random.default_rng(1)
    for batch, frames in ((1, 128), (3, 129), (2, 130), (1, 258), (2, 777)):
        x = rng.standard_normal((batch, CHANNELS, frames), np.float32)
        x[0, :, frames // 2 :] = 0.0
        expected, found = run(plain, x), run(written, x)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
        # A quiet channel is as exact as a loud one.
        np.testing.assert_allclose(found[:, -1], expected[:, -1], atol=1e-5 * np.abs(expected[:, -1]).max())


def test_a_single_frame_and_none_of_the_padding():
    plain, written = convolution(128, pads=[64, 63]), convolution(128, pads=[64, 63])
    multiply_spectra(written)
    x = np.ones((2, CHANNELS, 1), np.float32)
    np.testing.assert_allclose(run(written, x), run(plain, x), atol=1e-5)


@pytest.mark.parametrize("options", [{"kernel": 63}, {"kernel": 128, "groups": 1}], ids=["short", "no groups"])
def test_other_convolutions_stay(options):
    model = convolution(**options)
    before = model.SerializeToString()
    assert multiply_spectra(model) == 0 and model.SerializeToString() == before


def test_a_convolution_in_int8_stays():
    model = convolution(128)
    node = helper.make_node("DequantizeLinear", ["weight.int8", "scale"], ["weight"])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((CHANNELS, 8, 128), np.int8), "weight.int8"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), "scale"))
    model.graph.node.insert(0, node)
    assert multiply_spectra(model) == 0 and kinds(model) == ["DequantizeLinear", "Conv"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "long.ckpt"
    save_checkpoint(path, build(position_kernel=128), {})
    return path


def test_files_have_the_kernel_and_not_its_spectra(checkpoint, tmp_path):
    exported = export_model(checkpoint, tmp_path / "long.onnx", "onnx")
    model = onnx.load(exported.path)
    assert [32, 8, 128] in [list(weight.dims) for weight in model.graph.initializer]
    assert max(kernels(model)) < 128
    assert OnnxEncoder(exported.path).metadata["spectral_position"] is True
    encoder, waveforms, lengths = load_encoder(checkpoint), noise(3, 60000), torch.tensor([60000, 41000, 700])
    found, frames = OnnxEncoder(exported.path)(waveforms.numpy(), lengths.numpy())
    assert worst_error(encoder, waveforms, lengths, found, frames) <= 1e-5
    alone, _ = OnnxEncoder(exported.path)(waveforms[1:2, :41000].numpy())
    for single, together in zip(alone, found):
        np.testing.assert_allclose(together[1, : frames[1]], single[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"by spectra, which int8 would spoil; .* export the checkpoint itself"):
        quantize(exported.path, tmp_path / "int8.onnx")


@pytest.mark.usefixtures("integer_products")
def test_in_int8_the_spectra_are_in_float32(checkpoint, tmp_path):
    dynamic = export_model(checkpoint, tmp_path / "dynamic.onnx", "onnx-int8-dynamic")
    assert OnnxEncoder(dynamic.path).metadata["spectral_position"] is True
    assert dynamic.deviation.max_relative_error < 0.1
    integers = [w for w in onnx.load(dynamic.path).graph.initializer if w.data_type == TensorProto.INT8]
    assert integers and all(len(weight.dims) < 3 for weight in integers)
