"""An objective of your own: Huber's distance of predictions and targets."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustdistiller.pretrain.objectives import Objective, Step, masked_mean


@dataclass
class Huber(Objective):
    """Huber's distance of predictions and targets."""

    reads_predictions: ClassVar[bool] = True
    delta: float = 1.0

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        distance = nn.HuberLoss(reduction="none", delta=self.delta)
        values = []
        for prediction, target in zip(step.predictions, step.targets):
            distances = distance(prediction, target)  # (batch, frames, width)
            values.append(masked_mean(distances.mean(-1), step.valid))
        return torch.stack(values)  # one value per target
