"""Networks without values: to know the shapes of a model, or to fill it with weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Model = TypeVar("Model", bound=nn.Module)


@contextmanager
def without_values() -> Iterator[None]:
    """Where modules are made on the device ``meta`` and nothing is drawn for them.

    On that device alone PyTorch would import its compiler for the numbers to be drawn, which are kept nowhere: that
    takes as long as importing PyTorch itself.

    >>> with without_values():
    ...     nn.Linear(512, 768).weight.is_meta
    True
    """
    with torch.device("meta"), _NothingDrawn():
        yield


def fill(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """Give a model that was made without values copies of these weights, on the default device.

    No random number is drawn, as it would be for a model with values: the global generators stay as they are.

    Args:
        model: its modules have a method ``reset_buffers`` if they have buffers that no state dict holds.
        weights: its state dict, on any device; the copies have the types that the model was made with.

    Returns:
        The model.

    Raises:
        RuntimeError: the weights do not fit.

    >>> with without_values():
    ...     model = nn.Linear(2, 1)
    >>> fill(model, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)})(torch.ones(2)).item()
    2.0
    """
    device = torch.get_default_device()
    types = {name: value.dtype for name, value in model.state_dict().items()}
    copies = {
        name: value.to(device, types.get(name), copy=True, memory_format=torch.contiguous_format)
        for name, value in weights.items()
    }
    nn.Module.load_state_dict(model, copies, assign=True)
    for module in model.modules():
        reset: Any = getattr(module, "reset_buffers", None)
        if reset is not None:
            reset()
    return model


#: What draws numbers for a module that is made.
_DRAWS: Any = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


class _NothingDrawn(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if function in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        if function is torch.norm_except_dim:  # of a weight norm
            weight, _, kept = args
            return weight.new_empty([size if dim == kept else 1 for dim, size in enumerate(weight.shape)])
        return function(*args, **(kwargs or {}))
