"""Reading a recipe: the files it is built on, the command line over them, and a check of all of its stages.

Precedence: command line > recipe file > its `base` (of several, the later ones first) > the defaults in `schema`.
Unknown keys are refused. The merged result is saved as `config.yaml` in the run's folder before the first step, and is
itself a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from robustdistiller.common.names import did_you_mean
from robustdistiller.common.settings import SettingsError, override, read
from robustdistiller.common.typed import fit
from robustdistiller.common.written import load_yaml, merge, to_plain
from robustdistiller.pretrain.config.first_version import as_today
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.config.stages import stages_of


@dataclass
class _Spelled(DistillConfig):
    """A configuration as it is written: the type of a stage's setting is that of the setting outside of stages."""

    stages: dict[str, DistillConfig | None] = field(default_factory=dict)
    then: DistillConfig | None = None


def load_config(recipe: str | Path, overrides: Iterable[str] = ()) -> DistillConfig:
    """Read a recipe, lay overrides over it, and check every stage of what comes out.

    Args:
        recipe: name of a shipped recipe, or the path of a YAML file.
        overrides: `dotted.key=value` each, lists in YAML: `student.num_layers=3`, `data.speech=[A, B]`,
            `stages.distil.optim.lr=1e-4`. `stages.distil=null` leaves that stage out.

    Raises:
        SettingsError: unknown recipe, unknown key or stage, a value of the wrong type or out of range, or settings
            that contradict each other, in any stage.

    >>> config = load_config("robustdistiller", ["optim.lr=1e-4", "data.noise=[musan/noise]"])
    >>> config.optim.lr, config.optim.clip_norm, config.data.noise
    (0.0001, 15.0, ['musan/noise'])
    """
    path = _find_recipe(recipe)
    values = _read_chain(path, seen=())
    known = list(_stages(values))
    values = override(_Spelled, values, overrides)
    values["recipe"] = values.get("recipe") or path.stem
    for name in _stages(values):
        if name not in known:
            there = did_you_mean(name, known) if known else "; the recipe has no stages"
            raise SettingsError(f"unknown stage {name!r}{there} (recipe files add stages, the command line does not)")
    for key in ("stages", "then"):
        if key in values:
            values[key] = fit(_Spelled, {key: values[key]})[key]
    if isinstance(values.get("stages", {}), Mapping | None):
        values["stages"] = {name: own for name, own in _stages(values).items() if own is not None}
    config = read(DistillConfig, as_today(values))
    stages_of(config)
    return config


def list_recipes() -> dict[str, DistillConfig]:
    """The shipped recipes by name.

    >>> list_recipes()["dphubert"].pruning.sparsity
    0.75
    """
    return {path.stem: load_config(path) for path in sorted(_recipe_dir().glob("*.yaml"))}


def _recipe_dir() -> Path:
    return Path(str(resources.files("robustdistiller.pretrain"))) / "recipes"


def _find_recipe(recipe: str | Path, near: Path | None = None) -> Path:
    """A recipe by path (relative to the working directory or to the file `near` that names it) or by shipped name."""
    candidate = Path(recipe).expanduser()
    if candidate.suffix in (".yaml", ".yml"):
        for path in (candidate, *((near.parent / candidate,) if near else ())):
            if path.is_file():
                return path
        raise SettingsError(f"recipe file {candidate} does not exist")
    path = _recipe_dir() / f"{recipe}.yaml"
    if not path.is_file():
        names = sorted(path.stem for path in _recipe_dir().glob("*.yaml"))
        hint = did_you_mean(str(recipe), names)
        raise SettingsError(f"unknown recipe {str(recipe)!r}{hint} (a file must end in .yaml)")
    return path


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a recipe file laid over those of its `base`, or of its bases in turn."""
    if path.resolve() in seen:
        raise SettingsError(f"recipe {path} is its own base: " + " -> ".join(str(step) for step in (*seen, path)))
    try:
        values = load_yaml(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"recipe {path}: expected keys and values, found {type(values).__name__}")
    bases = values.pop("base", None) or []
    below: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        below = merge(below, _read_chain(_find_recipe(base, near=path), (*seen, path.resolve())))
    below.pop("recipe", None)
    merged = merge(below, values)
    own, others = _stages(values), _stages(below)
    for name, given in own.items():
        if to_plain(given) is None and name not in others:  # a stage with nothing of its own, not one taken away
            merged["stages"] = {**merged["stages"], name: {}}
    if own and own.keys() >= others.keys():  # it names all of them: the order is its own
        merged["stages"] = {name: merged["stages"][name] for name in own}
    return merged


def _stages(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return values["stages"] if isinstance(values.get("stages"), Mapping) else {}
