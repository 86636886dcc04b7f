"""Letting gates act inside an encoder from outside, through PyTorch's hooks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robustdistiller.upstream import SpeechEncoder

#: A kind of units and the layer, from 0.
Key = tuple[str, int]
#: Gates, `(units,)` each.
Values = dict[Key, Tensor]


def attach(encoder: SpeechEncoder, values: Callable[[], Values]) -> list[RemovableHandle]:
    """Multiply the encoder's units with gates.

    - A conv channel's gate acts on the output of its layer, after norm and activation. Layer norms over channels take
      their statistics from the open channels, as they will when the others are gone. (DPHuBERT's take them from all,
      so that removing the closed ones changes what its models compute.)
    - A head's gate acts on its slice of the output projection's input, a feed-forward dimension's on the input of the
      second linear map. Where no unit is left the map's bias is silent too, as it goes with the units.
    - A layer's gate acts on the output of its attention or feed-forward part.

    Args:
        encoder: stays as it is but for its hooks.
        values: the gates of the current forward pass.

    Returns:
        Handles that take the hooks away.
    """
    handles = []
    for key in values():
        kind, index = key
        get = partial(lambda key: values()[key], key)
        if kind == "conv":
            conv = encoder.extractor.layers[index]
            handles.append(conv.register_forward_hook(partial(_scale_channels, get)))
            behind = encoder.feature_norm if conv is encoder.extractor.layers[-1] else None
            for norm in (conv.norm, behind):
                if isinstance(norm, nn.LayerNorm):
                    handles.append(norm.register_forward_hook(partial(_norm_open, get)))
            continue
        layer = encoder.transformer.layers[index]
        module = layer.attention.out_proj if kind in ("heads", "attention_layer") else layer.down
        if kind in ("heads", "ffn"):
            handles.append(module.register_forward_pre_hook(partial(_scale_input, get)))
            handles.append(module.register_forward_hook(partial(_silence_if_closed, get)))
        else:
            handles.append(module.register_forward_hook(partial(_scale_output, get)))
    return handles


def _scale_channels(gates: Callable[[], Tensor], module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output * gates().to(output.dtype)[:, None]  # (batch, channels, frames)


def _scale_input(gates: Callable[[], Tensor], module: nn.Module, inputs: tuple) -> tuple:
    x, *rest = inputs
    values = gates().to(x.dtype)
    return (x * values.repeat_interleave(x.shape[-1] // len(values)), *rest)


def _scale_output(gates: Callable[[], Tensor], module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output * gates().to(output.dtype)


def _silence_if_closed(gates: Callable[[], Tensor], module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output * (gates() > 0).any().to(output.dtype)


def _norm_open(gates: Callable[[], Tensor], norm: nn.LayerNorm, inputs: tuple, output: Tensor) -> Tensor:
    """Layer norm over the open channels; the closed ones are 0."""
    x, is_open = inputs[0].float(), (gates() > 0).float()
    number = is_open.sum().clamp(min=1)
    centred = (x - (x * is_open).sum(-1, keepdim=True) / number) * is_open
    variance = centred.square().sum(-1, keepdim=True) / number
    y = centred * (variance + norm.eps).rsqrt() * norm.weight + norm.bias
    return (y * is_open).to(output.dtype)
