"""The terms of the distillation loss, one module per family; each has its formula and its source in its docstring."""

from .base import Objective, Step
from .correlation import cross_correlation, self_correlation
from .layerwise import feature_penalty, layer_cosine, layer_l1, layer_l2
from .spectra import spectral_distance
from .tensors import masked_mean, valid_frames

__all__ = [
    "Objective",
    "Step",
    "cross_correlation",
    "feature_penalty",
    "layer_cosine",
    "layer_l1",
    "layer_l2",
    "masked_mean",
    "self_correlation",
    "spectral_distance",
    "valid_frames",
]
