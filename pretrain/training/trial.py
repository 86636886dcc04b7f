"""Every mistake in any stage is told before the first step of the first one: each stage is built, for a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.student.build import with_training_options
from robustdistiller.pretrain.teacher.protocol import Teacher
from robustdistiller.pretrain.teacher.units import TeacherUnits
from robustdistiller.pretrain.training.preparation import Stage
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.pretrain.training.validate import criterion_of
from robustdistiller.upstream import SpeechEncoder


def try_stages(
    stages: Sequence[Stage],
    student: SpeechEncoder,
    teachers: Mapping[str, Teacher],
    units: TeacherUnits | None,
    processes: int,
) -> None:
    """Build what each stage trains, one after the other; nothing of it is kept.

    Args:
        stages: of the run, in their order.
        student: that the first one begins with.
        teachers, units: see :class:`~robustdistiller.pretrain.training.step.Distiller`.
        processes: that will train together.

    Raises:
        SettingsError: what a stage is to train does not fit together; the message names the stage.
    """
    state: dict[str, Tensor] = {}
    targets: tuple[str, ...] = ()
    for stage in stages:
        config = stage.config
        least, shortest = config.data.min_samples, student.config.receptive_field
        if least < shortest:
            raise SettingsError(
                f"stage {stage.name}: data.min_samples={least} lets in recordings shorter than a frame of the "
                f"student, which takes {shortest} samples; give data.min_samples={shortest} or more"
            )
        distiller = Distiller(config, teachers, with_training_options(student, config.student), units)
        if stage.validation is not None and not distiller.reads_predictions:
            _refuse_distance(stage)
        distiller.take_over(state, targets)
        state, targets = distiller.handed_on(), distiller.target_names
        if processes > 1 and config.trainer.strategy != "ddp_find_unused_parameters_true":
            _refuse_waiting(stage, distiller)
        if distiller.gates is not None:
            distiller.gates.detach()


def _refuse_distance(stage: Stage) -> None:
    if criterion_of(stage.config) in ("cosine", "l1"):
        raise SettingsError(
            f"stage {stage.name}: validation.criterion={stage.config.validation.criterion} measures what is "
            "predicted of the teacher's layers, and no term of the loss trains that; give validation.criterion=loss"
        )


def _refuse_waiting(stage: Stage, distiller: Distiller) -> None:
    """Processes would wait for gradients of weights that the loss does not reach."""
    if unreached := distiller.unreached():
        raise SettingsError(
            f"stage {stage.name}: the loss does not reach {len(unreached)} of the weights that are trained, such "
            f"as {unreached[0]}, and several processes would wait for their gradients: compare the student's last "
            "layer too, leave layers out, or give trainer.strategy=ddp_find_unused_parameters_true"
        )
