"""The terms of the distillation loss, one module per family; each has its formula and its source in its docstring."""

from robustdistiller.pretrain.objectives.base import Objective, Step
from robustdistiller.pretrain.objectives.correlation import cross_correlation, self_correlation
from robustdistiller.pretrain.objectives.layerwise import feature_penalty, layer_cosine, layer_l1, layer_l2
from robustdistiller.pretrain.objectives.registry import ObjectivesConfig, make_objectives
from robustdistiller.pretrain.objectives.spectra import si_snr_db, spectral_distance
from robustdistiller.pretrain.objectives.tensors import masked_mean, valid_frames

__all__ = [
    "Objective",
    "ObjectivesConfig",
    "Step",
    "cross_correlation",
    "feature_penalty",
    "layer_cosine",
    "layer_l1",
    "layer_l2",
    "make_objectives",
    "masked_mean",
    "self_correlation",
    "si_snr_db",
    "spectral_distance",
    "valid_frames",
]
