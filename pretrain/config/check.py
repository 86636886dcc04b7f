"""What can be told from the settings of a stage alone, before any file is opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields

from robustdistiller.common.settings import SettingsError
from robustdistiller.common.written import flatten
from robustdistiller.pretrain.config.schema import (
    TRAINING_KEYS,
    DistillConfig,
    OtherTeacherConfig,
    StudentConfig,
    TargetsConfig,
)
from robustdistiller.pretrain.multitask.config import USED_KEYS

#: What decides the architecture of a student and the weights that it starts from, beside `checkpoint`.
SHAPE_KEYS = tuple(key.name for key in fields(StudentConfig) if key.name not in {"checkpoint", *TRAINING_KEYS})


def check_settings(config: DistillConfig) -> None:
    """Refuse settings of a stage that contradict each other, with one sentence for the first contradiction.

    That data and a teacher are given is not asked: a recipe need not name them.
    """
    if config.multitask is not None:
        _check_multitask(config)
    else:
        _check_student(config.student)
        if config.student.trains == "front_end":
            _check_front_end(config)
    _check_targets(config.targets)
    _check_teachers(config)
    _check_length(config)
    data, probe = config.data, config.probe
    if data.min_samples > data.max_samples:
        raise SettingsError(
            f"data.min_samples={data.min_samples} is more than data.max_samples={data.max_samples}, which would leave "
            "no speech; give less"
        )
    if (probe.every_steps is None) != (probe.data is None):
        there, lacking = ("every_steps", "data") if probe.data is None else ("data", "every_steps")
        raise SettingsError(
            f"probe.{there} is given and probe.{lacking} is not; a probe needs both, for example "
            "probe.every_steps=5000 probe.data=words.csv"
        )
    if probe.criterion and probe.every_steps is None:
        raise SettingsError("probe.criterion=true chooses by a probe that is never made; give probe.every_steps too")


def check_validation(stages: Sequence[DistillConfig]) -> None:
    """Refuse what is given to validate with where no stage ever does."""
    measured = any(one.validation.every_steps for one in stages)
    probed = measured or any(one.probe.every_steps for one in stages)  # under the conditions of the validation
    for key, used in (("speech", measured), ("conditions", probed), ("noise", probed), ("rir", probed)):
        if not used and any(getattr(one.validation, key) for one in stages):
            raise SettingsError(
                f"validation.{key} is given and validation.every_steps is not, so that nothing would be validated; "
                "give both, for example validation.every_steps=5000"
            )


def _check_student(student: StudentConfig) -> None:
    changed = [key for key in SHAPE_KEYS if getattr(student, key) != getattr(StudentConfig(), key)]
    if student.checkpoint and changed:
        names = ", ".join(f"student.{key}" for key in changed)
        raise SettingsError(f"student.checkpoint brings its own shape, so {names} cannot be given beside it")
    ways = [key for key in ("squeeze_by", "expand_by") if getattr(student, key) != getattr(StudentConfig(), key)]
    if ways and student.squeeze is None:
        raise SettingsError(
            f"student.{ways[0]}={getattr(student, ways[0])} means nothing without student.squeeze, as no frames are "
            "joined; give student.squeeze=2 or leave it out"
        )


def _check_front_end(config: DistillConfig) -> None:
    """Refuse what means nothing where neither the teacher's layers nor the student's are run."""
    objectives, where = config.objectives, "student.trains=front_end runs no layers"
    if config.targets.match == "heads":
        raise SettingsError(
            f"{where}, and with targets.match=heads everything is predicted from the last one; set targets.match=layers"
        )
    if config.student.feature_grad_mult == 0:
        raise SettingsError(
            f"{where}, and student.feature_grad_mult=0 freezes what is left to train; give student.feature_grad_mult=1"
        )
    about_layers = {
        "objectives.units=0": objectives.units.weight,
        "objectives.invariance=0": objectives.invariance.weight,
        "objectives.anchor=0": objectives.anchor.weight,
        "objectives.enhancement=0": objectives.enhancement.weight and objectives.enhancement.input != "extractor",
        "student.mask=null": config.student.mask,
        "pruning=null": config.pruning,
        "teachers={}": config.teachers,
    }
    without = [setting for setting, given in about_layers.items() if given]
    if without:
        raise SettingsError(f"{where}, and {without[0].split('=')[0]} is about them; give {' '.join(without)} there")


def _check_targets(targets: TargetsConfig) -> None:
    if targets.match == "heads":
        if targets.student_layers is not None:
            raise SettingsError(
                "targets.student_layers: with targets.match=heads everything is predicted from the last layer; set "
                "targets.match=layers or leave student_layers out"
            )
        if "projected" in targets.layers:
            raise SettingsError(
                "targets.layers: found 'projected' with targets.match=heads, which predicts layers; set "
                "targets.match=layers or leave it out"
            )
    targets_count = targets.groups.count if targets.layers == "auto" else len(targets.layers)
    _check_pairs("targets", targets.student_layers, targets_count)


def _check_pairs(where: str, student_layers: Sequence | None, targets_count: int) -> None:
    if student_layers is not None and len(student_layers) != targets_count:
        raise SettingsError(
            f"{where}.student_layers: found {len(student_layers)} entries for {targets_count} targets; give one "
            "student layer or group per target"
        )


def _check_teachers(config: DistillConfig) -> None:
    hears = {"teacher": config.teacher.hears}
    for name, teacher in config.teachers.items():
        hears[f"teachers.{name}"] = teacher.hears
        _check_other_teacher(name, teacher)
    if config.teachers and config.targets.match != "layers":
        raise SettingsError(
            f"teachers: found {', '.join(config.teachers)} beside the first teacher with targets.match=heads, where "
            "all heads predict one teacher; set targets.match=layers"
        )
    if config.targets.cache is not None and config.teacher.hears != "clean":
        raise SettingsError(
            "targets.cache: the teacher of this recipe gets a corruption of its own, a new one in each epoch, so that "
            "nothing it computes can be kept; give targets.cache=null or teacher.hears=clean"
        )
    independent = [where for where, what in hears.items() if what == "independent"]
    if independent and config.corruption is None:
        raise SettingsError(
            f"{independent[0]}.hears=independent asks for a corruption of the teacher's own and corruption is null; "
            f"set {independent[0]}.hears=clean or give a corruption"
        )


def _check_other_teacher(name: str, teacher: OtherTeacherConfig) -> None:
    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise SettingsError(f"teachers: found the name {name!r}, expected letters, digits, - and _, a letter first")
    if not teacher.checkpoint:
        raise SettingsError(f"teachers.{name}.checkpoint: which model is it? give a path, a URL or org/name on the Hub")
    if not teacher.layers:
        raise SettingsError(f"teachers.{name}.layers: found none, expected one or more layers or groups of layers")
    _check_pairs(f"teachers.{name}", teacher.student_layers, len(teacher.layers))


def _check_length(config: DistillConfig) -> None:
    trainer, optim = config.trainer, config.optim
    if trainer.batch_size is None and trainer.batch_seconds is None:
        raise SettingsError("trainer: give batch_size (utterances) or batch_seconds, both are null")
    if optim.schedule == "linear" and optim.schedule_steps is not None and trainer.max_steps > optim.schedule_steps:
        raise SettingsError(
            f"trainer.max_steps={trainer.max_steps} goes beyond optim.schedule_steps={optim.schedule_steps}, where the "
            f"learning rate has fallen to 0; give optim.schedule_steps={trainer.max_steps} too, which stretches the "
            "schedule"
        )


def _check_multitask(config: DistillConfig) -> None:
    found, default = flatten(config.to_dict()), flatten(DistillConfig().to_dict())
    unused = [key for key in sorted({*found, *default}) if found.get(key) != default.get(key)]
    unused = [key for key in unused if not key.startswith(USED_KEYS)]
    if unused:
        raise SettingsError(
            f"{', '.join(unused)}: means nothing when fine-tuning for labelled tasks (multitask); leave it out"
        )
