"""Agreement of the student with itself: under two corruptions of an utterance, or with its own view of clean speech."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step, check_layer, hidden_state
from robustdistiller.pretrain.objectives.distances import layer_cosine, layer_l1
from robustdistiller.upstream import EncoderOutput


@dataclass
class _OfViews(Objective):
    """A distance between two views of the student."""

    distance: Literal["l1", "cosine"] = "cosine"
    features: int | Literal["predictions", "last_hidden"] = "predictions"

    @property
    def reads_predictions(self) -> bool:
        return self.features == "predictions"

    def check(self, shapes: Shapes) -> None:
        if self.features == "predictions" and shapes.match != "heads":
            raise SettingsError(
                "features: predictions are those of heads, and with targets.match=layers there are none; give "
                "last_hidden or the number of a layer, or targets.match=heads"
            )
        check_layer("features", self.features, shapes.student, "last_hidden")

    def compare(self, first: EncoderOutput, second: EncoderOutput, valid: Tensor) -> Tensor:
        """(targets,) for predictions, a scalar for a hidden state."""
        one, other = (
            list(view.predictions) if self.features == "predictions" else [hidden_state(view, self.features)]
            for view in (first, second)
        )
        values = layer_l1(one, other, valid) if self.distance == "l1" else layer_cosine(one, other, valid, "raw")
        return values if self.features == "predictions" else values.squeeze(0)


@dataclass
class Invariance(_OfViews):
    """Distance between what the student makes of two corruptions of one utterance; doubles the student's work.

    With the two views x and y of the same V valid frames it is (1 / V) sum 1 - cos(x, y) or (1 / (V D)) sum |x - y|.
    Features that are the same for every input would have distance 0. Nothing here keeps the student from them, because
    the teacher's targets do: use it beside a term that compares with the teacher.

    Attributes:
        weight: in the loss; 0 leaves it out.
        distance: `cosine` is 1 - cos, from 0 to 2, `l1` the mean absolute difference.
        features: `predictions` of the heads (with targets.match=heads), the `last_hidden` state, or the number of a
            layer (0: the input of the first).
        stop_gradient: `none` pulls both views together; otherwise that view is taken as given.
    """

    stop_gradient: Literal["none", "first", "second"] = "none"

    needs: ClassVar = frozenset({"corruption", "second_view"})

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        first = detached(step.student) if self.stop_gradient == "first" else step.student
        second = detached(step.second) if self.stop_gradient == "second" else step.second
        return self.compare(first, second, step.valid)


@dataclass
class Anchor(_OfViews):
    """Distance of what the student makes of corrupted speech from what it makes of the clean speech, taken as given.

    The formulas are those of `Invariance`. The clean view has no gradient, so that only the corrupted one is drawn to
    the other; it costs a forward pass. The idea of pulling noisy to clean representations with a stopped gradient is
    common (BYOL, arXiv 2006.07733, stops it at one of two views); the form here is ours.

    Attributes:
        weight: in the loss; 0 leaves it out.
        distance: as in `Invariance`.
        features: as in `Invariance`.
    """

    needs: ClassVar = frozenset({"corruption", "clean_view"})

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        return self.compare(step.student, detached(step.clean), step.valid)


def detached(output: EncoderOutput) -> EncoderOutput:
    """The states and predictions of an output as constants."""
    states = [None if state is None else state.detach() for state in output.hidden_states]
    return output._replace(hidden_states=states, predictions=[one.detach() for one in output.predictions])
