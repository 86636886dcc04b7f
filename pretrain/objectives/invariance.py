"""Agreement of the student with itself under two corruptions of the same utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.distances import layer_cosine, layer_l1
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
class _OfViews(Objective):
    """A distance between two views of the student."""

    distance: Literal["l1", "cosine"] = "cosine"
    features: Literal["predictions", "last_hidden"] = "predictions"

    def check(self, shapes: Shapes) -> None:
        """Refuse features that the student does not have, and views that are all clean."""
        if self.features == "predictions" and shapes.match != "heads":
            raise SettingsError(
                "features=predictions needs prediction heads, and this student has none; set it to last_hidden, or "
                "targets.match=heads"
            )
        if not shapes.corrupted:
            raise SettingsError(
                "the recipe corrupts nothing, so that all views are the same but for dropout; give a corruption or "
                "weight 0"
            )

    def select(self, output: EncoderOutput) -> list[Tensor]:
        """What of a view is compared."""
        return [output.hidden_states[-1]] if self.features == "last_hidden" else list(output.predictions)


@dataclass
class Invariance(_OfViews):
    """Distance between what the student makes of two corruptions of one utterance; doubles the student's work.

    Features that are the same for every input would have distance 0. Nothing here keeps the student from them, because
    the teacher's targets do: use it beside a term that compares with the teacher.

    Attributes:
        weight: in the loss; 0 leaves it out.
        distance: `cosine` is 1 - cos, `l1` the mean absolute difference.
        features: `predictions` of the heads (needs targets.match=heads) or the `last_hidden` state.
        stop_gradient: `none` pulls both views together; otherwise that view is taken as given.

    >>> sorted(Invariance(features="last_hidden").needs)
    ['second_view']
    """

    stop_gradient: StopGradient = "none"

    @property
    def needs(self) -> frozenset[str]:
        """A second corruption."""
        return frozenset({"second_view"})

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """(targets,) for predictions, (1,) for the last hidden state."""
        first, second = self.select(step.student), self.select(step.second)
        return view_distance(first, second, step.valid, self.distance, self.stop_gradient)


@dataclass
class Anchor(_OfViews):
    """Distance of what the student makes of corrupted speech from what it makes of the clean speech, taken as given.

    The clean view has no gradient, so that it is not drawn towards the corrupted one; it costs a forward pass.

    Attributes:
        weight: in the loss; 0 leaves it out.
        distance: `cosine` is 1 - cos, `l1` the mean absolute difference.
        features: `predictions` of the heads (needs targets.match=heads) or the `last_hidden` state.

    >>> sorted(Anchor(0.1).needs)
    ['clean_view']
    """

    @property
    def needs(self) -> frozenset[str]:
        """The clean utterances through the student."""
        return frozenset({"clean_view"})

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """(targets,) for predictions, (1,) for the last hidden state."""
        return view_distance(self.select(step.clean), self.select(step.student), step.valid, self.distance, "first")
