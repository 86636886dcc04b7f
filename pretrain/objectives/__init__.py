"""The terms of the distillation loss, one module per family; each has its formula and its source in its docstring."""

from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.config import ObjectivesConfig
from robustdistiller.pretrain.objectives.distances import layer_cosine, layer_l1
from robustdistiller.pretrain.objectives.ops import masked_mean, valid_frames
from robustdistiller.pretrain.objectives.relations import relation_distance
from robustdistiller.pretrain.objectives.spectra import si_snr_db, spectral_distance
from robustdistiller.pretrain.objectives.statistics import cross_correlation
from robustdistiller.pretrain.objectives.units import unit_cross_entropy

__all__ = [
    "Objective",
    "ObjectivesConfig",
    "Shapes",
    "Step",
    "cross_correlation",
    "layer_cosine",
    "layer_l1",
    "masked_mean",
    "relation_distance",
    "si_snr_db",
    "spectral_distance",
    "unit_cross_entropy",
    "valid_frames",
]
