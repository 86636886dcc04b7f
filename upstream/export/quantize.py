"""int8: weights in 8 bits, and activations in 8 bits by scales found at run time (dynamic) or beforehand (static).

Only products with weights can be quantised: linear maps, the layers of the extractor after the first and, in the static
kind, the convolution that encodes position. The first convolution, norms, activations and attention stay in float32.
By default so does the extractor: one scale is too coarse for the activations of a layer, and accuracy falls by
up to 29 points (results/export). Weights have a scale per output channel and 7 bits of range: with 8, processors
without VNNI add two products in 16 bits and saturate.
"""

from __future__ import annotations

import tempfile
from collections.abc import MutableSequence, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from robustdistiller.upstream.export.onnx_file import load_model, save_model
from robustdistiller.upstream.export.quiet import quiet
from robustdistiller.upstream.export.runtime import import_onnxruntime, require_integer_products

if TYPE_CHECKING:
    import onnx

DYNAMIC_TYPES = ("MatMul", "Gemm")
STATIC_TYPES = ("MatMul", "Gemm", "Conv")
#: What can be quantised: the convolutions after the first; the one that encodes position; all other products.
PARTS = ("linear", "position", "extractor")
DEFAULT_PARTS = ("linear",)


def quantize(
    source: Path,
    target: Path,
    calibration: Sequence[np.ndarray] | None = None,
    parts: Sequence[str] = DEFAULT_PARTS,
    progress: bool = False,
) -> None:
    """Quantise an ONNX file; its notes are kept, but for those on precision and deviation.

    Args:
        source: the file in float32, whose convolutions are convolutions: a step of streams, or a graph as it is traced.
        target: file to write.
        calibration: waveforms ``(samples,)`` over which the ranges of activations are measured; ``None`` leaves them
            to run time.
        parts: what is quantised, some of :data:`PARTS`; the rest stays in float32.
        progress: show a bar.

    Raises:
        ValueError: onnxruntime is missing, or multiplies integers wrongly here; the position convolution of the file
            is products of spectra.
    """
    require_integer_products()
    notes = {entry.key: entry.value for entry in load_model(source).metadata_props}
    if notes.get("spectral_position") == "true":
        raise ValueError(
            f"{source} computes its position convolution by spectra, which int8 would spoil; expected a file without "
            "them: export the checkpoint itself to int8"
        )
    with tempfile.TemporaryDirectory() as folder, quiet():
        quantized = Path(folder) / "int8.onnx"
        _quantize(source, quantized, calibration, parts, progress)
        notes["precision"] = "int8, dynamic" if calibration is None else "int8, static"
        kept = {key: value for key, value in notes.items() if not key.endswith("_relative_error")}
        model = load_model(quantized)
        _round_for_products_alone(model)
        save_model(model, target, {**kept, "int8_parts": list(parts)})


def _quantize(
    source: Path, target: Path, calibration: Sequence[np.ndarray] | None, parts: Sequence[str], progress: bool
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / "folded.onnx"
        _fold(source, folded)
        products = _products(folded, DYNAMIC_TYPES if calibration is None else STATIC_TYPES)
        lacking = sorted(set(parts) - {part for _, part in products})
        if lacking:
            raise ValueError(
                f"int8 for {', '.join(lacking)}: this file has none of that to put into int8; leave it out, or write "
                "another kind of file"
            )
        options["nodes_to_exclude"] = [name for name, part in products if part not in parts]
        if calibration is None:
            quantize_dynamic(folded, target, op_types_to_quantize=list(DYNAMIC_TYPES), **options)
            return
        quantize_static(
            folded,
            target,
            _Reader(calibration, progress),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(STATIC_TYPES),
            activation_type=QuantType.QUInt8,
            # Results stay in float32: one rounding less, and what follows is in float32 anyway.
            extra_options={
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": list(STATIC_TYPES),
            },
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


def _round_for_products_alone(model: onnx.ModelProto) -> None:
    """Let residuals, and what the file returns, have the values that were not rounded to 8 bits.

    onnxruntime gives the rounded values to all readers of a tensor that a product reads, and to the caller.
    """
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    for dequantize in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        quantize_node, rounded = made_by.get(dequantize.input[0]), dequantize.output[0]
        if quantize_node is None or quantize_node.op_type != "QuantizeLinear":
            continue  # a weight
        exact = quantize_node.input[0]
        readers = [node for node in graph.node if rounded in node.input]
        others = [node for node in readers if node.op_type not in STATIC_TYPES]
        if rounded in outputs:
            # The name belongs to the output: the exact values take it.
            for node in readers:
                if node not in others:
                    _rename(node.input, rounded, f"{rounded}_rounded")
            dequantize.output[0] = f"{rounded}_rounded"
            for node in graph.node:
                _rename(node.input, exact, rounded)
                _rename(node.output, exact, rounded)
        else:
            for node in others:
                _rename(node.input, rounded, exact)


def _rename(names: MutableSequence[str], old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new


def _products(path: Path, types: Sequence[str]) -> list[tuple[str, str]]:
    """Name and part of each node of these types; the part of what never is quantised is no part."""
    from onnx import TensorProto

    graph = load_model(path).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}

    def part(node) -> str:
        weight = weights.get(node.input[1])
        if weight is None or weight.data_type == TensorProto.DOUBLE:
            return "attention, or statistics for group norm"
        in_extractor = ".extractor." in f".{weight.name}"
        if node.op_type == "Conv":
            # One input channel: an identity cuts the waveform into windows, or waves make spectra of it.
            inputs = weight.dims[1]
            return "waveform" if inputs == 1 else "extractor" if in_extractor else "position"
        return "extractor" if in_extractor else "linear"

    return [(node.name, part(node)) for node in graph.node if node.op_type in types]


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
