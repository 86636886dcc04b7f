"""One source in one line, the same in training and evaluation: ``PATH,split=test,only=real``."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustdistiller.common.names import refuse_unknown

from ..audio.listing import Piece
from .pieces import corpus_pieces

_LISTS = ("only", "without")
_OPTIONS = ("kind", "split", *_LISTS, "weight")
# One option at the end of what is left of PATH,key=value,key=value. Other commas are the path's.
_LAST = re.compile(r"(.*),\s*(\w+)=([^,]*)", re.DOTALL)
_OPTION_INSIDE = re.compile(rf"(?:^|.*,\s*)({'|'.join(_OPTIONS)})=", re.DOTALL)


@dataclass(frozen=True)
class SourceSpec:
    """One corpus of noise, rooms or speech, and which part of it is used.

    Attributes:
        path: folder, audio file or ``.tsv`` manifest; empty where a suite leaves it to the user.
        kind: a layout (see `acoustics.corpus_pieces`); None looks for itself.
        split: ``all``, ``train``, ``dev``, ``test`` or ``training``; None leaves it to who asks: ``all`` in evaluation,
            unless a suite says otherwise, ``training`` in training.
        only, without: labels to keep and to leave out.
        weight: how often this corpus is drawn from, in relation to the others beside it (`root_weights`), above 0.

    Example:
        >>> spec = SourceSpec.parse("/data/UrbanSound8K,split=test,without=siren+drilling")
        >>> spec.split, spec.without, spec.title
        ('test', ('siren', 'drilling'), 'UrbanSound8K (split=test, without=siren+drilling)')
    """

    path: str = ""
    kind: str | None = None
    split: str | None = None
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ValueError(f"weight={self.weight:g} of {self.path} must be above 0")

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """Read ``PATH`` or ``PATH,split=test,kind=musan,only=A+B,without=C,weight=2``; ``$NAME`` and ``~`` expanded.

        Raises:
            ValueError: an option that is not known (the nearest known one is named), is given twice, or has no value
                or no path before it; a weight that is no number above 0.

        Example:
            >>> SourceSpec.parse("/data/rain, heavy,only=A+B,weight=2")
            SourceSpec(path='/data/rain, heavy', kind=None, split=None, only=('A', 'B'), without=(), weight=2.0)
            >>> SourceSpec.parse("/data/musan,splt=test")
            Traceback (most recent call last):
            ValueError: unknown option 'splt' in '/data/musan,splt=test'; did you mean 'split'?
        """
        path, values = text, {}
        while match := _LAST.fullmatch(path):
            before, key, value = match.groups()
            if key not in _OPTIONS:
                if "/" in value or os.path.exists(_expand(path)):  # noqa: PTH110
                    break  # a path may look like this
                refuse_unknown([key], _OPTIONS, "option", repr(text))
            if key in values or not value:
                found = "is given twice" if key in values else "has no value"
                raise ValueError(f"option {key!r} {found} in {text!r}; expected {_form(key)}")
            path, values[key] = before, _value(key, value, text)
        inside = _OPTION_INSIDE.match(path)
        if inside and not os.path.exists(_expand(path)):  # noqa: PTH110
            wrong = "a comma inside an option" if "," in path[: inside.end()] else "no path before its options"
            raise ValueError(f"{text!r} has {wrong}; expected PATH,{_form(inside[1])}, in quotes where it is in a list")
        return cls(path=_expand(path), **values)

    @classmethod
    def from_value(cls, value: Any, where: str) -> SourceSpec:
        """Build a spec from a suite's YAML: a path, or a mapping of this class's attributes.

        Raises:
            ValueError: unknown keys (the nearest known one is named) or another type.

        Example:
            >>> SourceSpec.from_value({"path": "/data/musan", "split": "test"}, "noise").split
            'test'
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a path or a mapping with path, kind, split, ..., found {value!r}")
        refuse_unknown(value, [f.name for f in dataclasses.fields(cls)], "key", where)
        values = {key: ([one] if isinstance(one, str) and key in _LISTS else one) for key, one in value.items()}
        values.update({key: tuple(map(str, values[key] or ())) for key in _LISTS if key in values})
        if values.get("weight") is not None:
            values["weight"] = _value("weight", str(values["weight"]), where)
        return cls(**{**values, "path": _expand(str(values.get("path") or ""))})

    def over(self, base: SourceSpec) -> SourceSpec:
        """This spec where it says something, `base` where it does not.

        Example:
            >>> SourceSpec("/data/CHiME3").over(SourceSpec(kind="chime")).kind
            'chime'
        """
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name)}
        return dataclasses.replace(base, **changed)

    @property
    def title(self) -> str:
        """Name of the folder and what is used of it, the same on every machine."""
        parts = [f"split={self.split}"] if self.split not in (None, "all") else []
        parts += [f"{key}={'+'.join(getattr(self, key))}" for key in _LISTS if getattr(self, key)]
        parts += [f"weight={self.weight:g}"] if self.weight else []
        return Path(self.path).name + (f" ({', '.join(parts)})" if parts else "")

    def pieces(self, purpose: str, split: str = "all", listed: Sequence[Piece] | None = None) -> list[Piece]:
        """The recordings, see `acoustics.corpus_pieces`.

        Args:
            purpose: what they are for.
            split: the part that is taken unless the spec says which.
            listed: what `list_pieces` found at the path, where that is known.

        Raises:
            FileNotFoundError: nothing is there.
            ValueError: unknown layout, part or label, or nothing is left.

        Example:
            >>> SourceSpec("/no/such/folder").pieces("noise")
            Traceback (most recent call last):
            FileNotFoundError: ...
        """
        return corpus_pieces(self.path, purpose, self.kind, self.split or split, self.only, self.without, listed)


def root_weights(specs: Sequence[SourceSpec]) -> list[float] | None:
    """The weights of corpora that are drawn from together; None where none has one, and recordings count alike.

    Raises:
        ValueError: some have a weight and others have none.

    Example:
        >>> root_weights([SourceSpec.parse("musan,weight=1"), SourceSpec.parse("wham_noise,weight=3")])
        [1.0, 3.0]
    """
    without = [spec for spec in specs if spec.weight is None]
    if without and len(without) < len(specs):
        raise ValueError(
            f"{without[0].path} has no weight and others beside it have one; give every path one, as in PATH,weight=1, "
            "or none"
        )
    return None if without else [float(spec.weight) for spec in specs]


def _value(key: str, value: str, text: str) -> Any:
    if key != "weight":
        return tuple(value.split("+")) if key in _LISTS else value
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"the weight in {text!r} must be a number above 0, found {value!r}") from None


def _form(key: str) -> str:
    values = {"kind": "musan", "split": "test", "weight": "2"}
    return f"{key}={values.get(key, 'A+B')}"


def _expand(path: str) -> str:
    return os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111
