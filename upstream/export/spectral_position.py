"""The position convolution of an ONNX file as products of spectra.

As :mod:`~robustdistiller.upstream.fast.spectral_position` computes it, with the transforms as matrix products:
onnxruntime has quick ones for those. The file keeps the kernel, not its spectra, which are twice as large; a runtime
that computes what depends on weights alone once, as onnxruntime does, has them when it has loaded the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robustdistiller.upstream.fast.spectral_position import LEAST_TAPS

if TYPE_CHECKING:
    import onnx


def multiply_spectra(model: onnx.ModelProto) -> int:
    """Write each long convolution of groups in float32 anew, in place; how many there were."""
    from onnx import helper

    graph, convolutions = model.graph, 0
    # In int8 the kernel is no tensor of the file, but computed from one.
    kernels = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 3}
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "Conv" or kernels.get(node.input[1], (0, 0, 0))[2] < LEAST_TAPS:
            continue
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if given.get("group", 1) == 1:
            continue
        nodes = _Nodes(f"{node.output[0]}.spectra")
        rows = _correlate(
            nodes,
            nodes.add("Transpose", node.input[0], perm=[0, 2, 1]),
            node.input[1],
            kernels[node.input[1]],
            given["group"],
            given.get("pads", (0, 0)),
            given.get("strides", (1,))[0],
        )
        rows = nodes.add("Add", rows, node.input[2]) if len(node.input) > 2 else rows
        nodes.add("Transpose", rows, perm=[0, 2, 1])
        nodes.made[-1].output[0] = node.output[0]
        del graph.node[place]
        for new in reversed(nodes.made):
            graph.node.insert(place, new)
        convolutions += 1
    return convolutions


class _Nodes:
    """Nodes in order, each of whose results has a name of its own."""

    def __init__(self, prefix: str):
        self.prefix = prefix
        self.made: list[onnx.NodeProto] = []

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
        """Name of the result, or names of several."""
        from onnx import helper

        names = [f"{self.prefix}.{len(self.made)}.{number}" for number in range(outputs)]
        self.made.append(helper.make_node(kind, inputs, names, name=f"{self.prefix}.{len(self.made)}", **attributes))
        return names[0] if outputs == 1 else names

    def whole(self, *values: int) -> str:
        return self.add("Constant", value_ints=values)

    def matrix(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        return self.add("Constant", value=numpy_helper.from_array(np.ascontiguousarray(values, np.float32)))


def _correlate(
    nodes: _Nodes, x: str, weight: str, shape: tuple[int, ...], groups: int, pads: tuple[int, int], stride: int
) -> str:
    """Convolve ``x`` ``(batch, frames, channels)``, at every ``stride``-th frame, with a weight of this shape.

    In the comments B are stretches of the batch, F frequencies, G groups, I and O channels of a group.
    """
    add, whole = nodes.add, nodes.whole
    channels, inputs, kernel = shape
    outputs, size, step, bins = channels // groups, 2 * kernel, kernel + 1, kernel + 1

    waves = np.exp(2j * np.pi * np.outer(np.arange(size), np.arange(bins)) / size)
    shares = (
        np.where(np.isin(np.arange(bins), (0, kernel)), 1, 2) / size
    )  # all but the first and the last stand for two
    transform = nodes.matrix(np.concatenate([waves.real, -waves.imag], axis=1).T)
    transform_kernel = nodes.matrix(np.concatenate([waves.real, waves.imag], axis=1)[:kernel])  # for a correlation
    transform_back = nodes.matrix(np.concatenate([waves.real * shares, -waves.imag * shares], axis=1)[:step])

    spectra = add("Reshape", add("MatMul", weight, transform_kernel), whole(groups, outputs, inputs, 2, bins))
    spectra = add("Reshape", add("Transpose", spectra, perm=[4, 0, 2, 3, 1]), whole(bins * groups, inputs, 2 * outputs))

    # Stretches of twice the kernel, one beginning every kernel + 1 frames: each gives as many frames of the result.
    given = add("Shape", x, start=1, end=2)
    frames = add("Add", given, whole(sum(pads) - kernel + 1))
    covered = add("Mul", add("Div", add("Add", frames, whole(step - 1)), whole(step)), whole(step))
    padded = add("Add", covered, whole(step))
    after = add("Sub", padded, add("Add", given, whole(pads[0])))
    x = add("Pad", x, add("Concat", whole(0, pads[0], 0, 0), after, whole(0), axis=0))
    begins = add("Reshape", add("Slice", x, whole(0), covered, whole(1)), whole(0, -1, step, channels))
    ends = add("Reshape", add("Slice", x, whole(step), padded, whole(1)), whole(0, -1, step, channels))
    ends = add("Slice", ends, whole(0), whole(size - step), whole(2))

    y = add("MatMul", transform, add("Concat", begins, ends, axis=2))
    y = add("Reshape", y, whole(-1, 2, bins, groups, inputs))
    y = add("Reshape", add("Transpose", y, perm=[2, 3, 1, 0, 4]), whole(bins * groups, -1, inputs))
    # Real and imaginary parts lie side by side, so one real product gives all four: (F G, 2 B, 2 O).
    y = add("Reshape", add("MatMul", y, spectra), whole(bins, groups, 2, -1, 2, outputs))
    real, imaginary = add("Split", y, axis=2, num_outputs=2, outputs=2)
    real_real, real_imaginary = add("Split", real, axis=4, num_outputs=2, outputs=2)
    imaginary_real, imaginary_imaginary = add("Split", imaginary, axis=4, num_outputs=2, outputs=2)
    real, imaginary = add("Sub", real_real, imaginary_imaginary), add("Add", real_imaginary, imaginary_real)
    y = add("Reshape", add("Concat", real, imaginary, axis=0), whole(2 * bins, groups, -1, outputs))
    y = add("Reshape", add("Transpose", y, perm=[2, 0, 1, 3]), whole(0, 0, channels))
    y = add("MatMul", transform_back, y)  # (B, kernel + 1, channels)
    y = add("Reshape", y, add("Concat", add("Shape", x, end=1), whole(-1, channels), axis=0))
    return add("Slice", y, whole(0), frames, whole(1), whole(stride))
