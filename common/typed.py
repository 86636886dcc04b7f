"""What is where in a dataclass of dataclasses, and values in the spelling that their types ask for."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union

from robustdistiller.common.written import Written, is_number, to_plain

Location = tuple[str | int, ...]

_UNIONS = (Union, types.UnionType)


def keys(cls: type, prefix: str = "") -> list[str]:
    """The dotted keys of a dataclass and of those within it.

    Example:
        >>> @dataclasses.dataclass
        ... class Run:
        ...     seed: int = 0
        >>> keys(Run)
        ['seed']
    """
    found = []
    for name, kind in fields_of(cls).items():
        inner = dataclass_in(kind)
        found += keys(inner, f"{prefix}{name}.") if inner else [prefix + name]
    return found


@functools.cache
def fields_of(cls: type) -> dict[str, Any]:
    """The fields that a dataclass is built from, with their types.

    Example:
        >>> @dataclasses.dataclass
        ... class Run:
        ...     seed: int = 0
        >>> fields_of(Run)
        {'seed': <class 'int'>}
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def choices_of(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself.

    Example:
        >>> choices_of(int | None), choices_of(int)
        ((<class 'int'>, <class 'NoneType'>), (<class 'int'>,))
    """
    if typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in _UNIONS:
        return tuple(choice for member in typing.get_args(kind) for choice in choices_of(member))
    return (kind,)


def dataclass_in(kind: Any) -> type | None:
    """The dataclass that a value of this type, or each item of it, is; None where there is none.

    Example:
        >>> dataclass_in(list[int] | None) is None
        True
    """
    for choice in choices_of(kind):
        if typing.get_origin(choice) in (list, tuple):
            return dataclass_in(typing.get_args(choice)[0])
        if dataclasses.is_dataclass(choice):
            return choice
    return None


def kind_at(kind: Any, path: Location) -> Any:
    """The type of what is at a location within a type; ``Any`` where there is nothing.

    Example:
        >>> kind_at(dict[str, list[int]], ("sizes", 3))
        <class 'int'>
    """
    for part in path:
        for choice in choices_of(kind):
            inside = typing.get_args(choice)
            if isinstance(part, int) and typing.get_origin(choice) in (list, tuple):
                kind = inside[min(part, len(inside) - 1)] if inside[-1] is not Ellipsis else inside[0]
                break
            if isinstance(part, str) and dataclasses.is_dataclass(choice):
                kind = fields_of(choice).get(part, Any)
                break
            if isinstance(part, str) and typing.get_origin(choice) is dict:
                kind = inside[1]
                break
        else:
            return Any
    return kind


def fit(kind: Any, value: Any) -> Any:
    """A value in the spelling that its type asks for; what does not fit stays as it is, for pydantic to refuse.

    Example:
        >>> fit(tuple[float, ...], "2e-4")
        [0.0002]
    """
    choices = choices_of(kind)
    if len(choices) > 1:
        if types.NoneType in choices and (value is None or (isinstance(value, Written) and value.value is None)):
            return None
        choices = tuple(choice for choice in choices if choice is not types.NoneType)
        kind = next((choice for choice in choices if _takes(choice, value)), choices[-1])
        is_word = isinstance(value, str) and not isinstance(value, Written)
        if is_word and any(typing.get_origin(choice) is Literal for choice in choices) and kind is not str:
            return value  # not one of the words; a list of it would only hide that
        return fit(kind, value)
    (kind,) = choices
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _fit_fields(kind, value)
    if origin in (list, tuple):
        items = value if isinstance(value, list | tuple) else [value]
        return [fit(kind_at(kind, (index,)), item) for index, item in enumerate(items)]
    if origin is dict and isinstance(value, Mapping):
        return {str(key): fit(inside[1], item) for key, item in value.items()}
    if kind is str or origin is Literal:
        return _fit_text(value) if kind is str or value in inside else to_plain(value)
    value = to_plain(value)
    if kind is float and isinstance(value, str):  # YAML 1.1 takes 2e-4, without a point, for text
        try:
            return float(value)
        except ValueError:
            return value
    return int(value) if kind is int and isinstance(value, float) and value.is_integer() else value


def _fit_fields(cls: type, value: Any) -> Any:
    value = to_plain(value) if dataclasses.is_dataclass(value) else value
    if is_number(value) and "weight" in fields_of(cls):  # objectives.l1=1 means its weight
        value = {"weight": value}
    elif isinstance(value, str) and hasattr(cls, "short_form"):
        value = {cls.short_form: value}
    if not isinstance(value, Mapping):
        return to_plain(value)
    return {str(key): fit(fields_of(cls).get(str(key), Any), item) for key, item in value.items()}


def _fit_text(value: Any) -> Any:
    if isinstance(value, Written):
        return str(value)
    return str(value) if is_number(value) else to_plain(value)


def _takes(kind: Any, value: Any) -> bool:
    """Whether a member of a union is the one that a value is meant for."""
    origin = typing.get_origin(kind)
    if origin is Literal:
        return isinstance(value, str | int) and value in typing.get_args(kind)
    return isinstance(value, list | tuple) == (origin in (list, tuple))
