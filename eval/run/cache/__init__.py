"""An exact cache of what a frozen upstream computes, between it and s3prl's runner; experts stay unchanged."""

from .attach import FeatureCache, attach
from .errors import CacheError, DependsOnBatch
from .plan import CachePlan
from .pooling import reads_means_only
from .read_ahead import ReadAhead

__all__ = [
    "CacheError",
    "CachePlan",
    "DependsOnBatch",
    "FeatureCache",
    "ReadAhead",
    "attach",
    "reads_means_only",
]
