"""What a distillation run is: one dataclass tree, filled from a recipe file and dotted overrides.

Precedence: command line > recipe file > its `base` > the defaults below. Unknown keys are refused. The merged result
is saved as `config.yaml` in the run's folder before the first step, and is itself a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from robustdistiller.acoustics import CorruptionPolicy
from robustdistiller.acoustics.first_version import without_modes
from robustdistiller.common.names import did_you_mean
from robustdistiller.common.settings import SettingsError, override, read
from robustdistiller.common.typed import fit
from robustdistiller.common.written import load_yaml, merge, to_plain
from robustdistiller.pretrain.config.schema import (
    DataConfig,
    OptimConfig,
    StudentConfig,
    TargetsConfig,
    TeacherConfig,
    TrainerConfig,
)
from robustdistiller.pretrain.multitask.config import MultitaskConfig
from robustdistiller.pretrain.objectives.config import ObjectivesConfig
from robustdistiller.pretrain.student.pruning.config import PruningConfig
from robustdistiller.pretrain.training.validation import ValidationConfig


@dataclass
class DistillConfig:
    """One distillation run.

    Attributes:
        about: what the recipe is, in one line.
        source: where it comes from.
        recipe: name of the recipe file.
        out_dir: the run's folder; a run found there is continued.
        seed: of everything drawn: initial heads, batches, crops, corruptions, dropout.
        then: settings of a second run that goes on with the student of the first, laid over those of the first. The
            first is kept in `out_dir/first`; what comes out is the second's student.
        multitask: fine-tune for labelled tasks instead of distilling.

    >>> load_config("robustdistiller", ["student.num_layers=3", "out_dir=exp/three"]).student.num_layers
    3
    """

    about: str = ""
    source: str = ""
    recipe: str = ""
    out_dir: str | None = None
    seed: int = 0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    corruption: CorruptionPolicy | None = None
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    pruning: PruningConfig | None = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    then: dict[str, Any] | None = None
    multitask: MultitaskConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-able values."""
        return to_plain(self)


def load_config(recipe: str | Path, overrides: Iterable[str] = ()) -> DistillConfig:
    """Read a recipe and lay overrides over it.

    Args:
        recipe: name of a shipped recipe, or the path of a YAML file.
        overrides: `dotted.key=value` each, lists in YAML: `student.num_layers=3`, `data.speech=[A, B]`.

    Raises:
        SettingsError: unknown recipe, unknown key, or a value of the wrong type.

    >>> config = load_config("robustdistiller", ["optim.lr=1e-4", "data.noise=[musan/noise]"])
    >>> config.optim.lr, config.optim.clip_norm, config.data.noise
    (0.0001, 15.0, ['musan/noise'])
    """
    path = _find_recipe(recipe)
    values = _read_chain(path, seen=())
    values = override(DistillConfig, values, overrides)
    values["recipe"] = values.get("recipe") or path.stem
    values["then"] = fit(dict[str, Any] | None, values.get("then")) and fit(DistillConfig, values["then"])
    return read(DistillConfig, _of_today(values))


def _of_today(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of the first version, as they are said today."""
    values = dict(values)
    if isinstance(values.get("corruption"), Mapping):
        try:
            values["corruption"] = without_modes(to_plain(values["corruption"]))
        except (TypeError, ValueError) as error:
            raise SettingsError(f"corruption: {error}") from None
    if isinstance(values.get("data"), Mapping):  # noise was kept decoded on disk
        values["data"] = {key: value for key, value in values["data"].items() if key != "decoded_gib"}
    return values


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
        names = [path.stem for path in _recipe_dir().glob("*.yaml")]
        hint = did_you_mean(str(recipe), names)
        raise SettingsError(f"unknown recipe {str(recipe)!r}{hint} (a file must end in .yaml)")
    return path


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a recipe file laid over those of its `base`."""
    if path.resolve() in seen:
        raise SettingsError(f"recipe {path} is its own base: " + " -> ".join(str(step) for step in (*seen, path)))
    try:
        values = load_yaml(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"recipe {path}: expected keys and values, found {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    below = _read_chain(_find_recipe(base, near=path), (*seen, path.resolve()))
    return merge({key: value for key, value in below.items() if key != "recipe"}, values)
