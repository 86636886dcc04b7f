"""An exact cache of what a frozen upstream computes, between it and s3prl's runner; experts stay unchanged."""

from .attach import FeatureCache, attach
from .plan import CachePlan
from .pooling import reads_means_only
from .read_ahead import ReadAhead
from .store import CacheError, DependsOnBatch, FeatureStore

__all__ = [
    "CacheError",
    "CachePlan",
    "DependsOnBatch",
    "FeatureCache",
    "FeatureStore",
    "ReadAhead",
    "attach",
    "reads_means_only",
]
