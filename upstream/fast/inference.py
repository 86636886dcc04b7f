"""When the shortcuts on a CPU may be taken, and what they keep of the weights they are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn


def plain_numbers(module: nn.Module, x: Tensor) -> bool:
    """Whether nothing but the numbers of ``module(x)`` matters: float32 on a CPU, nothing that watches.

    Hooks on parts of the module, as pruning sets them, have to be run; what is compiled or exported has to be seen.

    >>> plain_numbers(nn.Linear(2, 2), torch.zeros(2)), plain_numbers(nn.Linear(2, 2), torch.zeros(2).double())
    (True, False)
    """
    weight = next(module.parameters())
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not is_watched(module)
    )


def plain_inference(module: nn.Module, x: Tensor) -> bool:
    """:func:`plain_numbers`, and no gradients are wanted.

    >>> plain_inference(nn.Linear(2, 2), torch.zeros(2))  # gradients are wanted
    False
    >>> with torch.no_grad():
    ...     plain_inference(nn.Linear(2, 2), torch.zeros(2))
    True
    """
    return not torch.is_grad_enabled() and plain_numbers(module, x)


_counting: ContextVar[bool] = ContextVar("counting", default=False)


@contextmanager
def no_shortcuts() -> Iterator[None]:
    """Within the block every layer runs as it is defined, so that its operations can be counted.

    >>> with no_shortcuts():
    ...     plain_numbers(nn.Linear(2, 2), torch.zeros(2))
    False
    """
    token = _counting.set(True)
    try:
        yield
    finally:
        _counting.reset(token)


def is_watched(module: nn.Module) -> bool:
    """Whether parts of ``module`` have hooks or are compiled, or PyTorch looks on to compile, to export or to count.

    >>> is_watched(nn.Linear(2, 2))
    False
    """
    parts = (part for part in module.modules() if part is not module)
    return (
        _counting.get()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or any(part._forward_hooks or part._forward_pre_hooks or part._compiled_call_impl is not None for part in parts)
    )


class Kept:
    """What was made of some weights, for as long as nothing writes to them. It is not copied and not saved.

    PyTorch counts what is written to a tensor, but not by fused optimizers nor through ``.data``: so some numbers of
    each weight are compared, too. An update of the weights moves them.

    >>> weight, kept = torch.ones(2), Kept()
    >>> kept.get([weight], lambda: weight.tolist())
    [1.0, 1.0]
    >>> weight[0] = 5.0
    >>> kept.get([weight], lambda: weight.tolist())
    [5.0, 1.0]
    """

    def __init__(self) -> None:
        self._weights: list[Tensor] = []
        self._versions: list[int] = []
        self._numbers: Tensor | None = None
        self._value: Any = None

    def get(self, weights: Iterable[Tensor], make: Callable[[], Any]) -> Any:
        """What ``make`` returns, called again only when one of ``weights`` is another tensor or was written to."""
        weights = list(weights)
        if any(weight.is_inference() for weight in weights):  # PyTorch does not count what is written to these
            return make()
        versions, numbers = [weight._version for weight in weights], _some_numbers(weights)
        known = versions == self._versions and torch.equal(numbers, self._numbers)
        if not known or any(not _same(a, b) for a, b in zip(weights, self._weights)):
            self._value, self._versions, self._numbers = make(), versions, numbers
            self._weights = [weight.detach() for weight in weights]  # kept: nothing else can come to lie there
        return self._value

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return Kept()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Kept, ()


def _some_numbers(weights: list[Tensor]) -> Tensor:
    """A few dozen of each weight, spread over it, the first one among them."""
    flat = [weight.detach().flatten() for weight in weights]
    return torch.cat([one[:: max(1, len(one) // 61)] for one in flat])


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()
