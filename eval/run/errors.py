"""What keeps a head from being trained or evaluated."""

from __future__ import annotations


class RunError(ValueError):
    """What is asked for cannot run; the message is one sentence."""
