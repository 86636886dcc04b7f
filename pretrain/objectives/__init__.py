"""The terms of the distillation loss, one module per family; each has its formula and its source in its docstring."""

from .base import Objective, Step
from .layerwise import feature_penalty, layer_cosine, layer_l1, masked_mean, spectral_distance, valid_frames

__all__ = [
    "Objective",
    "Step",
    "feature_penalty",
    "layer_cosine",
    "layer_l1",
    "masked_mean",
    "spectral_distance",
    "valid_frames",
]
