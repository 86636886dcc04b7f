"""Writing the graph of an encoder as an ONNX file, with what a reader has to know about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from robustdistiller.upstream.export.graph import FRAME_LENGTHS, EncoderGraph
from robustdistiller.upstream.export.quiet import quiet

if TYPE_CHECKING:
    import onnx

INPUTS = ("waveforms", "lengths")


def trace_onnx(graph: EncoderGraph, opset: int) -> onnx.ModelProto:
    """The graph as an ONNX model of any batch and length.

    Args:
        graph: made with ``rows=True``.
        opset: version of ONNX's operators; below 20 there is no GELU, and it is spelt out.
    """
    dynamic = torch.export.Dim.DYNAMIC
    return write_graph(
        graph,
        (torch.zeros(2, 2 * 16000), torch.tensor([2 * 16000, 16000])),
        opset,
        inputs=INPUTS,
        outputs=[*graph.names, FRAME_LENGTHS],
        dynamic_shapes={"waveforms": {0: dynamic, 1: dynamic}, "lengths": {0: dynamic}},
        dimensions={"waveforms": ("batch", "samples"), "lengths": ("batch",), FRAME_LENGTHS: ("batch",)}
        | dict.fromkeys(graph.names, ("batch", "frames")),
    )


def write_graph(
    graph: torch.nn.Module,
    example: tuple,
    opset: int,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Any,
    dimensions: Mapping[str, Sequence[str]],
) -> onnx.ModelProto:
    """A module as an ONNX model without notes of where it comes from.

    Args:
        graph: the module.
        example: its arguments.
        opset: version of ONNX's operators.
        inputs: names of all tensors in ``example``, in order.
        outputs: names of all tensors that it returns.
        dynamic_shapes: which dimensions are free, as :func:`torch.onnx.export` takes it.
        dimensions: what the first dimensions of inputs and outputs are called, by their names.
    """
    with quiet():
        program = torch.onnx.export(
            graph,
            (*example, {}),  # a dictionary at the end would be taken for named arguments
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            custom_translation_table={torch.ops.robustdistiller.rows_conv.default: rows_conv_nodes},
            external_data=False,
            verbose=False,
        )
    model = cast("torch.onnx.ONNXProgram", program).model_proto  # None is what the exporter without dynamo gives
    _forget_origin(model)
    for value in (*model.graph.input, *model.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, dimensions.get(value.name, ())):
            dim.dim_param = name
    return model


def rows_conv_nodes(x, blocks, kernel: int, stride: int):
    """:func:`~robustdistiller.upstream.export.graph.rows_conv` as matrix products.

    A runtime multiplies matrices as fast as it convolves, and in int8 much faster. The kernel is cut into stretches of
    ``stride`` frames: the rows that one stretch sees do not overlap, so a reshape lays them side by side.
    """
    from onnxscript import opset18

    op: Any = opset18  # its types do not know what a constant holds
    one, step = op.Constant(value_ints=[1]), op.Constant(value_ints=[stride])
    frames = op.Add(op.Div(op.Sub(op.Shape(x, start=1, end=2), op.Constant(value_ints=[kernel])), step), one)
    span = op.Mul(frames, step)
    y = None
    for block, start in zip(blocks, range(0, kernel, stride)):
        width = min(stride, kernel - start)
        places = [op.Constant(value_ints=[start + offset]) for offset in range(width)]
        if width == stride:
            rows = op.Slice(x, places[0], op.Add(places[0], span), one)
            rows = op.Reshape(rows, op.Constant(value_ints=[0, -1, block.shape[0]]))
        else:
            parts = [op.Slice(x, place, op.Add(place, span), one, step) for place in places]
            rows = parts[0] if width == 1 else op.Concat(*parts, axis=2)
        product = op.MatMul(rows, block)
        y = product if y is None else op.Add(y, product)
    return y


def load_model(path: Path) -> onnx.ModelProto:
    """Read a model."""
    import onnx

    return onnx.load(path)


def save_model(model: onnx.ModelProto, path: Path, notes: Mapping[str, Any] | None = None) -> None:
    """Write a model with these notes as its metadata: text as it is, anything else as JSON."""
    import onnx

    del model.metadata_props[:]
    for key, value in (notes or {}).items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.save(model, path)


def _forget_origin(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes on every node: stack traces, which name folders of this machine."""
    for thing in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del thing.metadata_props[:]
        thing.doc_string = ""
    del model.graph.value_info[:]
    del model.metadata_props[:]
