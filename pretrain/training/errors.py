"""What ends a training: a loss that is NaN or infinite, a full disk, and being asked to stop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustdistiller.common.errors import RunFailed

if TYPE_CHECKING:
    from robustdistiller.pretrain.objectives import Step

ADVICE = (
    "The last checkpoint is untouched: remove the utterances, or change settings (a smaller optim.lr, "
    "trainer.precision=fp32) in a new out_dir."
)

_LAG_STEPS = 1  # by so many steps the processor may run ahead of a GPU


class NonFiniteLossError(RunFailed):
    """The loss or its gradient is NaN or infinite; the message names the step and the utterances."""


class DiskFullError(OSError):
    """What a run has to keep does not fit on the disk; the message names the file and what to do."""


class RunInterrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved a checkpoint; the same call continues it.

    Attributes:
        exit_code: for a command: 0 when its own time limit stopped it, 130 for a signal.

    >>> RunInterrupted("stopped by SIGINT at step 7 of 10").exit_code
    130
    """

    def __init__(self, message: str, exit_code: int = 130):
        super().__init__(message)
        self.exit_code = exit_code


class FiniteWatch:
    """Raises when a number that had to be finite is not: at once on a CPU, up to two steps later on a GPU.

    Looking at a number of a GPU waits until it is there, and the GPU then waits for the next thing to do. So the answer
    is asked for, and looked at when it has long arrived, or before anything is saved.
    """

    def __init__(self) -> None:
        self._asked: deque[tuple[int, Tensor, torch.Event, Callable[[], str]]] = deque()

    def expect(self, value: Tensor, step: int, describe: Callable[[], str]) -> None:
        """The scalar `value` of optimizer step `step` has to be finite; `describe` makes the message if it is not.

        It is kept for some steps, so `describe` must hold no large tensors of a GPU.

        Raises:
            NonFiniteLossError: it is not.
        """
        good = torch.isfinite(value.detach())
        if good.device.type == "cpu":
            if not good:
                raise NonFiniteLossError(describe())
            return
        answer = good.to("cpu", non_blocking=True)
        arrived = torch.Event(good.device)
        arrived.record()
        self._asked.append((step, answer, arrived, describe))

    def settle(self, step: int | None = None) -> None:
        """Look at the answers that have arrived when optimizer step `step` begins; `None` waits for all.

        Raises:
            NonFiniteLossError: of the earliest number that is not finite.
        """
        while self._asked and (step is None or self._asked[0][0] < step - _LAG_STEPS):
            _, answer, arrived, describe = self._asked.popleft()
            arrived.synchronize()
            if not answer:
                raise NonFiniteLossError(describe())


class Places:
    """Where in a step the first numbers are that are not finite, by utterance: a few bits of each tensor."""

    def __init__(self, step: Step):
        self.ids = step.batch.ids
        places = {
            "the speech": [step.batch.waveforms],
            "the corrupted speech": [step.student_input],
            "the teacher's layers": step.targets,
            "the student's predictions": [*step.predictions, step.student.hidden_states[-1]],
        }
        self._rows = {place: _finite_rows(tensors) for place, tensors in places.items()}

    def describe(self) -> str:
        """In words."""
        for place, rows in self._rows.items():
            bad = [name for name, good in zip(self.ids, rows.tolist()) if not good]
            if bad:
                return f"first in {place} of {', '.join(bad)}"
        return "only in the loss itself"


def _finite_rows(tensors: Sequence[Tensor]) -> Tensor:
    """(B,) bool."""
    return torch.stack([torch.isfinite(one.detach()).flatten(1).all(1) for one in tensors]).all(0)
