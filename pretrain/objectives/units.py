"""Masked prediction: which unit of the teacher a frame is, at frames that were hidden from the student.

The loss of HuBERT (arXiv 2106.07447, eq. 1) with the teacher's k-means units, which is how DiceHuBERT (arXiv
2507.02911) distils; here the unmasked parts are corrupted speech besides. How units are found is in `teacher.units`,
how frames are masked in `student.masking`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import NotNegative
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step, check_layer, hidden_state
from robustdistiller.pretrain.objectives.ops import at_least_float32


def unit_cross_entropy(
    logits: Tensor, units: Tensor, valid: Tensor, mask: Tensor | None = None, unmasked_weight: float = 0.0
) -> Tensor:
    """Cross-entropy of the teacher's units (B, T) by logits (B, T, K), per masked frame.

    With M the valid masked frames, U the valid others, w the weight of these, and p the softmax of the logits,

        (1 / |M|) (sum_{t in M} -log p_t(unit_t) + w sum_{t in U} -log p_t(unit_t))

    a scalar in float32: log K for equal logits; 0 where nothing is masked. Without a mask, every valid frame counts as
    masked.

    >>> import torch
    >>> logits, units = torch.zeros(1, 3, 4), torch.tensor([[0, 3, 2]])
    >>> unit_cross_entropy(logits, units, torch.tensor([[True, True, False]]))  # log 4
    tensor(1.3863)
    """
    losses = F.cross_entropy(
        at_least_float32(logits).flatten(0, 1), units.masked_fill(~valid, 0).flatten(), reduction="none"
    )
    losses = losses.reshape(valid.shape)
    masked = valid if mask is None else valid & mask
    weights = masked + unmasked_weight * (valid & ~masked)
    return (losses.masked_fill(~valid, 0.0) * weights).sum() / masked.sum().clamp(min=1)


@dataclass
class Units(Objective):
    """Prediction of the teacher's units at masked frames, `unit_cross_entropy`, by a linear head.

    Attributes:
        weight: in the loss; 0 leaves it out.
        layer: of the student that predicts: the `last_hidden` state or a number (0: the input of the first layer).
        unmasked_weight: of the frames that are not masked, beside 1 for those that are. Without masking, all frames
            count as masked.
    """

    layer: int | Literal["last_hidden"] = "last_hidden"
    unmasked_weight: NotNegative = 0.0

    mean_over: ClassVar[str] = "masked_frames"
    needs: ClassVar = frozenset({"units"})

    def check(self, shapes: Shapes) -> None:
        check_layer("layer", self.layer, shapes.student)
        if shapes.num_units is None:
            raise SettingsError("the teacher's frames are not divided into units; say how, or give weight 0")

    def make_head(self, shapes: Shapes) -> nn.Module:
        return nn.Linear(shapes.student.embed_dim, shapes.num_units)

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        logits = head(hidden_state(step.student, self.layer))
        return unit_cross_entropy(logits, step.units, step.valid, step.mask, self.unmasked_weight)
