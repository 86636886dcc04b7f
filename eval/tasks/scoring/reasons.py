"""Why there is no score."""

from __future__ import annotations


class ScoringError(ValueError):
    """A benchmark's score cannot be computed; the message is one sentence."""
