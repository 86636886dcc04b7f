"""Settings as they are written, in YAML files and on command lines, before their types are known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from os import PathLike
from typing import Any

import yaml


class Written(str):
    """A word that YAML takes for a number, a boolean, a date or null, as it is written: a setting's type decides.

    Attributes:
        value: what YAML takes it for.

    Example:
        >>> load_yaml("4711_3"), load_yaml("4711_3").value
        ('4711_3', 47113)
    """

    value: Any

    def __new__(cls, text: str, value: Any) -> Written:
        word = super().__new__(cls, text)
        word.value = value
        return word


class _Loader(yaml.SafeLoader):
    pass


def _keep_text(tag: str) -> None:
    construct = yaml.SafeLoader.yaml_constructors[tag]

    def written(loader: _Loader, node: yaml.ScalarNode) -> Written:
        try:
            value = construct(loader, node)
        except ValueError:  # such as a date that no calendar has
            value = node.value
        return Written(node.value, value)

    _Loader.add_constructor(tag, written)


for _kind in ("int", "float", "bool", "null", "timestamp"):
    _keep_text(f"tag:yaml.org,2002:{_kind}")


def load_yaml(text: str) -> Any:
    """YAML in which plain words are :class:`Written`; what stands in quotes is text.

    Raises:
        yaml.YAMLError: it is not YAML.

    Example:
        >>> load_yaml("{name: 007, sizes: [1, '2']}")
        {'name': '007', 'sizes': ['1', '2']}
    """
    return yaml.load(text, _Loader)


def to_plain(value: Any) -> Any:
    """The JSON-able form of nested dataclasses, mappings and lists: what YAML or JSON can hold and give back.

    Example:
        >>> to_plain({"betas": (0.9, 0.98), "steps": load_yaml("1_000")})
        {'betas': [0.9, 0.98], 'steps': 1000}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Written):
        return to_plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, PathLike) else value


def dump_yaml(values: Any) -> str:
    """The YAML of settings; :func:`load_yaml` and ``settings.read`` give the same settings again.

    Example:
        >>> dump_yaml({"out_dir": "007", "seed": 7})
        "out_dir: '007'\\nseed: 7\\n"
    """
    return yaml.safe_dump(to_plain(values), sort_keys=False, allow_unicode=True)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to dotted keys.

    Example:
        >>> flatten({"a": {"b": 1}, "c": [2]})
        {'a.b': 1, 'c': [2]}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping) and value
        flat.update(flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value})
    return flat


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``top`` laid over it, key by key, nested; neither argument is changed.

    A number beside a mapping is the mapping's ``weight``, so that ``objectives.cosine=0.5`` keeps the term's other
    options.

    Example:
        >>> merge({"optim": {"lr": 1, "clip": 5}}, {"optim": {"lr": 2}})
        {'optim': {'lr': 2, 'clip': 5}}
        >>> merge({"cosine": {"weight": 1, "form": "raw"}}, {"cosine": 0.5})
        {'cosine': {'weight': 0.5, 'form': 'raw'}}
    """
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and is_number(value) and "weight" in below:
            value = {"weight": value}
        elif isinstance(value, Mapping) and is_number(below):
            below = {"weight": below}
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value) if both else value
    return merged


def is_number(value: Any) -> bool:
    """Whether a value is a number, or written as one.

    Example:
        >>> is_number(1.5), is_number(load_yaml("1")), is_number(True), is_number("1")
        (True, True, False, False)
    """
    value = value.value if isinstance(value, Written) else value
    return isinstance(value, int | float) and not isinstance(value, bool)
