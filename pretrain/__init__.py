"""Distillation: from a teacher checkpoint and folders of audio to a student checkpoint.

>>> config = load_config("robustdistiller", ["student.num_layers=3", "out_dir=exp/three-layers"])
>>> config.objectives.enhancement.weight
2.0
"""

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.load import list_recipes, load_config
from robustdistiller.pretrain.config.schema import DistillConfig
from robustdistiller.pretrain.config.stages import Stage, stages_of
from robustdistiller.pretrain.student.build import make_student
from robustdistiller.pretrain.training.build import planned_costs
from robustdistiller.pretrain.training.errors import NonFiniteLossError, RunInterrupted
from robustdistiller.pretrain.training.stages import distill
from robustdistiller.upstream.model.cost import cost_table

__all__ = [
    "DistillConfig",
    "NonFiniteLossError",
    "RunInterrupted",
    "SettingsError",
    "Stage",
    "cost_table",
    "distill",
    "list_recipes",
    "load_config",
    "make_student",
    "planned_costs",
    "stages_of",
]
