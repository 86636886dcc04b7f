"""What an objective is, and what it may look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import NotNegative
from robustdistiller.pretrain.data.dataset import Batch
from robustdistiller.upstream import EncoderConfig, EncoderOutput


@dataclass(frozen=True)
class Shapes:
    """What objectives may know before the first step.

    Attributes:
        student: shape of the student.
        state_widths: per target, the width of `Step.student_states`.
        target_widths: per target, the width of `Step.targets`.
        match: whether targets are predicted by heads or from layers.
        num_units: how many units the teacher's frames are divided into, if they are.
        num_teachers: how many teachers the targets come from.
    """

    student: EncoderConfig
    state_widths: tuple[int, ...]
    target_widths: tuple[int, ...]
    match: Literal["heads", "layers"] = "heads"
    num_units: int | None = None
    num_teachers: int = 1


@dataclass
class Step:
    """One batch after the teachers and the student have heard it. B utterances, T frames of the student.

    Attributes:
        batch: the clean speech.
        student_input: (B, samples) what the student heard.
        student: its output.
        student_states: per target (B, T, D), the student's hidden state, or the mean of its group, that the prediction
            is made from: before any map that is used in training only.
        predictions: per target (B, T, D) with the teacher's widths, of the student.
        targets: per target (B, T, D), of the teacher.
        valid: (B, T) bool, frames that student and teachers have and that are not padding.
        snr_db: (B,) of what the student heard; infinite where no noise was added.
        teacher_snr_db: (B,) of what the teacher heard.
        second: the student's output for another corruption of the same utterances, if an objective needs it.
        clean: the student's output for the clean utterances, without gradient, if an objective needs it.
        mask: (B, T) bool, frames that were masked at the student's input; `None` where nothing is masked.
        units: (B, T) int64, the teacher's units, if there are such.
        global_step: optimizer steps done before this one.
    """

    batch: Batch
    student_input: Tensor
    student: EncoderOutput
    student_states: list[Tensor]
    predictions: list[Tensor]
    targets: list[Tensor]
    valid: Tensor
    snr_db: Tensor
    teacher_snr_db: Tensor
    second: EncoderOutput | None = None
    clean: EncoderOutput | None = None
    mask: Tensor | None = None
    units: Tensor | None = None
    global_step: int = 0


@dataclass
class Objective:
    """One term of the loss: its settings and its formula.

    Attributes:
        weight: in the loss, applied by the training step; 0 leaves the term out.
        mean_over: what the value is a mean over, so that batches of unequal size count as if they were one: valid
            `frames`, `masked_frames` (all valid ones where nothing is masked), `utterances`, `spectra` (of the
            enhancement head, `num_spectra` of each utterance) or `batches`.
        needs: what of `Step` must be there: `corruption` of what the student hears, and what costs work, `second_view`,
            `clean_view` or `units`.
        reads_predictions: whether `Step.predictions` has a part in the value: maps and heads that nothing reads are not
            trained.
    """

    weight: NotNegative = 0.0

    mean_over: ClassVar[str] = "frames"
    needs: ClassVar[frozenset[str]] = frozenset()
    reads_predictions: ClassVar[bool] = False

    def check(self, shapes: Shapes) -> None:
        """Refuse options that do not fit, before the first step, with a `SettingsError`."""

    def make_head(self, shapes: Shapes) -> nn.Module | None:
        """The parameters that the term needs, used in training only; `None` if it has none."""
        return None

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """The unweighted term: a scalar, or one value per target, of which the mean is taken."""
        raise NotImplementedError


def hidden_state(output: EncoderOutput, layer: int | str) -> Tensor:
    """The output of a layer, `last_hidden` being that of the last one and 0 the input of the first: (B, T, D)."""
    return output.hidden_states[-1 if layer == "last_hidden" else layer]


def check_layer(key: str, layer: int | str, student: EncoderConfig, words: str = "last_hidden") -> None:
    """Refuse a number of a layer that the student does not have; `words` may stand in place of a number."""
    if isinstance(layer, int) and not 0 <= layer <= student.num_layers:
        raise SettingsError(f"{key}: found layer {layer}, expected 0 to {student.num_layers} or {words}")
