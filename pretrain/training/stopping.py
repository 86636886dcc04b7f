"""Being asked to stop: signals, a time limit, and what all processes agree on."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric

from robustdistiller.pretrain.training.errors import RunInterrupted

#: SIGUSR1 is what `sbatch --signal=USR1@120` sends before the time is up.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))

_POLL_STEPS = 10  # several processes ask one another every so many steps, because asking waits for a GPU


def gathered(fabric: Fabric, value: Any) -> list[Any]:
    """What each process has; all of them have to call this."""
    found = [value] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(found, value)
    return found


class StopRequest:
    """Whether training is to end after the current step. Use it as a context, which gives the signals back.

    The first signal lets the current step finish; a second one interrupts at once.

    Args:
        max_hours: since now; `None` is no limit.

    Attributes:
        reason: the signal's name or the limit; empty while nothing was asked.
    """

    def __init__(self, max_hours: float | None = None):
        self.reason, self._max_hours, self._start_s = "", max_hours, time.monotonic()
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def due(self, fabric: Fabric | None, step: int) -> bool:
        """Whether to stop after this step, the same answer in all processes; without `fabric` for this one."""
        hours = self._max_hours
        if hours is not None and time.monotonic() - self._start_s > hours * 3600:
            self.reason = self.reason or f"trainer.max_hours={hours:g}"
        if fabric is None or fabric.world_size == 1:
            return bool(self.reason)
        if step % _POLL_STEPS:
            return False
        if fabric.strategy.reduce_boolean_decision(bool(self.reason), all=False):
            self.reason = next(filter(None, gathered(fabric, self.reason)))
            return True
        return False

    def interruption(self, place: str, out_dir: Path) -> RunInterrupted:
        """What ends a run that has stopped at a place in its training and has saved a checkpoint."""
        message = f"stopped by {self.reason} at {place}; everything is saved in {out_dir}: the same command continues"
        return RunInterrupted(message, exit_code=0 if self.reason.startswith("trainer.") else 130)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.reason:
            raise KeyboardInterrupt
        self.reason = signal.Signals(number).name
