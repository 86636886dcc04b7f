"""A pickle reader that builds data and nothing else.

Tensors, plain containers, numbers, text and numpy arrays become themselves. An object of any other class becomes an
:class:`Inert` holder of what the file says about it; no class or function that a file names is imported or called. A
file that names something only an attack would name, such as ``os.system``, is refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch

#: Modules, and single functions, that have no place in data. Naming one is taken for an attack.
_HOSTILE = re.compile(
    r"""(_operator|_pickle|_posixsubprocess|_thread|asyncio|bdb|builtins|cffi|code|codeop|commands|ctypes|distutils
    |http|idlelib|imaplib|importlib|linecache|marshal|nt|operator|os|pdb|pickle|pip|pkgutil|posix|poplib|profile|pty
    |pydoc|requests|runpy|setuptools|shelve|shutil|site|smtplib|socket|sqlite3|ssl|subprocess|sys|tarfile|telnetlib
    |timeit|urllib|webbrowser|zipfile|zipimport)\.
    |(_io\.open|_io\.FileIO|io\.open|io\.FileIO|numpy\.load|torch\.load|torch\.serialization\.load|torch\.hub\.load|torch\.jit\.load
    |torch\.storage\._load_from_bytes|types\.CodeType|types\.FunctionType)$""",
    re.VERBOSE,
)
_HARMLESS = re.compile(
    r"builtins\.(bool|bytearray|bytes|complex|dict|float|frozenset|getattr|int|list|object|set|slice|str|tuple)$"
)
_LONGEST_NAME = 200
_REFUSED = (pickle.BYTEARRAY8, pickle.PERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4)
_REFUSED += (pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)


class HostilePickle(ValueError):
    """The file asks for a function to be called that has no place in a checkpoint."""


class Inert:
    """Stands for an object of a class that is not needed, such as the ``argparse.Namespace`` in s3prl's checkpoints.

    Attributes:
        name: the class, as the file spells it.
        args: what the class was to be called with.
        state: what was to be put into the object.
        items: what was to be appended to it or set in it.
    """

    def __init__(self, name: str, args: tuple = ()):
        self.name, self.args, self.state, self.items = name, args, None, []

    def __repr__(self) -> str:
        return f"<{self.name}, not built>"


class _Named:
    """A class or function that the file names."""

    def __init__(self, name: str):
        self.name = name


class _Builder(_Named):
    """A name that stands for one of our own functions."""

    def __init__(self, name: str, build: Callable):
        super().__init__(name)
        self.build = build


class Unpickler(pickle._Unpickler):
    """Reads one pickle from ``file``; see the module's description.

    Args:
        file: anything with ``read`` and ``readline`` that never returns more than it has.
        storage: makes a one-dimensional tensor from what torch says about a storage: dtype, key and number of values.

    Attributes:
        named: every class and function, other than those of tensors and containers, that was met.

    >>> import datetime, io
    >>> Unpickler(io.BytesIO(pickle.dumps({"scale": [1.5, 2], "span": datetime.timedelta(1)}))).load()
    {'scale': [1.5, 2], 'span': <datetime.timedelta, not built>}
    >>> Unpickler(io.BytesIO(pickle.dumps(print))).load()  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    HostilePickle: it names builtins.print, which is code, not data
    """

    def __init__(self, file: Any, storage: Callable[[torch.dtype, str, int], torch.Tensor | None] | None = None):
        super().__init__(file, encoding="latin1")
        self.storage = storage
        self.named: set[str] = set()

    def find_class(self, module: str, name: str) -> _Named:
        """The builder of a known name, or an inert stand-in. Imports nothing.

        Raises:
            HostilePickle: the name is that of a dangerous function.
        """
        module = _MODERN.get(module, module)
        full = f"{module}.{name}"
        if full in _BUILDERS:
            return _Builder(full, _BUILDERS[full])
        if module == "torch" and (dtype := _DTYPES.get(name)) is not None:
            return _Builder(full, dtype)
        if _HOSTILE.match(full) and not _HARMLESS.match(full):
            raise HostilePickle(f"it names {full[:_LONGEST_NAME]}, which is code, not data")
        self.named.add(full[:_LONGEST_NAME])
        return _Named(full)

    def persistent_load(self, pid: Any) -> torch.Tensor | None:
        """A storage, described as torch does: ``("storage", type, key, device, values[, view])``."""
        if self.storage is None or not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise pickle.UnpicklingError("it refers to something outside of it that is not a tensor's storage")
        kind, key, count = pid[1], pid[2], pid[4]
        dtype = kind.build if isinstance(kind, _Builder) else None
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or not _natural(count):
            raise pickle.UnpicklingError(f"storage {str(key)[:_LONGEST_NAME]!r} is described in an unknown way")
        values = self.storage(dtype, key, count)
        if len(pid) == 6 and pid[5] is not None and values is not None:
            view = pid[5]
            if not (isinstance(view, tuple) and len(view) == 3 and _natural(view[1]) and _natural(view[2])):
                raise pickle.UnpicklingError(f"storage {key!r} has a view that is described in an unknown way")
            values = values[view[1] : view[1] + view[2]]
        return values

    # The opcodes that would call, build or fill an object. Everything else only makes plain data.

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(args, tuple):
            raise pickle.UnpicklingError("it calls something without a tuple of arguments")
        if isinstance(function, _Builder) and callable(function.build):
            try:
                return function.build(*args)
            except (TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
                raise pickle.UnpicklingError(f"{function.name} got unusable arguments: {error}") from error
        if isinstance(function, _Named):
            name = function.name
            if name == "copyreg._reconstructor" and args and isinstance(args[0], _Named):
                name = args[0].name
            return Inert(name, args)
        raise pickle.UnpicklingError(f"it calls a {type(function).__name__}, which is data, not a class")

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def load_newobj(self) -> None:
        self.load_reduce()

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
        elif isinstance(target, _Array):
            self.stack[-1] = target.finish(state)
        elif not isinstance(target, (dict, set, torch.Tensor, np.dtype)):  # attributes of those are not data
            raise pickle.UnpicklingError(f"it sets attributes of a {type(target).__name__}")

    def load_append(self) -> None:
        value = self.stack.pop()
        self._fill(self.stack[-1], [value])

    def load_appends(self) -> None:
        values = self.pop_mark()
        self._fill(self.stack[-1], values)

    def load_additems(self) -> None:
        self.load_appends()

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def load_setitems(self) -> None:
        values = self.pop_mark()
        self._set(self.stack[-1], values)

    def _fill(self, target: Any, values: list) -> None:
        if isinstance(target, Inert):
            target = target.items
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(map(_hashable, values))
        else:
            raise pickle.UnpicklingError(f"it appends to a {type(target).__name__}")

    def _set(self, target: Any, values: list) -> None:
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Inert):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update((_hashable(key), value) for key, value in pairs)
        else:
            raise pickle.UnpicklingError(f"it sets items of a {type(target).__name__}")

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(self.stack[-1], items)

    def load_frozenset(self) -> None:
        self.append(frozenset(map(_hashable, self.pop_mark())))

    def load_binpersid(self) -> None:
        self.append(self.persistent_load(self.stack.pop()))

    def load_refused(self) -> None:
        raise pickle.UnpicklingError("it uses a part of pickle that checkpoints do not need")

    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.OBJ[0]: load_obj,
        pickle.INST[0]: load_inst,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.ADDITEMS[0]: load_additems,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.DICT[0]: load_dict,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BINPERSID[0]: load_binpersid,
        # A claimed length would be allocated before it is read; the registry maps numbers to classes.
        **dict.fromkeys(b"".join(_REFUSED), load_refused),
    }


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _hashable(key: Any) -> Any:
    """``key`` if it is plain; deeper nesting could exhaust the interpreter's stack."""
    if isinstance(key, (Inert, _Named)):
        return f"<{key.name}>"
    for part in key if isinstance(key, tuple) else (key,):
        if part is not None and not isinstance(part, (str, bytes, bool, int, float, Inert, _Named)):
            raise pickle.UnpicklingError(f"a {type(part).__name__} is used as a key")
    return key


def _tensor(values: torch.Tensor | None, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor | None:
    """A view of a storage. One that would reach beyond it, or repeat what it holds, is refused."""
    if values is None:  # the pass that only looks for storages
        return None
    size, stride = tuple(size), tuple(stride)
    if len(size) != len(stride) or not all(map(_natural, (offset, *size, *stride))):
        raise ValueError(f"sizes {size}, strides {stride}, offset {offset}")
    count = int(np.prod([int(n) for n in size], dtype=object)) if size else 1
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if count and (last >= len(values) or count > len(values)):
        raise ValueError(f"a tensor of shape {size} needs more values than the {len(values)} of its storage")
    return values.as_strided(size, stride, offset)


class _Array:
    """A numpy array whose description is still to come."""

    def finish(self, state: Any) -> np.ndarray:
        _, shape, dtype, fortran, data = state if isinstance(state, tuple) and len(state) == 5 else (None,) * 5
        if not isinstance(dtype, np.dtype) or not isinstance(data, (bytes, str)) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("a numpy array is described in an unknown way")
        data = data.encode("latin1") if isinstance(data, str) else data
        try:
            return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
        except ValueError as error:
            raise pickle.UnpicklingError(f"a numpy array is damaged: {error}") from error


def _dtype(code: str, *_: Any) -> np.dtype:
    dtype = np.dtype(code) if isinstance(code, str) and len(code) < 8 else None
    if dtype is None or dtype.kind not in "biufcSU":
        raise ValueError(f"numpy type {str(code)[:_LONGEST_NAME]!r}")
    return dtype


def _scalar(dtype: np.dtype, data: Any = b"") -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype)[0].item()


def _mapping(*args: Any) -> dict:
    first = args[0] if args else ()
    pairs = first.items() if isinstance(first, Mapping) else first if isinstance(first, (list, tuple)) else ()
    return {_hashable(key): value for key, value in pairs}


def _sequence(kind: type) -> Callable:
    return lambda values=(): kind(values) if isinstance(values, (list, tuple, set, frozenset, dict)) else kind()


def _encode(text: str, encoding: str = "latin1", *_: Any) -> bytes:
    return text.encode("latin1" if encoding not in ("utf-8", "ascii") else encoding)


def _parameter(value: torch.Tensor | None, *_: Any) -> torch.Tensor | None:
    return value


_MODERN = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
}
_BUILDERS: dict[str, Callable] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": _sequence(list),
    "builtins.tuple": _sequence(tuple),
    "builtins.set": lambda values=(): {_hashable(value) for value in values},
    "builtins.frozenset": lambda values=(): frozenset(_hashable(value) for value in values),
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _sequence(tuple),
    "torch.device": lambda kind="cpu", *_: str(kind),
    "torch.serialization._get_layout": str,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": lambda *_: _Array(),
    "numpy.ndarray": lambda *_: _Array(),
}
_STORAGES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64"}
_STORAGES |= {"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
_STORAGES |= {"ComplexFloat": "complex64", "ComplexDouble": "complex128"}
#: torch's storage classes, and its dtypes by their own name.
_DTYPES = {f"{kind}Storage": getattr(torch, name) for kind, name in _STORAGES.items()}
_DTYPES |= {name: getattr(torch, name) for name in _STORAGES.values()}
