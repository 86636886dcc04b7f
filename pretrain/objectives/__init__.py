"""The terms of the distillation loss, one module per family; each has its formula and its source in its docstring."""

from .base import Objective, Step
from .correlation import cross_correlation, self_correlation
from .layerwise import feature_penalty, layer_cosine, layer_l1, layer_l2
from .registry import ObjectivesConfig, make_objectives
from .spectra import si_snr_db, spectral_distance
from .tensors import masked_mean, valid_frames

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
