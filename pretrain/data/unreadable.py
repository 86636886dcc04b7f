"""Audio that cannot be read in the middle of a run: passed over, listed, and not too much of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from robustdistiller.common.files import write_text

logger = logging.getLogger(__name__)


class UnreadableAudioError(ValueError):
    """More audio cannot be read than `data.unreadable_budget` allows; the message names it."""


class UnreadableAudio:
    """Keeps count of the recordings of a run that cannot be read, each counted once however often it comes.

    Args:
        budget: how many may be missing.
        list_path: text file that lists them, one a line; it is made when there is one to list.
    """

    def __init__(self, budget: int = 10, list_path: Path | None = None):
        self.budget, self.list_path = budget, list_path
        self.reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, found: Iterable[tuple[str, str]]) -> None:
        """Count what is new among some (key, reason) pairs; an UnreadableAudioError says that there are too many."""
        new = {key: reason for key, reason in found if key not in self.reasons}
        if not new:
            return
        self.load_state_dict(new)
        for number, reason in enumerate(new.values(), start=len(self) - len(new) + 1):
            logger.warning("left out, %d of at most %d: %s", number, self.budget, reason)
        if len(self) > self.budget:
            known = self.budget > 0
            allowed = f"more than data.unreadable_budget={self.budget} allows" if known else "and none may be missing"
            raise UnreadableAudioError(
                f"{len(self)} recording{'s' * (len(self) != 1)} cannot be read, {allowed}: {self.describe()}. Put them "
                f"back{' or raise the budget' * known}, and give the same command again: a run goes on with the same "
                "speech only. The last checkpoint is untouched"
            )

    def describe(self, limit: int = 20) -> str:
        """The reasons in one line, not more than `limit` of them."""
        reasons = list(self.reasons.values())
        return "; ".join(reasons[:limit]) + f"; and {len(reasons) - limit} more" * (len(reasons) > limit)

    def state_dict(self) -> dict[str, str]:
        """What goes into a checkpoint."""
        return dict(self.reasons)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Take over what another process or an earlier start has found; nothing known is forgotten."""
        before = len(self)
        self.reasons |= state
        if self.list_path is not None and len(self) > before:
            lines = "".join(f"{reason}\n" for reason in self.reasons.values())
            write_text(self.list_path, lines)
