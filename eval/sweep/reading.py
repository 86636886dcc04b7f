"""Plain data to dataclasses, strictly: unknown keys are refused with the nearest known one, types are checked."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class SweepError(ValueError):
    """A sweep cannot run as it is written; the message is one sentence."""


def read(cls: type[T], data: Any, where: str = "") -> T:
    """Build a dataclass from what YAML gives.

    A dataclass may say with a class method ``from_text`` how it is written as a single word.

    Args:
        cls: the dataclass; its fields may be scalars, lists, dictionaries, dataclasses and unions with None.
        data: mapping of field names to values.
        where: dotted position in the file, for messages.

    Raises:
        SweepError: an unknown or missing key, or a value of the wrong type.

    Example:
        >>> @dataclasses.dataclass
        ... class Bag:
        ...     size: int
        ...     weights: list[float] = dataclasses.field(default_factory=list)
        >>> read(Bag, {"size": 3, "weights": [1, "1e-3"]})
        Bag(size=3, weights=[1.0, 0.001])
        >>> read(Bag, {"sise": 3})
        Traceback (most recent call last):
        robustdistiller.eval.sweep.reading.SweepError: unknown key 'sise', nearest: size; there are size, weights
    """
    if isinstance(data, str) and hasattr(cls, "from_text"):
        return cls.from_text(data)
    if not isinstance(data, Mapping):
        raise SweepError(f"{where or 'the file'} must be a mapping of keys to values, found {data!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in data:
        if key not in fields:
            raise SweepError(unknown_key(f"{where}.{key}" if where else str(key), str(key), fields))
    kinds = typing.get_type_hints(cls)
    values = {key: _value(kinds[key], value, f"{where}.{key}" if where else key) for key, value in data.items()}
    for name, field in fields.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not has_default:
            raise SweepError(f"{where + ': ' if where else ''}{name} is missing")
    return cls(**values)


def unknown_key(shown: str, key: str, known: typing.Iterable[str]) -> str:
    """The sentence for a key that does not exist.

    Example:
        >>> unknown_key("executor.workes", "workes", ["workers", "kind"])
        "unknown key 'executor.workes', nearest: workers; there are workers, kind"
    """
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    nearest = f", nearest: {near[0]}" if near else ""
    return f"unknown key {shown!r}{nearest}; there are {', '.join(known)}"


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inside:
            return None
        (kind,) = [one for one in inside if one is not type(None)]
        return _value(kind, value, where)
    if origin is list:
        if not isinstance(value, list):
            raise SweepError(f"{where} must be a list, found {value!r}")
        return [_value(inside[0], one, f"{where}[{index}]") for index, one in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise SweepError(f"{where} must be a mapping of keys to values, found {value!r}")
        return {str(key): _value(inside[1], one, f"{where}.{key}") for key, one in value.items()}
    if dataclasses.is_dataclass(kind):
        return read(kind, value, where)
    if kind is Any:
        return value
    if kind is float:  # YAML reads 1e-3 as text
        try:
            return float(value) if not isinstance(value, bool) else _wrong(kind, value, where)
        except (TypeError, ValueError):
            _wrong(kind, value, where)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        _wrong(kind, value, where)
    return value


def _wrong(kind: type, value: Any, where: str) -> typing.NoReturn:
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
    raise SweepError(f"{where} must be {names.get(kind, kind)}, found {value!r}")
