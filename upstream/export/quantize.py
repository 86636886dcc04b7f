"""int8: weights in 8 bits, and activations in 8 bits by scales found at run time (dynamic) or beforehand (static).

Only products with weights are quantised: the layers of the extractor after the first, all linear maps and, in the
static kind, the convolution that encodes position. The first convolution, norms, activations and attention stay in
float32. Weights have a scale per output channel and 7 bits of range: with 8, processors without VNNI add two products
in 16 bits and saturate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .quiet import quiet
from .runtime import import_onnxruntime

DYNAMIC_TYPES = ("MatMul", "Gemm")
STATIC_TYPES = ("MatMul", "Gemm", "Conv")


def quantize(
    source: Path, target: Path, calibration: Sequence[np.ndarray] | None = None, progress: bool = False
) -> None:
    """Quantise an ONNX file.

    Args:
        source: the file in float32.
        target: file to write.
        calibration: waveforms ``(samples,)`` over which the ranges of activations are measured; ``None`` leaves them
            to run time.
        progress: show a bar.
    """
    import_onnxruntime()
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    with tempfile.TemporaryDirectory() as folder, quiet():
        folded = Path(folder) / "folded.onnx"
        _fold(source, folded)
        if calibration is None:
            quantize_dynamic(folded, target, op_types_to_quantize=list(DYNAMIC_TYPES), **options)
            return
        quantize_static(
            folded,
            target,
            _Reader(calibration, progress),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(STATIC_TYPES),
            nodes_to_exclude=_first_convolution(folded),
            activation_type=QuantType.QUInt8,
            extra_options={"MatMulConstBOnly": True},
            **options,
        )


def _fold(source: Path, target: Path) -> None:
    """Compute what depends on weights alone, so that all weights are plain tensors."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _first_convolution(path: Path) -> list[str]:
    """Names of the nodes that cut the waveform into windows: convolutions with an identity matrix."""
    import onnx

    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "Conv" and _is_identity(shapes.get(node.input[1], ()))]


def _is_identity(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] == shape[2] and shape[1] == 1


class _Reader:
    """What onnxruntime takes as calibration data: one utterance after another."""

    def __init__(self, waveforms: Sequence[np.ndarray], progress: bool):
        self.waveforms = iter(tqdm(waveforms, desc="calibrating", unit="utt", disable=None if progress else True))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The inputs of the next run, None at the end."""
        waveform = next(self.waveforms, None)
        if waveform is None:
            return None
        return {"waveforms": waveform[None].astype(np.float32), "lengths": np.array([len(waveform)], dtype=np.int64)}
