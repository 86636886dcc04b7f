"""What the unpickler builds itself: tensors, numpy arrays and plain containers, from arguments it does not trust."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

_MOST_DIMENSIONS = 64
#: Modules, and single functions, that have no place in data. Naming one is taken for an attack.
_HOSTILE = re.compile(
    r"""(_operator|_pickle|_posixsubprocess|_thread|asyncio|bdb|builtins|cffi|code|codeop|commands|ctypes|distutils
    |http|idlelib|imaplib|importlib|linecache|marshal|nt|operator|os|pdb|pickle|pip|pkgutil|posix|poplib|profile|pty
    |pydoc|requests|runpy|setuptools|shelve|shutil|site|smtplib|socket|sqlite3|ssl|subprocess|sys|tarfile|telnetlib
    |timeit|urllib|webbrowser|zipfile|zipimport)\.
    |(_io\.open|_io\.FileIO|io\.open|io\.FileIO|numpy\.load|torch\.load|torch\.serialization\.load|torch\.hub\.load
    |torch\.jit\.load|torch\.storage\._load_from_bytes|types\.CodeType|types\.FunctionType)$""",
    re.VERBOSE,
)
#: Types, also as torch.save's pickles spell them, those of Python 2: ``int`` is ``long``, ``range`` is ``xrange``.
_HARMLESS = re.compile(
    r"builtins\.(Ellipsis|bool|bytearray|bytes|complex|dict|float|frozenset|getattr|int|list|long|object|range|set"
    r"|slice|str|tuple|type|unicode|xrange)$"
)


class Named:
    """A class or function that a pickle names."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}, not built>"


class Builder(Named):
    """A name that stands for one of our own functions."""

    def __init__(self, name: str, build: Any):
        super().__init__(name)
        self.build = build


class Inert(Named):
    """Stands for an object of a class that is not needed, such as the ``argparse.Namespace`` in s3prl's checkpoints.

    Attributes:
        name: the class, as the file spells it.
        args: what the class was to be called with.
        state: what was to be put into the object.
        items: what was to be appended to it or set in it.
    """

    def __init__(self, name: str, args: tuple = ()):
        super().__init__(name)
        self.args = args
        self.state: Any = None
        self.items: list = []


def kind_of(value: Any) -> str:
    """What a value of a file is, for messages: its type, or the class that the file names.

    >>> kind_of([]), kind_of(Inert("torch.nn.modules.linear.Linear"))
    ('list', 'torch.nn.modules.linear.Linear')
    """
    return value.name if isinstance(value, Named) else type(value).__name__


class UnfinishedArray:
    """A numpy array whose description is still to come."""

    def finish(self, state: Any) -> np.ndarray:
        """The array that numpy's ``__setstate__`` would make of ``state``; a view of its bytes."""
        _, shape, dtype, fortran, data = state if isinstance(state, tuple) and len(state) == 5 else (None,) * 5
        if not isinstance(dtype, np.dtype) or not isinstance(data, (bytes, str)) or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("a numpy array is described in an unknown way")
        try:
            array = np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype)
            return array.reshape(shape, order="F" if fortran else "C")
        except (ValueError, TypeError) as error:
            raise pickle.UnpicklingError(f"a numpy array is damaged: {str(error)[:200]}") from error


def is_hostile(name: str) -> bool:
    """Whether only an attack would name this function or class.

    >>> is_hostile("posix.system"), is_hostile("argparse.Namespace")
    (True, False)
    """
    return bool(_HOSTILE.match(name)) and not _HARMLESS.match(name)


def is_natural(value: Any) -> bool:
    """Whether a number of a file can be a size or an offset."""
    return type(value) is int and 0 <= value < 1 << 62


def hashable(key: Any) -> Any:
    """``key`` if it is plain; deeper nesting could exhaust the interpreter's stack."""
    if isinstance(key, Named):
        return f"<{key.name}>"
    for part in key if isinstance(key, tuple) else (key,):
        if part is not None and not isinstance(part, (str, bytes, bool, int, float, Named)):
            raise pickle.UnpicklingError(f"a {type(part).__name__} is used as a key")
    return key


def ordered_dtype(dtype: np.dtype, state: Any) -> np.dtype:
    """``dtype`` in the byte order that numpy's ``__setstate__`` would give it.

    >>> ordered_dtype(np.dtype("i4"), (3, ">", None, None, None, -1, -1, 0)).byteorder
    '>'
    """
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
    if order not in ("<", ">", "=", "|"):
        raise pickle.UnpicklingError("a numpy type is described in an unknown way")
    return dtype.newbyteorder(order)


def _tensor(values: torch.Tensor | None, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor | None:
    """A view of a storage. One that would reach beyond it, or repeat what it holds, is refused."""
    if values is None:  # the pass that only looks for storages
        return None
    if not isinstance(size, tuple) or not isinstance(stride, tuple) or len(size) != len(stride):
        raise ValueError("sizes and strides of a tensor should be tuples of one length")
    if len(size) > _MOST_DIMENSIONS or not all(map(is_natural, (offset, *size, *stride))):
        raise ValueError("sizes, strides and offset of a tensor should be a few natural numbers")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if count and (last >= len(values) or count > len(values)):
        raise ValueError(f"a tensor of shape {size} needs more values than the {len(values)} of its storage")
    return values.as_strided(size, stride, offset)


def _dtype(code: Any, *_: Any) -> np.dtype:
    dtype = np.dtype(_text(code)) if len(_text(code)) < 8 else None
    if dtype is None or dtype.kind not in "biufcSU":
        raise ValueError("an unknown numpy type")
    return dtype


def _scalar(dtype: np.dtype, data: Any = b"") -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype)[0].item()


def _mapping(*args: Any) -> dict:
    first = args[0] if args else ()
    pairs = first.items() if isinstance(first, Mapping) else first if isinstance(first, (list, tuple)) else ()
    return {hashable(key): value for key, value in pairs}


def _sequence(kind: type) -> Callable:
    return lambda values=(): kind(values) if isinstance(values, (list, tuple, set, frozenset, dict)) else kind()


def _text(value: Any = "cpu", *_: Any) -> str:
    """``value`` if it is text. Anything else could be nested so that, written out, it takes all memory."""
    if type(value) is not str:
        raise ValueError(f"a {type(value).__name__} where text belongs")
    return value


def _encode(text: Any, encoding: Any = "latin1", *_: Any) -> bytes:
    return _text(text).encode(encoding if encoding in ("utf-8", "ascii") else "latin1")


def _parameter(value: torch.Tensor | None, *_: Any) -> torch.Tensor | None:
    return value


#: Names of pickles to what is built for them. What they take and give is counted by the unpickler.
BUILDERS: dict[str, Callable] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": _sequence(list),
    "builtins.tuple": _sequence(tuple),
    "builtins.set": lambda values=(): {hashable(value) for value in values},
    "builtins.frozenset": lambda values=(): frozenset(hashable(value) for value in values),
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _sequence(tuple),
    "torch.device": _text,
    "torch.serialization._get_layout": _text,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": lambda *_: UnfinishedArray(),
    "numpy.ndarray": lambda *_: UnfinishedArray(),
}
_STORAGES = {"Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64"}
_STORAGES |= {"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
_STORAGES |= {"ComplexFloat": "complex64", "ComplexDouble": "complex128"}
#: torch's storage classes, and its dtypes by their own name.
DTYPES = {f"{kind}Storage": getattr(torch, name) for kind, name in _STORAGES.items()}
DTYPES |= {name: getattr(torch, name) for name in _STORAGES.values()}
