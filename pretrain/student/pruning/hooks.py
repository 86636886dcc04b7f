"""Letting gates act inside an encoder from outside, through PyTorch's hooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from robustdistiller.upstream import SpeechEncoder

#: Gates by kind and layer.
Values = dict[str, dict[int, Tensor]]


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

    >>> from robustdistiller.upstream import EncoderConfig
    >>> encoder = SpeechEncoder(EncoderConfig(num_layers=1, embed_dim=16, num_heads=2, ffn_dim=8, position_groups=4))
    >>> handles = attach(encoder.eval(), lambda: {"heads": {0: torch.zeros(2)}, "ffn": {0: torch.zeros(8)}})
    >>> layer = encoder.transformer.layers[0]
    >>> layer.down(torch.ones(1, 8)).abs().sum().item()
    0.0
    >>> for handle in handles: handle.remove()
    >>> layer.down(torch.ones(1, 8)).abs().sum().item() > 0
    True
    """
    handles = []
    gated = values()
    for index in gated.get("conv", {}):
        conv = encoder.extractor.layers[index]
        get = _getter(values, "conv", index)
        handles.append(conv.register_forward_hook(_scale_channels(get)))
        norm = encoder.feature_norm if index == len(encoder.config.conv_layers) - 1 else None
        for module in (conv.norm, norm):
            if isinstance(module, nn.LayerNorm):
                handles.append(module.register_forward_hook(_norm_open(get)))
    for index, layer in enumerate(encoder.transformer.layers):
        attention = None if layer.attention is None else layer.attention.out_proj
        for module, units, whole in ((attention, "heads", "attention_layer"), (layer.down, "ffn", "ffn_layer")):
            if index in gated.get(units, {}):
                get = _getter(values, units, index)
                handles.append(module.register_forward_pre_hook(_scale_input(get)))
                handles.append(module.register_forward_hook(_silence_if_closed(get)))
            if index in gated.get(whole, {}):
                handles.append(module.register_forward_hook(_scale_output(_getter(values, whole, index))))
    return handles


def _getter(values: Callable[[], Values], kind: str, layer: int) -> Callable[[], Tensor]:
    return lambda: values()[kind][layer]


def _scale_channels(gates: Callable[[], Tensor]) -> Callable:
    def hook(module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
        return output * gates().to(output.dtype)[:, None]  # (batch, channels, frames)

    return hook


def _scale_input(gates: Callable[[], Tensor]) -> Callable:
    def hook(module: nn.Module, arguments: tuple) -> tuple:
        x, *rest = arguments
        values = gates().to(x.dtype)
        return (x * values.repeat_interleave(x.shape[-1] // len(values)), *rest)

    return hook


def _scale_output(gates: Callable[[], Tensor]) -> Callable:
    def hook(module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
        return output * gates().to(output.dtype)

    return hook


def _silence_if_closed(gates: Callable[[], Tensor]) -> Callable:
    def hook(module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
        return output * (gates() > 0).any().to(output.dtype)

    return hook


def _norm_open(gates: Callable[[], Tensor]) -> Callable:
    """Layer norm over the open channels; the closed ones are 0."""

    def hook(norm: nn.LayerNorm, arguments: tuple, output: Tensor) -> Tensor:
        x, is_open = arguments[0].float(), (gates() > 0).float()
        number = is_open.sum().clamp(min=1)
        centred = (x - (x * is_open).sum(-1, keepdim=True) / number) * is_open
        variance = centred.square().sum(-1, keepdim=True) / number
        y = centred * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias
        return (y * is_open).to(output.dtype)

    return hook
