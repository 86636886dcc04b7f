"""Putting a run's module together: student, targets, objectives."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.load import DistillConfig
from robustdistiller.pretrain.data.roots import load_teacher
from robustdistiller.pretrain.student.build import freeze, load_student, make_student
from robustdistiller.pretrain.teacher.targets import as_groups
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.upstream import SpeechEncoder, checkpoint_digest, resolve
from robustdistiller.upstream.model.cost import EncoderCost, encoder_cost

logger = logging.getLogger(__name__)


def build(config: DistillConfig, teacher: SpeechEncoder) -> Distiller:
    """The module of a run, before training; what is random comes from `config.seed`, the global generator left alone.

    Raises:
        SettingsError: student, targets or objectives that do not fit the teacher.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = build_student(config, teacher)
        freeze(student, config.student)
        module = Distiller(config, teacher, student)
    for name, count in count_parameters(module).items():
        logger.info("%-38s %13s parameters", name, f"{count:,}")
    return module


def student_digest(config: DistillConfig) -> str | None:
    """Digest of the file that the student starts from; `None` if it is built from the teacher.

    Raises:
        SettingsError: it does not exist.
    """
    if not config.student.checkpoint:
        return None
    try:
        return checkpoint_digest(resolve(config.student.checkpoint))
    except (FileNotFoundError, ValueError) as error:
        raise SettingsError(f"student.checkpoint: {error}") from error


def build_student(config: DistillConfig, teacher: SpeechEncoder) -> SpeechEncoder:
    """The untrained student of a run, from its teacher or from `student.checkpoint`.

    Raises:
        SettingsError: options that do not fit the teacher.
    """
    options, targets = config.student, config.targets
    groups = as_groups(targets.layers, teacher.config.num_layers, "targets.layers", "teacher")
    heads = [max(group) for group in groups] if targets.match == "heads" else []
    if options.checkpoint:
        return load_student(options, heads, teacher.config.embed_dim)
    return make_student(teacher, options, heads)


def planned_costs(config: DistillConfig) -> dict[str, EncoderCost]:
    """Size and work of the teacher and the student of a run, without data and without training.

    A student that is to be pruned is counted as it begins; its name says so.

    Raises:
        SettingsError: no teacher, or a student that does not fit it.

    >>> import tempfile
    >>> from robustdistiller.pretrain import load_config
    >>> from robustdistiller.upstream import EncoderConfig, save_checkpoint
    >>> teacher = SpeechEncoder(EncoderConfig(embed_dim=16, num_layers=12, num_heads=2, ffn_dim=32, position_groups=4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/teacher.ckpt", teacher, {"name": "untrained"})
    ...     costs = planned_costs(load_config("distilhubert", [f"teacher.checkpoint={folder}/teacher.ckpt"]))
    >>> costs["teacher"].parameters_used, costs["student"].parameters_used
    (4244736, 4221472)
    """
    teacher, _ = load_teacher(config)
    if config.targets.layers == "auto":  # which layers does not matter here
        config = replace(config, targets=replace(config.targets, layers=(teacher.config.num_layers,)))
    student = build_student(config, teacher)
    name = "student" if config.pruning is None else f"student before {config.pruning.sparsity:.0%} are pruned"
    return {"teacher": encoder_cost(teacher), name: encoder_cost(student)}


def count_parameters(module: Distiller) -> dict[str, int]:
    """Parameters of the parts: what is used where."""
    student = module.student
    counts = {
        "teacher": module.teacher.count_parameters(heads=False),
        "student without prediction heads": student.count_parameters(heads=False),
        "student with prediction heads": student.count_parameters(heads=True),
    }
    for name, part in (("maps to the targets", module.targets), *module.objectives.items()):
        count = sum(weight.numel() for weight in part.parameters())
        if count:
            counts[f"{name} (training only)"] = count
    return counts
