"""What keeps features from being cached."""

from __future__ import annotations


class CacheError(ValueError):
    """A cache cannot be used as asked."""


class DependsOnBatch(CacheError):
    """Features of an upstream depend on what an utterance is batched with: a cache would change scores."""
