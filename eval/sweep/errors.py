"""What goes wrong in a sweep."""

from __future__ import annotations


class SweepError(ValueError):
    """A sweep cannot run as it is written; the message is one sentence."""
