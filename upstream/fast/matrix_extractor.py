"""The conv extractor for training on a CPU: each layer one or two matrix products, frames before channels.

Convolution kernels reach two thirds of a processor's matrix rate here, and less in the backward pass. A kernel cut into
stretches of ``stride`` frames sees rows of the input that do not overlap, so that output, input gradient and weight
gradient are plain products of matrices that lie in memory as they are. The group norm is folded into the first
convolution (:mod:`.window_statistics`): only the inputs of the activations are kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from robustdistiller.upstream.fast.window_statistics import fold_norm
from robustdistiller.upstream.model.extractor import ConvExtractor, Extractor, Moments, TimeNorm

#: (kernel, stride) of each layer.
Shapes = Sequence[tuple[int, int]]


class MatrixExtractor(Extractor):
    """A :class:`~robustdistiller.upstream.model.extractor.ConvExtractor` with the same parameters under the same names.

    Rows are computed one by one, without their padding, behind the first layer in the precision of autocast. Hooks on
    single layers are not run, and waveforms get no gradients.

    Args:
        extractor: with group norm; its modules become those of this one.

    Raises:
        ValueError: it has layer norms.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> extractor, waveforms = ConvExtractor(EncoderConfig()), torch.randn(2, 3200)
    >>> torch.allclose(MatrixExtractor(extractor)(waveforms), extractor(waveforms), atol=1e-4)
    True
    """

    spectrum = None  # it hears waveforms

    def __init__(self, extractor: ConvExtractor):
        super().__init__()
        first, *rest = extractor.layers
        if not isinstance(first.norm, TimeNorm) or any(layer.norm is not None for layer in rest):
            raise ValueError("the extractor has layer norms; expected group norm behind its first convolution alone")
        self.layers, self.scale = extractor.layers, extractor.scale

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None, moments: Moments | None = None) -> Tensor:
        """See :meth:`ConvExtractor.forward`; ``moments`` are for streams, which are not trained."""
        first, *rest = self.layers
        norm = cast(TimeNorm, first.norm)  # the constructor refuses others
        shapes = [(layer.conv.kernel_size[0], layer.conv.stride[0]) for layer in self.layers]
        parameters = [part for layer in rest for part in (layer.conv.weight, layer.conv.bias)]
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else waveforms.dtype
        frames, rows = self.num_frames(waveforms.shape[1]), []
        ends = [None] * len(waveforms) if lengths is None else lengths.tolist()
        with torch.autocast("cpu", enabled=False):
            for row, end in zip(waveforms, ends):
                weight, bias = fold_norm(row[:end], first.conv, norm)
                if first.conv.bias is not None:
                    bias = bias + 0.0 * first.conv.bias  # taken away by the norm; processes must agree on its gradient
                made = _Stack.apply(row[:end], weight, bias, shapes, dtype, *parameters)
                rows.append(F.pad(made, (0, 0, 0, frames - len(made))))
        features = torch.stack(rows)
        return features if self.scale is None else features * self.scale


class _Stack(torch.autograd.Function):
    """``(samples,)`` to ``(frames, channels)``."""

    @staticmethod
    def forward(
        ctx: Any,
        waveform: Tensor,
        first_weight: Tensor,
        first_bias: Tensor,
        shapes: Shapes,
        dtype: torch.dtype,
        *parameters: Tensor | None,
    ) -> Tensor:
        x = torch.addmm(first_bias, waveform.unfold(0, *shapes[0]), first_weight.T).to(dtype)
        inner = [x]
        weights = cast("tuple[Tensor, ...]", parameters[::2])  # what may be None is a bias
        for (kernel, stride), weight, bias in zip(shapes[1:], weights, parameters[1::2]):
            x = _convolve(F.gelu(x), _rows(weight, dtype), bias, kernel, stride)
            inner.append(x)
        ctx.shapes, ctx.biased = shapes, [bias is not None for bias in parameters[1::2]]
        ctx.save_for_backward(waveform, *inner, *weights)
        return F.gelu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        waveform, *saved = ctx.saved_tensors
        depth = len(ctx.shapes)
        inner, weights = saved[:depth], saved[depth:]
        gradients: list[Tensor | None] = []
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = torch.ops.aten.gelu_backward(gradient, inner.pop())
            for (kernel, stride), weight, biased in zip(ctx.shapes[:0:-1], weights[::-1], ctx.biased[::-1]):
                z = inner.pop()
                of_weight = _weight_gradient(gradient, F.gelu(z), kernel, stride)
                of_bias = gradient.sum(0, dtype=weight.dtype) if biased else None
                gradients += [of_bias, of_weight.to(weight.dtype).unflatten(1, (kernel, -1)).transpose(1, 2)]
                gradient = _input_gradient(gradient, _rows(weight, z.dtype), z.shape, stride)
                gradient = torch.ops.aten.gelu_backward.grad_input(gradient, z, grad_input=gradient)
            windows = waveform.unfold(0, *ctx.shapes[0]).to(gradient.dtype)
            of_weight, of_bias = (gradient.T @ windows).to(waveform.dtype), gradient.sum(0, dtype=waveform.dtype)
            return None, of_weight, of_bias, None, None, *reversed(gradients)


def _rows(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A kernel ``(channels, inputs, kernel)`` as ``(channels, kernel * inputs)``."""
    return weight.permute(0, 2, 1).flatten(1).to(dtype)


def _stretches(x: Tensor, frames: int, kernel: int, stride: int) -> list[tuple[slice, Tensor]]:
    """What each stretch of the kernel sees of ``x`` ``(input frames, inputs)``: its columns of a kernel's row, and a
    view ``(frames, stretch * inputs)`` of ``x``."""
    width, views = x.shape[1], []
    for first in range(0, kernel, stride):
        columns, start = min(stride, kernel - first) * width, first * width
        views.append((slice(start, start + columns), x.as_strided((frames, columns), (stride * width, 1), start)))
    return views


def _convolve(x: Tensor, rows: Tensor, bias: Tensor | None, kernel: int, stride: int) -> Tensor:
    frames = (len(x) - kernel) // stride + 1
    y = x.new_empty(frames, len(rows))
    for columns, view in _stretches(x, frames, kernel, stride):
        y.addmm_(view, rows[:, columns].T, beta=float(columns.start > 0))
    return y if bias is None else y.add_(bias.to(y.dtype))


def _input_gradient(gradient: Tensor, rows: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """Of the input of a convolution, which has ``shape``."""
    kernel, frames = rows.shape[1] // shape[1], len(gradient)
    result = gradient.new_empty(shape)
    # The first stretch writes its frames, all others add to theirs; what none of them writes must be zero.
    result[frames * stride if kernel >= stride else 0 :] = 0.0
    for columns, view in _stretches(result, frames, kernel, stride):
        view.addmm_(gradient, rows[:, columns], beta=float(columns.start > 0))
    return result


def _weight_gradient(gradient: Tensor, x: Tensor, kernel: int, stride: int) -> Tensor:
    """Of a kernel as :func:`_rows` arranges it, for the input ``x`` of the convolution."""
    return torch.cat([gradient.T @ view for _, view in _stretches(x, len(gradient), kernel, stride)], dim=1)
