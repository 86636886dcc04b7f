"""What keeps features from being cached."""

from __future__ import annotations


class CacheError(ValueError):
    """A cache cannot be used as asked."""


class NotReproducible(CacheError):
    """An upstream does not give the same features for the same batch: a cache would change scores."""
