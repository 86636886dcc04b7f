"""An exact cache of what a frozen upstream computes, in the upstream's place in s3prl's runner."""

from .errors import CacheError, NotReproducible
from .plan import CachePlan

__all__ = ["CacheError", "CachePlan", "NotReproducible"]
