"""Distillation: from a teacher checkpoint and folders of audio to a student checkpoint.

>>> config = load_config("robustdistiller", ["student.num_layers=3", "out_dir=exp/three-layers"])
>>> config.objectives.enhancement.weight
2.0
"""

from robustdistiller.common.settings import SettingsError
from robustdistiller.upstream.model.cost import cost_table

from .assemble import planned_costs
from .config import DistillConfig, list_recipes, load_config
from .finite import NonFiniteLossError
from .run import RunInterrupted, distill
from .student import make_student

__all__ = [
    "DistillConfig",
    "NonFiniteLossError",
    "RunInterrupted",
    "SettingsError",
    "cost_table",
    "distill",
    "list_recipes",
    "load_config",
    "make_student",
    "planned_costs",
]
