"""What a run of one teacher trains, and how large everything is."""

from __future__ import annotations

from dataclasses import replace

import torch

from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.data.roots import load_teacher
from robustdistiller.pretrain.student.build import build_student, with_training_options
from robustdistiller.pretrain.student.pruning.gates import pruned_evenly
from robustdistiller.pretrain.training.step import Distiller
from robustdistiller.upstream import SpeechEncoder
from robustdistiller.upstream.model.cost import EncoderCost, encoder_cost


def make_distiller(config: DistillConfig, teacher: SpeechEncoder) -> Distiller:
    """What a run of one teacher trains in its first stage; `config.targets.layers` must be explicit."""
    student = with_training_options(build_student(config, teacher), config.student)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Distiller(config, {"": teacher}, student)


def planned_costs(config: DistillConfig) -> dict[str, EncoderCost]:
    """Size and work of the teacher and the student of a run, without data and without training.

    A student that is to be pruned is counted as it begins; its name says so. Where the conv extractor stays as it is,
    so is what pruning makes of it, if all layers lose the same share.

    Raises:
        SettingsError: no teacher, or a student that does not fit it or cannot be pruned as is asked.

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
    teacher, _ = load_teacher(config.teacher)
    if config.targets.layers == "auto":  # which layers does not matter here
        config = replace(config, targets=replace(config.targets, layers=(teacher.num_layers,)))
    student = build_student(config, teacher)
    name = "student" if config.pruning is None else f"student before {config.pruning.sparsity:.0%} are pruned"
    costs = {"teacher": encoder_cost(teacher), name: encoder_cost(student)}
    if config.pruning is not None and {"heads", "ffn"}.issuperset(config.pruning.units):
        costs["student after, if all layers lose as much"] = encoder_cost(
            SpeechEncoder(pruned_evenly(student, config.pruning))
        )
    return costs


def count_parameters(distiller: Distiller, exported: SpeechEncoder | None = None) -> dict[str, int]:
    """Parameters of the parts: what is used where.

    Args:
        distiller: what is trained.
        exported: the student as it is exported, smaller where it was pruned; None counts the one that is trained.
    """
    student = exported or distiller.student
    counts = {
        "teacher": sum(weight.numel() for teaching in distiller.teachings for weight in teaching.model.parameters()),
        "student without prediction heads": student.count_parameters(heads=False),
        "student with prediction heads": student.count_parameters(heads=True),
    }
    for name, part in (("maps to the targets", distiller.targets), *distiller.heads.items()):
        count = sum(weight.numel() for weight in part.parameters())
        if count:
            counts[f"{name} (training only)"] = count
    return counts
