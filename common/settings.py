"""Settings: plain values to dataclasses, strictly; each refusal is one sentence that says where, what and what instead.

A setting's type decides how its value is read: ``out_dir=007`` is text, ``seed=007`` a number. pydantic checks the
types; what is here fits spellings to them and puts pydantic's findings into words.
"""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from robustdistiller.common.names import did_you_mean
from robustdistiller.common.typed import Location, choices_of, dataclass_in, fields_of, fit, keys, kind_at
from robustdistiller.common.written import Written, load_yaml, merge, to_plain

T = TypeVar("T")
_NULLS = ("null", "none", "~", "")
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string_too_short": "text of at least {min_length} characters",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "keys and values",
    "dataclass": "keys and values",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "literal_error": "{expected}",
}


class SettingsError(ValueError):
    """Settings are not accepted; the message is complete on its own, one line for each problem."""


def read(cls: type[T], values: Any, where: str = "") -> T:
    """Build a dataclass from nested plain values.

    Args:
        cls: the dataclass; its own ``__post_init__`` may raise ValueError. With a class attribute ``short_form``, a
            word in place of the mapping is the value of that field; a number is the value of the field ``weight``.
        values: keys are field names; fields left out keep their defaults.
        where: dotted path of these values, for messages.

    Raises:
        SettingsError: unknown keys, with the nearest known ones, missing ones, and values of the wrong type: all.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Optim:
        ...     lr: float = 1e-3
        ...     betas: tuple[float, float] = (0.9, 0.98)
        >>> read(Optim, {"lr": "2e-4"})
        Optim(lr=0.0002, betas=(0.9, 0.98))
        >>> read(Optim, {"lrr": 1, "betas": [1, "x"]}, "optim")
        Traceback (most recent call last):
        robustdistiller.common.settings.SettingsError: unknown key 'optim.lrr'; did you mean 'lr'?
        optim.betas[1]: found 'x', expected a number
    """
    fitted = fit(cls, values)
    try:
        # JSON, because strict Python values would have to be tuples and dataclasses already.
        return _adapter(cls).validate_json(json.dumps([to_plain(fitted)], default=str))[0]
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(error, cls, fitted, where))) from error


def read_yaml(cls: type[T], text: str, overrides: Iterable[str] = ()) -> T:
    """Build a dataclass from YAML, with a command line's ``key=value`` over it.

    Raises:
        SettingsError: it is not YAML, or as for :func:`read`.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Run:
        ...     out_dir: str | None = None
        ...     seed: int = 0
        >>> read_yaml(Run, "out_dir: 007", ["seed=3"]), read_yaml(Run, "out_dir: 007", ["out_dir=null"])
        (Run(out_dir='007', seed=3), Run(out_dir=None, seed=0))
    """
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"not YAML: {error}") from error
    return read(cls, override(cls, {} if to_plain(values) is None else values, overrides))


def override(cls: type, values: Any, overrides: Iterable[str]) -> Any:
    """Values with a command line's ``dotted.key=value`` laid over them, each read as its setting's type asks.

    Args:
        cls: the dataclass that the values are for.
        values: as for :func:`read`.
        overrides: text settings take all behind the ``=`` as it is; others are read as YAML, ``none`` as ``null``.

    Raises:
        SettingsError: no ``=``, an empty part of a key, or a value that is not YAML where that is needed.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Run:
        ...     out_dir: str = "exp"
        ...     layers: tuple[int, ...] = (4, 8)
        >>> override(Run, {}, ["out_dir=exp/run #3", "layers=[1, 2]"])
        {'out_dir': 'exp/run #3', 'layers': ['1', '2']}
    """
    for text in overrides:
        key, separator, raw = text.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise SettingsError(f"override {text!r}: expected key=value, for example trainer.max_steps=1000")
        try:
            value = _from_command_line(kind_at(cls, tuple(parts)), raw)
        except yaml.YAMLError as error:
            raise SettingsError(f"override {text!r}: the value is not valid YAML ({error})") from error
        for part in reversed(parts):
            value = {part: value}
        values = merge(values, value) if isinstance(values, Mapping) else values
    return values


@functools.cache
def _adapter(cls: type) -> TypeAdapter:
    # A configuration given to a dataclass itself would not reach those within it.
    config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)
    return TypeAdapter(tuple[cls], config=config)


def _from_command_line(kind: Any, raw: str) -> Any:
    choices = choices_of(kind)
    word = raw.strip()
    if word.lower() in _NULLS:
        return Written(raw, None)
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        return load_yaml(word)
    lists = [choice for choice in choices if typing.get_origin(choice) in (list, tuple)]
    of_text = any(str in choices_of(typing.get_args(choice)[0]) for choice in lists)
    if str in choices or (of_text and not word.startswith("[")):
        return raw
    value = load_yaml(raw)
    return Written(raw, to_plain(value)) if kind is Any and not isinstance(value, list | dict) else value


def _sentences(error: ValidationError, cls: type, values: Any, where: str) -> list[str]:
    """pydantic's findings in plain words, those on one setting together."""
    sentences: list[str] = []
    wrong: dict[Location, list[str]] = {}
    for finding in error.errors(include_url=False):
        kind, loc, context = finding["type"], finding["loc"][1:], finding.get("ctx", {})
        path = _path_in(values, loc)
        if kind in ("unexpected_keyword_argument", "extra_forbidden"):
            sentences.append(_unknown(cls, path, where))
        elif kind == "missing" and isinstance(loc[-1], str):
            sentences.append(f"{_dotted((*path, loc[-1]), where)} is missing")
        elif kind == "value_error":
            sentences.append(": ".join(filter(None, (_dotted(path, where), str(context["error"])))))
        else:
            if kind in ("missing", "too_long"):
                expected = f"{len(typing.get_args(choices_of(kind_at(cls, path))[0]))} values"
            else:
                known = _EXPECTED.get(kind) or _EXPECTED.get(kind.split("_")[0])
                expected = known.format(**context) if known else finding["msg"]
            wrong.setdefault(path, []).append(expected)
    for path, expected in wrong.items():
        if not any(other[: len(path)] == path and other != path for other in wrong):
            null = ["null"] if types.NoneType in choices_of(kind_at(cls, path)) else []
            found = functools.reduce(lambda inside, part: inside[part], path, values)
            said = " or ".join(dict.fromkeys([*expected, *null]))
            sentences.append(f"{_dotted(path, where) or 'settings'}: found {found!r}, expected {said}")
    return sentences


def _unknown(cls: type, path: Location, where: str) -> str:
    name = str(path[-1])
    owner = dataclass_in(kind_at(cls, path[:-1]))
    own = _dotted(path, "")
    elsewhere = [key for key in keys(cls) if key.rpartition(".")[2] == name and key != own]
    hint = f"; elsewhere there is {', '.join(elsewhere)}" if elsewhere else ""
    return f"unknown key {_dotted(path, where)!r}{did_you_mean(name, fields_of(owner) if owner else ())}{hint}"


def _path_in(values: Any, loc: Location) -> Location:
    """The part of pydantic's location that leads through the values; members of unions have parts of their own."""
    path: list[str | int] = []
    for part in loc:
        inside = values if isinstance(values, Mapping) else dict(enumerate(values)) if isinstance(values, list) else {}
        if part in inside:
            path.append(part)
            values = inside[part]
    return tuple(path)


def _dotted(path: Location, where: str) -> str:
    text = where
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
