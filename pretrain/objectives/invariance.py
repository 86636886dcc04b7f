"""Agreement of the student with itself under two corruptions of the same utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective, Step
from robustdistiller.pretrain.objectives.layerwise import layer_cosine, layer_l1
from robustdistiller.upstream import EncoderOutput

StopGradient = Literal["none", "first", "second"]


def view_distance(
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    valid: Tensor,
    distance: Literal["l1", "cosine"] = "cosine",
    stop_gradient: StopGradient = "none",
) -> Tensor:
    """Mean distance of two views x, y of the same frames: (1 / V) sum |x - y|_1 / D (`l1`) or 1 - cos(x, y) (`cosine`).

    Args:
        first: features under one corruption, each (B, T, D).
        second: the same features under another.
        valid: (B, T) bool.
        distance: which.
        stop_gradient: the view that is taken as given, so that only the other one is pulled towards it.

    Returns:
        One value per feature tensor, >= 0; 0 where the views agree (`cosine`: in direction), 2 at most for `cosine`.

    >>> import torch
    >>> x = torch.tensor([[[1.0, 0.0]]])
    >>> view_distance([x, x], [2 * x, x.flip(-1)], torch.ones(1, 1, dtype=torch.bool))
    tensor([0., 1.])
    """
    if stop_gradient == "first":
        first = [x.detach() for x in first]
    elif stop_gradient == "second":
        second = [x.detach() for x in second]
    return layer_l1(first, second, valid) if distance == "l1" else layer_cosine(first, second, valid, "raw")


@dataclass
class InvarianceConfig:
    """Distance between what the student makes of two corruptions of one utterance; doubles the student's work.

    Attributes:
        weight: in the loss; 0 leaves it out.
        distance: `cosine` is 1 - cos, `l1` the mean absolute difference.
        features: `predictions` of the heads (needs targets.match=heads) or the `last_hidden` state.
        stop_gradient: `none` pulls both views together; otherwise that view is taken as given.
    """

    weight: float = 0.0
    distance: Literal["l1", "cosine"] = "cosine"
    features: Literal["predictions", "last_hidden"] = "predictions"
    stop_gradient: StopGradient = "none"


class Invariance(Objective):
    """`view_distance` of the student's outputs.

    Features that are the same for every input would have distance 0. Nothing here keeps the student from them, because
    the teacher's targets do: use it beside a term that compares with the teacher.

    >>> Invariance(features="last_hidden").needs_second_view
    True
    """

    needs_second_view = True

    def __init__(
        self,
        distance: Literal["l1", "cosine"] = "cosine",
        features: Literal["predictions", "last_hidden"] = "predictions",
        stop_gradient: StopGradient = "none",
    ):
        super().__init__()
        self.distance, self.features, self.stop_gradient = distance, features, stop_gradient

    def forward(self, step: Step) -> Tensor:
        """(targets,) for predictions, a scalar for the last hidden state.

        Raises:
            SettingsError: the student has no prediction heads to compare.
        """
        first, second = self._select(step.output), self._select(step.second)
        values = view_distance(first, second, step.valid, self.distance, self.stop_gradient)
        return values if self.features == "predictions" else values.squeeze(0)

    def _select(self, output: EncoderOutput) -> list[Tensor]:
        if self.features == "last_hidden":
            return [output.hidden_states[-1]]
        if not output.predictions:
            raise SettingsError(
                "objectives.invariance.features=predictions needs prediction heads, and this student has none; "
                "set it to last_hidden, or targets.match=heads"
            )
        return output.predictions
