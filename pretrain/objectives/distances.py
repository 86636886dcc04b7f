"""Distances between predicted and teacher features, frame by frame, one value per target.

Notation: B utterances padded to T frames, of which utterance b has n_b valid ones; V = sum of n_b. `predictions` and
`targets` hold one (B, T, D) tensor per target, `valid` is (B, T) bool, and a result is (targets,) in float32. Every
mean runs over the V valid frames only. The released code averages over the padded frames too, so that its loss depends
on how utterances happened to be batched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.config.trainer import Count
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.ops import at_least_float32, masked_mean, pool_frames

Tensors = Sequence[Tensor]


def layer_l1(predictions: Tensors, targets: Tensors, valid: Tensor) -> Tensor:
    """Mean absolute difference per target: (1 / (V D)) sum |p_btd - t_btd|, 0 at a perfect match.

    This is the first term of DistilHuBERT (arXiv 2110.01900, eq. 1).
    """
    return _mean_per_target(lambda p, t: (p - t).abs().mean(-1), predictions, targets, valid)


def layer_cosine(
    predictions: Tensors, targets: Tensors, valid: Tensor, form: Literal["log_sigmoid", "raw"] = "log_sigmoid"
) -> Tensor:
    """Mean cosine distance per target: (1 / V) sum f(cos(p_bt, t_bt)).

    `log_sigmoid` is f(c) = -log sigmoid(c), the second term of DistilHuBERT (arXiv 2110.01900, eq. 1), from 0.3133 for
    the same direction to 1.3133 for opposite ones. `raw` is f(c) = 1 - c, from 0 to 2. DPHuBERT (arXiv 2305.17651) adds
    -c instead: the same gradient, a value lower by 1.

    >>> layer_cosine([torch.ones(1, 2, 4)], [torch.ones(1, 2, 4)], torch.ones(1, 2, dtype=torch.bool))
    tensor([0.3133])
    """

    def distance(p: Tensor, t: Tensor) -> Tensor:
        cosine = F.cosine_similarity(p, t, dim=-1)
        return 1 - cosine if form == "raw" else -F.logsigmoid(cosine)

    return _mean_per_target(distance, predictions, targets, valid)


def _mean_per_target(
    distance: Callable[[Tensor, Tensor], Tensor], predictions: Tensors, targets: Tensors, valid: Tensor
) -> Tensor:
    pairs = ((at_least_float32(p), at_least_float32(t)) for p, t in zip(predictions, targets, strict=True))
    return torch.stack([masked_mean(distance(p, t), valid) for p, t in pairs])


@dataclass
class _PerTarget(Objective):
    """A distance per target, times the target's weight."""

    target_weights: tuple[float, ...] | None = None

    reads_predictions: ClassVar[bool] = True

    def check(self, shapes: Shapes) -> None:
        if self.target_weights is not None and len(self.target_weights) != len(shapes.target_widths):
            raise SettingsError(
                f"target_weights: found {len(self.target_weights)} values for {len(shapes.target_widths)} targets; "
                "give one per target, or null for equal weights"
            )

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """(targets,), each times its weight."""
        values = self.distance(step)
        if self.target_weights is None:
            return values
        return values * torch.tensor(self.target_weights, dtype=values.dtype).to(values.device, non_blocking=True)

    def distance(self, step: Step) -> Tensor:
        """(targets,) without weights."""
        raise NotImplementedError


@dataclass
class L1(_PerTarget):
    """Mean absolute difference between predicted and teacher features, `layer_l1`.

    Attributes:
        weight: in the loss; 0 leaves it out.
        target_weights: one factor per target on its value; null is 1 for each. The mean over targets is taken, so that
            factors that sum to the number of targets keep the size of the term.
    """

    def distance(self, step: Step) -> Tensor:
        return layer_l1(step.predictions, step.targets, step.valid)


@dataclass
class L2(_PerTarget):
    """Mean squared difference between predicted and teacher features: per target (1 / (V D)) sum (p_btd - t_btd)^2.

    Attributes:
        weight: in the loss; 0 leaves it out.
        target_weights: as in `L1` (ARMHuBERT: 1.0 for the last layer, 0.1 for the others).
    """

    def distance(self, step: Step) -> Tensor:
        return _mean_per_target(lambda p, t: (p - t).square().mean(-1), step.predictions, step.targets, step.valid)


@dataclass
class Cosine(_PerTarget):
    """Cosine distance between predicted and teacher features, `layer_cosine`.

    Attributes:
        weight: in the loss; 0 leaves it out.
        form: `log_sigmoid` is -log sigmoid(cos) (DistilHuBERT), `raw` is 1 - cos (DPHuBERT, up to a constant).
        frames: time is pooled to so many frames first, over each utterance's valid frames, so that each utterance
            counts alike; null keeps time.
        target_weights: as in `L1`.
    """

    form: Literal["log_sigmoid", "raw"] = "log_sigmoid"
    frames: Count | None = None

    @property
    def mean_over(self) -> str:
        return "frames" if self.frames is None else "utterances"

    def distance(self, step: Step) -> Tensor:
        if self.frames is None:
            return layer_cosine(step.predictions, step.targets, step.valid, self.form)
        p, t = ([pool_frames(x, step.valid, self.frames) for x in xs] for xs in (step.predictions, step.targets))
        return layer_cosine(p, t, step.valid.any(1, keepdim=True).expand(-1, self.frames), self.form)


@dataclass
class FeaturePenalty(Objective):
    """Mean square of the student's conv features, as in wav2vec 2.0: (1 / (V C)) sum f_btc^2; off in the recipes."""

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        return masked_mean(at_least_float32(step.student.extractor_features).square().mean(-1), step.valid)
