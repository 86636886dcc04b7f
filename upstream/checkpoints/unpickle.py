"""A pickle reader that builds data and nothing else.

Tensors, plain containers, numbers, text and numpy arrays become themselves. An object of any other class becomes an
:class:`~robustdistiller.upstream.checkpoints.builders.Inert` holder of what the file says about it; no class or
function that a file names is imported or called. A file that names something only an attack would name, such as
``os.system``, is refused. What is built is counted, so that a small file cannot take much memory.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch

from robustdistiller.upstream.checkpoints.builders import (
    BUILDERS,
    DTYPES,
    Builder,
    Inert,
    Named,
    UnfinishedArray,
    hashable,
    is_hostile,
    is_natural,
    ordered_dtype,
)

_MODERN = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core.multiarray": "numpy.core.multiarray"}
_LONGEST_NAME = 200
_LEAST_BYTES = 1 << 26
#: Bytes of memory that the opcodes of a byte or two take.
_COST = {pickle.EMPTY_LIST: 64, pickle.EMPTY_DICT: 64, pickle.EMPTY_SET: 216, pickle.MEMOIZE: 100, pickle.BINPUT: 100}
_COST |= {pickle.LONG_BINPUT: 100, pickle.TUPLE1: 56, pickle.TUPLE2: 64, pickle.TUPLE3: 72, pickle.TUPLE: 64}
_COST |= {pickle.LIST: 64, pickle.DICT: 64, pickle.FROZENSET: 216, pickle.REDUCE: 200, pickle.NEWOBJ: 200}
_COST |= {pickle.OBJ: 200, pickle.INST: 400, pickle.GLOBAL: 400, pickle.STACK_GLOBAL: 400}
_REFUSED = (
    *(pickle.BYTEARRAY8, pickle.PERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)


class HostilePickle(ValueError):
    """The file asks for a function to be called that has no place in a checkpoint."""


class Unpickler(pickle._Unpickler):
    """Reads one pickle from ``file``; see the module's description.

    Args:
        file: anything with ``read`` and ``readline`` that never returns more than it has.
        storage: makes a one-dimensional tensor from what torch says about a storage: dtype, key and number of values.
        memory: bytes that may be taken besides what is read; at least 64 MiB.

    Attributes:
        named: every class and function, other than those of tensors and containers, that was met.

    >>> import datetime, io
    >>> Unpickler(io.BytesIO(pickle.dumps({"scale": [1.5, 2], "span": datetime.timedelta(1)}))).load()
    {'scale': [1.5, 2], 'span': <datetime.timedelta, not built>}
    >>> Unpickler(io.BytesIO(pickle.dumps(print))).load()  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    HostilePickle: it names builtins.print, which is code, not data
    """

    # Of pickle's reader in Python, whose types are those of the one in C.
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    readline: Callable[[], bytes]

    def __init__(
        self,
        file: Any,
        storage: Callable[[torch.dtype, str, int], torch.Tensor | None] | None = None,
        memory: int = 0,
    ):
        super().__init__(file, encoding="latin1")
        self.storage, self.left = storage, max(memory, _LEAST_BYTES)
        self.named: set[str] = set()

    def spend(self, size: int) -> None:
        """Count ``size`` bytes of memory."""
        self.left -= size
        if self.left < 0:
            raise pickle.UnpicklingError("it would take far more memory than it is large")

    def find_class(self, module: str, name: str) -> Named:
        """The builder of a known name, or an inert stand-in. Imports nothing.

        Raises:
            HostilePickle: the name is that of a dangerous function.
        """
        if len(module) + len(name) > _LONGEST_NAME:
            raise pickle.UnpicklingError(f"it names something with more than {_LONGEST_NAME} letters")
        module = _MODERN.get(module, module)
        full = f"{module}.{name}"
        if full in BUILDERS:
            return Builder(full, BUILDERS[full])
        if module == "torch" and (dtype := DTYPES.get(name)) is not None:
            return Builder(full, dtype)
        if is_hostile(full):
            raise HostilePickle(f"it names {full}, which is code, not data")
        self.named.add(full)
        return Named(full)

    def persistent_load(self, pid: Any) -> torch.Tensor | None:
        """A storage, described as torch does: ``("storage", type, key, device, values[, view])``."""
        if self.storage is None or not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something outside of it that is not a tensor's storage")
        kind, key, count, view = pid[1], pid[2], pid[4], pid[5] if len(pid) == 6 else None
        dtype = kind.build if isinstance(kind, Builder) else None
        named = isinstance(key, str) and len(key) <= _LONGEST_NAME
        if not isinstance(dtype, torch.dtype) or not named or not is_natural(count):
            raise pickle.UnpicklingError("a storage is described in an unknown way")
        values = self.storage(dtype, key, count)
        if view is not None and values is not None:
            if not (isinstance(view, tuple) and len(view) == 3 and is_natural(view[1]) and is_natural(view[2])):
                raise pickle.UnpicklingError(f"storage {key!r} has a view that is described in an unknown way")
            values = values[view[1] : view[1] + view[2]]
        return values

    # The opcodes that would call, build or fill an object. Everything else only makes plain data.

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(args, tuple):
            raise pickle.UnpicklingError("it calls something without a tuple of arguments")
        if isinstance(function, Builder) and callable(function.build):
            try:
                built = function.build(*args)
            except (TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
                raise pickle.UnpicklingError(
                    f"{function.name} got unusable arguments: {str(error)[:_LONGEST_NAME]}"
                ) from error
            self.spend(sys.getsizeof(built))
            return built
        if isinstance(function, Named) and not isinstance(function, Inert):
            name = function.name
            if name == "copyreg._reconstructor" and args and isinstance(args[0], Named):
                name = args[0].name
            return Inert(name, args)
        raise pickle.UnpicklingError(f"it calls a {type(function).__name__}, which is data, not a class")

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def load_newobj_ex(self) -> None:
        self.stack.pop()  # keyword arguments
        self.load_reduce()

    def load_obj(self) -> None:
        args = self.pop_mark()
        self.append(self._call(args[0] if args else None, tuple(args[1:])))

    def load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii", "replace") for _ in range(2))
        self.append(self._call(self.find_class(module, name), tuple(self.pop_mark())))

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif isinstance(target, UnfinishedArray):
            self.stack[-1] = array = target.finish(state)
            self.spend(array.nbytes)
        elif isinstance(target, np.dtype):
            self.stack[-1] = ordered_dtype(target, state)
        elif not isinstance(target, (dict, set, torch.Tensor)):  # attributes of those are not data
            raise pickle.UnpicklingError(f"it sets attributes of a {type(target).__name__}")

    def load_append(self) -> None:
        value = self.stack.pop()
        self._fill(self.stack[-1], [value])

    def load_appends(self) -> None:
        values = self.pop_mark()
        self._fill(self.stack[-1], values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        values = self.pop_mark()
        self._set(self.stack[-1], values)

    def _fill(self, target: Any, values: list) -> None:
        target = target.items if isinstance(target, Inert) else target
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(map(hashable, values))
        else:
            raise pickle.UnpicklingError(f"it appends to a {type(target).__name__}")

    def _set(self, target: Any, values: list) -> None:
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Inert):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update((hashable(key), value) for key, value in pairs)
        else:
            raise pickle.UnpicklingError(f"it sets items of a {type(target).__name__}")

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(self.stack[-1], items)

    def load_frozenset(self) -> None:
        self.append(frozenset(map(hashable, self.pop_mark())))

    def load_binpersid(self) -> None:
        self.append(self.persistent_load(self.stack.pop()))

    def load_refused(self) -> None:
        raise pickle.UnpicklingError("it uses a part of pickle that checkpoints do not need")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.OBJ[0]: load_obj,
        pickle.INST[0]: load_inst,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.ADDITEMS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BINPERSID[0]: load_binpersid,
        # A claimed length would be allocated before it is read; the registry maps numbers to classes.
        **dict.fromkeys(b"".join(_REFUSED), load_refused),
    }


def _counted(load: Callable[[Any], None], size: int) -> Callable[[Unpickler], None]:
    def counted(self: Unpickler) -> None:
        self.spend(size)
        load(self)

    return counted


Unpickler.dispatch.update({code[0]: _counted(Unpickler.dispatch[code[0]], size) for code, size in _COST.items()})
