"""What an objective is, and what it may look at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from robustdistiller.pretrain.data.dataset import Batch
from robustdistiller.upstream import EncoderOutput


@dataclass
class Step:
    """One batch after the teacher and the student have heard it. B utterances, T frames, D teacher widths.

    Attributes:
        batch: the clean speech.
        heard: (B, samples) what the student heard.
        output: of the student.
        predictions: per target (B, T, D), of the student.
        targets: per target (B, T, D), of the teacher.
        valid: (B, T) bool, frames that are not padding.
        snr_db: (B,) of what the student heard; infinite where no noise was added.
        teacher_snr_db: (B,) of what the teacher heard.
        second: the student's output for another corruption of the same utterances, if an objective needs it.
        global_step: optimizer steps done before this one.
    """

    batch: Batch
    heard: Tensor
    output: EncoderOutput
    predictions: list[Tensor]
    targets: list[Tensor]
    valid: Tensor
    snr_db: Tensor
    teacher_snr_db: Tensor
    second: EncoderOutput | None = None
    global_step: int = 0


class Objective(nn.Module):
    """One term of the loss. Its weight is applied by the trainer.

    Attributes:
        needs_second_view: whether `Step.second` must be there.
        has_head: whether it has parameters, made for the student's shape: the first argument of its constructor.
    """

    needs_second_view = False
    has_head = False

    def forward(self, step: Step) -> Tensor:
        """The unweighted term: a scalar, or one value per target."""
        raise NotImplementedError
