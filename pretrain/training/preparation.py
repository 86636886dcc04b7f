"""What a run needs before its first step, all of it checked: settings, teachers, data, groups, units, caches."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from robustdistiller.acoustics import Corruptor
from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.roots import check_data, load_teacher
from robustdistiller.pretrain.data.speech import SpeechCuts
from robustdistiller.pretrain.teacher.cache import TargetCache
from robustdistiller.pretrain.teacher.groups.find import LayerGroups, find_groups
from robustdistiller.pretrain.teacher.protocol import Teacher
from robustdistiller.pretrain.teacher.units import TeacherUnits, find_units
from robustdistiller.pretrain.training.checkpoint import Checkpoints, has_begun, read_run
from robustdistiller.pretrain.training.probe import Probe
from robustdistiller.pretrain.training.validation_speech import (
    ValidationSpeech,
    prepare_validation,
    validation_corruptors,
)

logger = logging.getLogger(__name__)


@dataclass
class Stage:
    """One stage of a run, checked.

    Attributes:
        name: of the stage.
        config: of the stage, with everything resolved that was left open.
        cuts: speech to train on.
        corruptor: of the speech.
        validation: what is validated on.
        probe: a linear classifier.
        cache: of the first teacher's targets, if they are kept.
    """

    name: str
    config: DistillConfig
    cuts: SpeechCuts
    corruptor: Corruptor | None
    validation: ValidationSpeech | None
    probe: Probe | None
    cache: TargetCache | None = None

    def describe(self) -> dict[str, Any]:
        """What it is trained and validated on, to recognise it after a restart."""
        return {
            "speech": self.cuts.digest(),
            "corruption": self.corruptor and self.corruptor.describe(),
            "validation": self.validation and self.validation.describe(),
            "probe": self.probe and self.probe.describe(),
        }


def resolved(config: DistillConfig, stage: str, out_dir: Path) -> DistillConfig:
    """Replace what is left open: precision by device, schedule by the stage's first start.

    Raises:
        SettingsError: a precision that the device does not have, or more steps than the schedule of the first start.
    """
    trainer, optim = config.trainer, config.optim
    on_cuda = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if trainer.precision == "auto":
        trainer = replace(trainer, precision="fp16" if on_cuda else "fp32")
    elif trainer.precision == "fp16" and not on_cuda:
        raise SettingsError("trainer.precision=fp16 needs a CUDA device, found none; give fp32 or auto")
    steps = optim.schedule_steps
    if steps is None:
        steps = trainer.max_steps
        if Checkpoints(out_dir, stage).paths:
            steps = read_run(out_dir)[1]["schedule_steps"].get(stage, steps)
    if optim.schedule == "linear" and trainer.max_steps > steps:
        raise SettingsError(
            f"stage {stage}: trainer.max_steps={trainer.max_steps} goes beyond optim.schedule_steps={steps}, where the "
            f"learning rate has fallen to 0; give optim.schedule_steps={trainer.max_steps} too (of a later stage, "
            f"stages.{stage}.optim.schedule_steps), which stretches the schedule"
        )
    return replace(config, trainer=trainer, optim=replace(optim, schedule_steps=steps))


def load_teachers(config: DistillConfig) -> tuple[dict[str, Teacher], dict[str, dict[str, Any]]]:
    """All teachers of a run by name, that of the section `teacher` as `""`, and what identifies each."""
    sections = {"": config.teacher, **config.teachers}
    found = {
        name: load_teacher(section, f"teachers.{name}" if name else "teacher") for name, section in sections.items()
    }
    return {name: model for name, (model, _) in found.items()}, {name: notes for name, (_, notes) in found.items()}


def look_through(configs: Mapping[str, DistillConfig], out_dir: Path) -> list[Stage]:
    """The stages with everything that they hear, looked through once for all stages that hear the same."""
    stages, known = [], {}
    for name, config in configs.items():
        plain = config.to_dict()
        key = json.dumps([plain[part] for part in ("data", "corruption", "validation", "probe", "seed")], default=str)
        if key not in known:
            cuts, corruptor = check_data(config, out_dir)
            cuts, validation = prepare_validation(config, out_dir, cuts, corruptor)
            probe = None
            if config.probe.every_steps is not None:
                probe = Probe(config.probe, validation_corruptors(config, corruptor), config.data.max_samples)
            known[key] = (cuts, corruptor, validation, probe)
        stages.append(Stage(name, config, *known[key]))
    return stages


def groups_and_units(
    stages: Sequence[Stage], out_dir: Path, fabric: Fabric, teacher: Teacher
) -> tuple[list[list[int]] | None, TeacherUnits | None]:
    """Groups of similar teacher layers, and units of the teacher, as far as the first stage with layers asks for them.

    They are the same for all starts and processes of a run: one of them finds and saves them. What a run has left that
    broke off before its first checkpoint may be of another teacher, other settings or other speech, and is found anew.
    """
    first = next((stage for stage in stages if stage.config.student.trains == "all"), stages[0])
    targets, seed, groups, units = first.config.targets, first.config.seed, None, None
    groups_path, units_path = out_dir / "groups.json", out_dir / "units.npz"
    if fabric.is_global_zero:
        begun = has_begun(out_dir)
        if targets.layers == "auto" and not (begun and groups_path.is_file()):
            options = {"device": fabric.device, "progress": first.config.trainer.progress}
            find_groups(teacher, first.cuts, targets.groups, seed, **options).save(groups_path)
        if targets.units is not None and not (begun and units_path.is_file()):
            find_units(teacher, first.cuts, targets.units, seed, fabric.device).save(units_path)
    fabric.barrier()
    if targets.layers == "auto":
        groups = LayerGroups.load(groups_path).groups
        logger.info("teacher layers in groups: %s", ", ".join(map(str, groups)))
    if targets.units is not None:
        units = TeacherUnits.load(units_path)
    return groups, units
