"""Stages: what a recipe does in turn with one student, each with all of its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from robustdistiller.common.settings import SettingsError, read
from robustdistiller.common.written import flatten, merge, to_plain
from robustdistiller.pretrain.config.check import SHAPE_KEYS, check_settings, check_validation
from robustdistiller.pretrain.config.first_version import as_today
from robustdistiller.pretrain.config.schema import DistillConfig

#: What is handed from stage to stage, names the run, or says where it runs, and so is set once: sections, single keys.
SHARED_KEYS = (
    *("recipe", "out_dir", "seed", "teacher", "teachers", "targets", "data.speech", "multitask", "stages"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.precision"),
    *("trainer.deterministic", "trainer.max_hours"),
    "student.checkpoint",
    *(f"student.{key}" for key in SHAPE_KEYS),
)


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: as the recipe calls it.
        config: all settings of the stage; it has no stages of its own.

    >>> Stage("distil", DistillConfig()).name
    'distil'
    """

    name: str
    config: DistillConfig


def stages_of(config: DistillConfig) -> list[Stage]:
    """The stages of a run in order, at least one, each checked.

    The settings of a stage are those of the run with its own laid over them, whatever the stage before it has set. Two
    are taken over differently: a student is pruned in the first stage that has `pruning` and is small from then on, so
    that `pruning` is null behind it, and `optim.schedule_steps` is the first stage's alone. A stage that trains the
    front end alone has the teacher's projected features as its only target.

    Raises:
        SettingsError: an unknown key (the nearest known one is named) or a value of the wrong type, a key that all
            stages share, pruning after pruning, or settings that contradict each other; the stage is named.

    >>> from robustdistiller.pretrain import load_config
    >>> [(stage.name, stage.config.trainer.max_steps) for stage in stages_of(load_config("dphubert"))]
    [('prune', 50000), ('distil', 25000)]
    >>> load_config("dphubert", ["stages.distil.optim.lrr=1"])
    Traceback (most recent call last):
    robustdistiller.common.settings.SettingsError: unknown key 'stages.distil.optim.lrr'; did you mean 'lr'?
    """
    if not config.stages:
        check_settings(config)
        check_validation([config])
        return [Stage("distil" if config.multitask is None else "tune", _with_its_targets(config))]
    if config.multitask is not None:
        raise SettingsError("stages: fine-tuning for labelled tasks (multitask) has one stage; leave stages out")
    run = {**to_plain(config), "stages": {}}
    found: list[Stage] = []
    for name, own in config.stages.items():
        where = f"stages.{name}"
        if not re.fullmatch(r"[A-Za-z][\w-]*", name) or name == "best":  # student_best.ckpt is another one
            raise SettingsError(
                f"stages: found the name {name!r}, expected letters, digits, - and _, a letter first, and not best"
            )
        _refuse_shared(own, where)
        values = as_today(merge(run, own))
        if found and isinstance(own.get("optim", {}), Mapping):
            values["optim"] = {**values["optim"], "schedule_steps": own.get("optim", {}).get("schedule_steps")}
        pruned_in = next((stage.name for stage in found if stage.config.pruning), None)
        if pruned_in and own.get("pruning"):
            raise SettingsError(f"{where}.pruning: the student is pruned in stage {pruned_in} already; leave it out")
        values["pruning"] = None if pruned_in else values["pruning"]
        stage = Stage(name, read(DistillConfig, values, where))
        try:
            check_settings(stage.config)
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from None
        found.append(replace(stage, config=_with_its_targets(stage.config)))
    check_validation([stage.config for stage in found])
    return found


def _with_its_targets(config: DistillConfig) -> DistillConfig:
    """The same, with what is left of the targets where the front end is trained alone."""
    if config.student.trains == "all":
        return config
    targets = replace(config.targets, layers=("projected",), student_layers=None, normalize="none", units=None)
    return replace(config, targets=targets)


def _refuse_shared(own: Mapping[str, Any], where: str) -> None:
    for key in flatten(own):
        shared = next((name for name in SHARED_KEYS if f"{key}.".startswith(f"{name}.")), None)
        if shared is not None:
            raise SettingsError(
                f"{where}.{key}: all stages of a run have the same {shared}; write {key} outside of stages"
            )
