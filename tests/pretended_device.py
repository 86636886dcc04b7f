"""A device that is not there: what a GPU asks of code, tried without one.

Within :func:`pretended`, tensors can be moved to ``DEVICE``. They are computed on the CPU, but refuse to meet tensors
of the CPU as those of a GPU do, and everything for which a GPU would have to be waited for is noted. To be used in a
process of its own, see :func:`call_with_device`: PyTorch keeps a device that it was told of.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from robustdistiller.common.process import call_apart
from tests.waiting import HANG_S

DEVICE = "pretended:0"
_REGISTER = "_setup_privateuseone_for_python_backend"

_aten = torch.ops.aten
_MOVES = {_aten._to_copy.default, _aten.copy_.default, _aten._local_scalar_dense.default}
#: Tensors of numbers beside the first may lie on the CPU: indices, lengths.
_INDEXED = {_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default}
_PACKED = {_aten._pack_padded_sequence.default, _aten._pack_padded_sequence_backward.default}
_ROOT = Path(__file__).parents[1]

_waits: list[str] = []


class Pretended(Tensor):
    """A tensor that says it is on `DEVICE`; its numbers are in `on_cpu`."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, on_cpu: Tensor) -> Pretended:
        """Of the same shape and layout."""
        layout = {"strides": on_cpu.stride(), "storage_offset": on_cpu.storage_offset(), "dtype": on_cpu.dtype}
        return Tensor._make_wrapper_subclass(cls, on_cpu.shape, device=DEVICE, **layout)

    def __init__(self, on_cpu: Tensor) -> None:
        self.on_cpu = on_cpu

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as a file that is read to the CPU has it."""
        return self.on_cpu.detach().__reduce_ex__(protocol)

    def tolist(self) -> Any:
        """Has to be waited for."""
        _wait()
        return self.on_cpu.tolist()

    def numpy(self, **_: Any) -> Any:
        """As of a GPU's tensor."""
        raise TypeError("numpy reads tensors of the CPU only")

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Computing(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})


class _Making(TorchFunctionMode):
    """`torch.tensor(..., device=...)` does not come to `_Computing`."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and _is_there(kwargs.get("device")):
            device = kwargs.pop("device")
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


class _Event:
    """What is asked for has always arrived."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...


def call_with_device(function: str, *arguments: Any) -> Any:
    """`call_apart` for a function of a test that uses :func:`pretended`; skipped where PyTorch cannot pretend."""
    if not hasattr(torch.utils.backend_registration, _REGISTER):
        pytest.skip(f"PyTorch {torch.__version__} has no torch.utils.backend_registration.{_REGISTER}")
    return call_apart(function, *arguments, environment={"PYTHONPATH": str(_ROOT)}, timeout_s=HANG_S)


@contextlib.contextmanager
def pretended() -> Iterator[list[str]]:
    """Within it the device is there; gives the places in our code where it was waited for, ``file.py:line`` each."""
    import torch._dynamo  # it looks at all of PyTorch when it is imported, and stumbles over what is replaced below

    if not hasattr(torch, DEVICE.partition(":")[0]):
        getattr(torch.utils.backend_registration, _REGISTER)(DEVICE.partition(":")[0])
        backend = type(torch.pretended)
        backend.get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
        backend.set_rng_state = staticmethod(lambda state, device=None: None)
        backend.get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])
    _waits.clear()
    with (
        # A module that moves gets new parameters; one that is there keeps them.
        mock.patch.object(torch, "_has_compatible_shallow_copy_type", lambda a, b: type(_data(a)) is type(_data(b))),
        mock.patch.object(torch, "Event", _Event),
        mock.patch.object(Tensor, "pin_memory", lambda tensor, device=None: tensor),
        _Computing(),
        _Making(),
    ):
        yield _waits


def fabric_there(accelerator: Any, devices: Any, strategy: Any, **options: Any) -> Any:
    """In the place of Lightning's `Fabric`: a run on the device."""
    from lightning_fabric import Fabric
    from lightning_fabric.accelerators import Accelerator
    from lightning_fabric.strategies import SingleDeviceStrategy

    class _Device(Accelerator):
        setup_device = teardown = lambda self, *_: None
        parse_devices = get_parallel_devices = staticmethod(lambda devices: [torch.device(DEVICE)])
        auto_device_count = staticmethod(lambda: 1)
        is_available = staticmethod(lambda: True)
        name = staticmethod(lambda: "pretended")

    return Fabric(accelerator=_Device(), devices=1, strategy=SingleDeviceStrategy(torch.device(DEVICE)), **options)


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    there = any(isinstance(one, Pretended) for one in tensors)
    if there:
        _check(function, args, tensors)
    goes_there = there
    if kwargs.get("device") is not None:
        goes_there = _is_there(kwargs["device"])
        if there and not goes_there and not kwargs.get("non_blocking"):
            _wait()
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if function is _aten._local_scalar_dense.default:
        goes_there = False
        if there:
            _wait()
    compute = _AS_ON_CPU.get(function, function)
    answer = compute(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
    if function is _aten.copy_.default:
        return args[0]
    if not goes_there:
        return answer
    if function is _aten._pack_padded_sequence.default:
        return Pretended(answer[0]), answer[1]
    answer = tree_map(lambda one: Pretended(one) if isinstance(one, Tensor) else one, answer)
    return return_and_correct_aliasing(function, args, kwargs, answer) if there else answer


def _check(function: Any, args: Any, tensors: list[Tensor]) -> None:
    if function in _MOVES or function in _PACKED:
        return
    if function in _INDEXED:
        tensors = [args[0], *args[2:3]]
    strangers = [one for one in tensors if isinstance(one, Tensor) and not isinstance(one, Pretended) and one.ndim]
    if strangers:
        shapes = ", ".join(f"{tuple(one.shape)} on {one.device}" for one in tensors)
        raise RuntimeError(f"{function}: expected all tensors on one device, found {shapes}")


def _wait() -> None:
    frames = [one for one in traceback.extract_stack() if Path(one.filename).is_relative_to(_ROOT)]
    ours = [one for one in frames if ".venv" not in one.filename and "tests" not in Path(one.filename).parts[-4:-1]]
    ours = [one for one in ours if Path(one.filename) != Path(__file__)]
    _waits.append(f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "")


def _data(tensor: Tensor) -> Tensor:
    return tensor.data if isinstance(tensor, torch.nn.Parameter) else tensor


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == torch.device(DEVICE).type


def _on_cpu(one: Any) -> Any:
    return one.on_cpu if isinstance(one, Pretended) else one


def _lstm_cell(
    ahead: Tensor, back: Tensor, cell: Tensor, bias: Tensor | None = None, other: Tensor | None = None
) -> tuple[Tensor, ...]:
    gates = ahead + back if bias is None else ahead + back + bias + other
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    new = f * cell + i * g
    return o * new.tanh(), new, torch.cat([i, f, g, o], 1)


def _lstm_cell_backward(
    of_hidden: Tensor | None, of_cell: Tensor | None, cell: Tensor, new: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor | None, ...]:
    i, f, g, o = gates.chunk(4, 1)
    bent = new.tanh()
    of_hidden = torch.zeros_like(new) if of_hidden is None else of_hidden
    of_cell = (torch.zeros_like(new) if of_cell is None else of_cell) + of_hidden * o * (1 - bent * bent)
    parts = of_cell * g * i * (1 - i), of_cell * cell * f * (1 - f), of_cell * i * (1 - g * g)
    of_gates = torch.cat([*parts, of_hidden * bent * o * (1 - o)], 1)
    return of_gates, of_cell * f, of_gates.sum(0) if has_bias else None


#: The kernels of a GPU that no CPU has.
_AS_ON_CPU = {
    _aten._thnn_fused_lstm_cell.default: _lstm_cell,
    _aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_backward,
}
