"""Suites: lists of test conditions with what they draw from, shipped by name or written by the user in a few lines.

A suite is a YAML file::

    about: My own test.
    base: robustdistiller                # sources and conditions of another suite, by name or path
    noise: {path: /data/musan, split: test}
    rir: [/data/RIRS_NOISES]
    conditions: [clean, noise:snr_db=5, correlation]

`conditions` lists one-line forms, or names of suites that are put in whole; without it, those of `base` are taken.
`noise`, `rir` and `speech` are a path, a mapping (see `acoustics.SourceSpec`), a list of these, or, to have several at
once, a mapping of names that conditions use: ``noise: {street: /data/street}`` and ``noise:snr_db=5,noise=street``.
`corpora` says which part of a corpus is used wherever one of its kind is given. `about` and `source` are for who reads
the file.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from robustdistiller.acoustics import Condition, SourceSpec
from robustdistiller.acoustics.condition import SOURCES
from robustdistiller.acoustics.corpora import LAYOUTS
from robustdistiller.acoustics.effects.noise import COLORS
from robustdistiller.common.names import did_you_mean, nearest, refuse_unknown
from robustdistiller.eval.conditions.sources import Sources

_KEYS = ("about", "source", "base", *SOURCES, "corpora", "conditions")
_SPEC_KEYS = tuple(f.name for f in dataclasses.fields(SourceSpec))


class SuiteError(ValueError):
    """A suite that is not there or cannot be used."""


@dataclass(frozen=True)
class Suite:
    """Test conditions, in the order they are evaluated, and what they draw from."""

    conditions: tuple[Condition, ...] = ()
    sources: Sources = field(default_factory=Sources)


def suite_names() -> list[str]:
    """The shipped suites."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_suite(name: str | Path) -> Suite:
    """A shipped suite by name, or the user's own by path.

    Raises:
        SuiteError: no such suite, not YAML, an unknown key or name (the nearest known one is named), a condition that
            cannot be read, suites that are based on each other.
    """
    return _load(str(name), Path.cwd(), ())


def load_suites(names: Iterable[str | Path]) -> Suite:
    """Several suites as one: their conditions in order, each once; where sources differ, those of the first count."""
    suites = [load_suite(name) for name in names]
    conditions = tuple(dict.fromkeys(condition for suite in suites for condition in suite.conditions))
    sources = functools.reduce(Sources.over, (suite.sources for suite in suites), Sources())
    return Suite(conditions, sources)


def _folder() -> Path:
    return Path(str(files("robustdistiller.downstream_configs"))) / "conditions"


def _find(name: str, beside: Path) -> Path:
    """The file of a suite; a path inside a suite is relative to that suite."""
    if Path(name).suffix in (".yaml", ".yml") or "/" in name:
        path = beside / Path(name).expanduser()
        if not path.is_file():
            raise SuiteError(f"no suite at {path}; expected a YAML file, or one of: {', '.join(suite_names())}")
        return path
    if name not in suite_names():
        raise SuiteError(
            f"no suite {name!r}{did_you_mean(name, suite_names())} (your own is given by its path, as in ./mine.yaml)"
        )
    return _folder() / f"{name}.yaml"


def _load(name: str, beside: Path, above: tuple[Path, ...]) -> Suite:
    path = _find(name, beside).resolve()
    if path in above:
        raise SuiteError(f"suites are based on each other: {' -> '.join(one.name for one in (*above, path))}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"suite {path} is not YAML: {error}") from error
    try:
        return _build(path, values, (*above, path))
    except SuiteError:
        raise
    except (ValueError, TypeError) as error:
        raise SuiteError(f"suite {path}: {error}") from error


def is_suite(name: object) -> bool:
    """Whether a text names a suite: a shipped one, or a file."""
    if not isinstance(name, str) or name == "clean":
        return False
    return name in suite_names() or Path(name).suffix in (".yaml", ".yml")


def _build(path: Path, values: Any, above: tuple[Path, ...]) -> Suite:
    if not isinstance(values, Mapping):
        raise SuiteError(f"suite {path} must be a mapping with conditions, found {type(values).__name__}")
    refuse_unknown(values, _KEYS, "key", "the suite")
    base = _load(str(values["base"]), path.parent, above) if values.get("base") else Suite()
    sources, conditions = _sources(values, path).over(base.sources), list(base.conditions)
    if "conditions" in values:
        entries = values["conditions"]
        if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
            raise SuiteError(f"suite {path}: conditions must be a list of one-line forms or suites, found {entries!r}")
        conditions = []
        for entry in entries:
            if is_suite(entry):
                included = _load(entry, path.parent, above)
                conditions += included.conditions
                sources = sources.over(included.sources)
            else:
                conditions.append(Condition.parse(entry))
    if not conditions:
        raise SuiteError(f"suite {path} has no conditions; expected conditions: [clean, noise:snr_db=5, ...] or a base")
    return Suite(tuple(dict.fromkeys(conditions)), sources)


def _sources(values: Mapping[str, Any], path: Path) -> Sources:
    """The suite's own sources."""
    corpora = values.get("corpora") or {}
    if not isinstance(corpora, Mapping):
        raise ValueError(f"corpora must be a mapping of kinds, found {corpora!r}")
    refuse_unknown(corpora, LAYOUTS, "key", "corpora")
    named: dict[str, dict[str, SourceSpec]] = {}
    unnamed: dict[str, tuple[SourceSpec, ...]] = {}
    for kind, value in ((kind, values[kind]) for kind in SOURCES if values.get(kind) is not None):
        if isinstance(value, Mapping) and not set(value) & {"path", "split", "only", "without"}:
            for name, one in value.items():
                _check_name(kind, str(name), one)
            named[kind] = {str(name): _spec(one, f"{kind}.{name}", path) for name, one in value.items()}
        else:
            unnamed[kind] = tuple(_spec(one, kind, path) for one in (value if isinstance(value, list) else [value]))
            if not all(spec.path for spec in unnamed[kind]):
                raise ValueError(f"{kind} needs a path, found {value!r}")
    used = {kind: SourceSpec.from_value(value, f"corpora.{kind}") for kind, value in corpora.items()}
    return Sources(**unnamed, named=named, corpora=used)


def _spec(value: Any, where: str, path: Path) -> SourceSpec:
    """A source; a relative path in a suite is relative to the suite."""
    spec = SourceSpec.from_value(value, where)
    return dataclasses.replace(spec, path=str(path.parent / spec.path)) if spec.path else spec


def _check_name(kind: str, name: str, value: Any) -> None:
    if name in (*COLORS, "babble"):
        raise ValueError(f"{kind}.{name}: {name!r} is a noise of its own; call the source something else")
    near = nearest(name, _SPEC_KEYS, cutoff=0.7)
    if near or not isinstance(value, str | Mapping):
        hint = f"did you mean {near[0]!r}, with a path beside it?" if near else "a path or a mapping was expected"
        raise ValueError(f"{kind}.{name}: {hint} Found {name}: {value!r}")
