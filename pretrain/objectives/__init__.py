"""The terms of the distillation loss, one module per family; each has its formula and its source in its docstring."""

from .base import Objective, Shapes, Step
from .config import ObjectivesConfig
from .correlation import cross_correlation, self_correlation
from .distances import feature_penalty, layer_cosine, layer_l1, layer_l2
from .ops import masked_mean, valid_frames
from .spectra import si_snr_db, spectral_distance

__all__ = [
    "Objective",
    "ObjectivesConfig",
    "Shapes",
    "Step",
    "cross_correlation",
    "feature_penalty",
    "layer_cosine",
    "layer_l1",
    "layer_l2",
    "masked_mean",
    "self_correlation",
    "si_snr_db",
    "spectral_distance",
    "valid_frames",
]
