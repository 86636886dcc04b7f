"""Typed settings from plain mappings: nested dataclasses, YAML values, dotted overrides, and errors that name the key.

Nothing here knows about distillation. A mapping becomes a dataclass with `build`, a dataclass becomes a JSON-able
mapping with `to_plain`, and every refusal says which key was wrong, what was found and what is accepted.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

import yaml

T = TypeVar("T")


class SettingsError(ValueError):
    """A key or value of the settings is not accepted; the message is complete on its own."""


class UnknownKeyError(SettingsError):
    """There is no such key.

    Attributes:
        name: the last part of it.
    """

    def __init__(self, message: str, name: str):
        super().__init__(message)
        self.name = name


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at what was meant: the nearest known word, or the list of known words.

    >>> nearest("sede", ["seed", "out_dir"])
    "did you mean 'seed'?"
    >>> nearest("zzz", ["seed", "out_dir"])
    'known: out_dir, seed'
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)


def build(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build dataclass `cls` from nested plain values.

    Args:
        cls: a dataclass whose fields are annotated with builtin types, `Literal`, `X | None`, `list[X]`,
            `tuple[X, ...]` or further dataclasses.
        values: keys are field names; fields left out keep their defaults.
        prefix: dotted path of this mapping, used in messages.

    Raises:
        UnknownKeyError: an unknown key, with the nearest known one.
        SettingsError: a value of the wrong type.

    >>> @dataclasses.dataclass
    ... class Optim:
    ...     lr: float = 1e-3
    >>> build(Optim, {"lr": "2e-4"})
    Optim(lr=0.0002)
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"{prefix.rstrip('.') or 'settings'}: expected keys and values, found {values!r}")
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for key in values:
        if key not in known:
            name = str(key)
            raise UnknownKeyError(f"unknown key {prefix + name!r}: {nearest(name, known)}", name)
    converted = {key: _convert(hints[key], value, prefix + key) for key, value in values.items()}
    try:
        return cls(**converted)
    except ValueError as error:  # the dataclass's own checks
        raise SettingsError(f"{prefix.rstrip('.') or 'settings'}: {error}") from error


def _convert(kind: Any, value: Any, key: str) -> Any:
    """`value` as `kind`, or a SettingsError that names `key`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        choices = [argument for argument in arguments if argument is not type(None)]
        for choice in choices[:-1]:
            try:
                return _convert(choice, value, key)
            except SettingsError:
                continue
        return _convert(choices[-1], value, key)
    if origin is Literal:
        if value in arguments:
            return value
        raise SettingsError(f"{key}: found {value!r}, expected one of " + ", ".join(map(repr, arguments)))
    if dataclasses.is_dataclass(kind):
        if _is_number(value) and any(one.name == "weight" for one in dataclasses.fields(kind)):
            value = {"weight": value}  # `objectives.l1=1` means its weight
        return value if isinstance(value, kind) else build(kind, value, prefix=key + ".")
    if origin in (list, tuple):
        return _convert_sequence(origin, arguments, value, key)
    if origin is dict or kind is dict:
        if isinstance(value, Mapping):
            return dict(value)
    elif kind is bool:
        if isinstance(value, bool):
            return value
    elif kind in (int, float):
        return _convert_number(kind, value, key)
    elif kind is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise SettingsError(f"{key}: found {value!r}, expected {_name(kind)}")


def _convert_sequence(origin: type, arguments: tuple, value: Any, key: str) -> Any:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        value = [value]  # `data.noise=musan/noise` means a list of one
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise SettingsError(f"{key}: found {list(value)!r}, expected {len(arguments)} values")
        return tuple(_convert(kind, item, key) for kind, item in zip(arguments, value))
    kind = arguments[0] if arguments else Any
    return origin(_convert(kind, item, key) for item in value)


def _convert_number(kind: type, value: Any, key: str) -> Any:
    if isinstance(value, str) and kind is float:
        try:  # YAML 1.1 reads `2e-4`, without a point, as a string
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and kind(value) == value:
        return kind(value)
    raise SettingsError(f"{key}: found {value!r}, expected {_name(kind)}")


def _name(kind: Any) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(kind, str(kind))


def to_plain(value: Any) -> Any:
    """The JSON-able form of a dataclass (tuples become lists), nested.

    >>> @dataclasses.dataclass
    ... class Optim:
    ...     betas: tuple[float, float] = (0.9, 0.98)
    >>> to_plain(Optim())
    {'betas': [0.9, 0.98]}
    """
    if dataclasses.is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to dotted keys.

    >>> flatten({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `top` laid over it, key by key, nested; neither argument is changed.

    A number beside a mapping is the mapping's `weight`, so that `objectives.cosine=0.5` keeps the term's other options.

    >>> merge({"optim": {"lr": 1, "clip": 5}}, {"optim": {"lr": 2}})
    {'optim': {'lr': 2, 'clip': 5}}
    >>> merge({"cosine": {"weight": 1, "form": "raw"}}, {"cosine": 0.5})
    {'cosine': {'weight': 0.5, 'form': 'raw'}}
    """
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and _is_number(value) and "weight" in below:
            value = {"weight": value}
        elif isinstance(value, Mapping) and _is_number(below):
            below = {"weight": below}
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value) if both else value
    return merged


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def parse_override(text: str) -> dict[str, Any]:
    """One `dotted.key=value` of the command line as a nested mapping; the value is read as YAML.

    Raises:
        SettingsError: no `=`, an empty key part, or a value that is not YAML.

    >>> parse_override("data.speech=[LibriSpeech, more]")
    {'data': {'speech': ['LibriSpeech', 'more']}}
    """
    key, separator, raw = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise SettingsError(f"override {text!r}: expected key=value, for example trainer.max_steps=1000")
    try:
        value = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise SettingsError(f"override {text!r}: the value is not valid YAML ({error})") from error
    for part in reversed(parts):
        value = {part: value}
    return value
