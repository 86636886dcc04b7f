"""Distances between predicted and teacher features, frame by frame, one value per target.

Notation: B utterances padded to T frames, of which utterance b has n_b valid ones; V = sum of n_b. Every mean runs
over the V valid frames only. The released code averages over the padded frames too, so that its loss depends on how
utterances happened to be batched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective, Shapes, Step
from robustdistiller.pretrain.objectives.ops import at_least_float32, masked_mean, pool_frames


def layer_l1(predictions: Sequence[Tensor], targets: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Mean absolute difference per target: (1 / (V D)) sum |p_btd - t_btd|.

    The first term of DistilHuBERT (arXiv 2110.01900, eq. 1).

    Args:
        predictions: per target (B, T, D), output of the student's head.
        targets: per target (B, T, D), hidden state of the teacher.
        valid: (B, T) bool.

    Returns:
        (targets,) float32, each >= 0; 0 at a perfect match.

    >>> layer_l1([torch.zeros(1, 2, 4)], [torch.ones(1, 2, 4)], torch.ones(1, 2, dtype=torch.bool))
    tensor([1.])
    """
    return torch.stack([masked_mean(_difference(p, t).abs().mean(-1), valid) for p, t in zip(predictions, targets)])


def layer_l2(predictions: Sequence[Tensor], targets: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Mean squared difference per target: (1 / (V D)) sum (p_btd - t_btd)^2, as in FitHuBERT and ARMHuBERT.

    Args:
        predictions: per target (B, T, D).
        targets: per target (B, T, D).
        valid: (B, T) bool.

    Returns:
        (targets,) float32, each >= 0; 0 at a perfect match.

    >>> layer_l2([torch.zeros(1, 2, 4)], [torch.full((1, 2, 4), 3.0)], torch.ones(1, 2, dtype=torch.bool))
    tensor([9.])
    """
    return torch.stack([masked_mean(_difference(p, t).square().mean(-1), valid) for p, t in zip(predictions, targets)])


def layer_cosine(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor],
    valid: Tensor,
    form: Literal["log_sigmoid", "raw"] = "log_sigmoid",
) -> Tensor:
    """Mean cosine distance per target: (1 / V) sum f(cos(p_bt, t_bt)).

    `log_sigmoid`: f(c) = -log sigmoid(c), the second term of DistilHuBERT (arXiv 2110.01900, eq. 1): 0.3133 for the
    same direction, 0.6931 for orthogonal ones, 1.3133 for opposite ones. `raw`: f(c) = 1 - c, from 0 over 1 to 2.
    DPHuBERT (arXiv 2305.17651) adds -c instead: the same gradient, a value lower by 1.

    Args:
        predictions: per target (B, T, D).
        targets: per target (B, T, D).
        valid: (B, T) bool.
        form: f.

    Returns:
        (targets,) float32.

    >>> layer_cosine([torch.ones(1, 2, 4)], [torch.ones(1, 2, 4)], torch.ones(1, 2, dtype=torch.bool))
    tensor([0.3133])
    """
    cosines = (
        F.cosine_similarity(at_least_float32(p), at_least_float32(t), dim=-1) for p, t in zip(predictions, targets)
    )
    distances = (1 - cosine if form == "raw" else -F.logsigmoid(cosine) for cosine in cosines)
    return torch.stack([masked_mean(distance, valid) for distance in distances])


def feature_penalty(features: Tensor, valid: Tensor) -> Tensor:
    """Mean square of the conv features: (1 / (V C)) sum f_btc^2, as in wav2vec 2.0; off in the published recipes.

    Args:
        features: (B, T, C).
        valid: (B, T) bool.

    >>> feature_penalty(torch.full((1, 2, 4), 3.0), torch.ones(1, 2, dtype=torch.bool))
    tensor(9.)
    """
    return masked_mean(at_least_float32(features).square().mean(-1), valid)


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    return at_least_float32(prediction) - at_least_float32(target)


@dataclass
class _PerTarget(Objective):
    """A distance per target, times the target's weight."""

    target_weights: tuple[float, ...] | None = None

    def check(self, shapes: Shapes) -> None:
        """Refuse more or fewer weights than targets."""
        if self.target_weights is not None and len(self.target_weights) != len(shapes.target_widths):
            raise SettingsError(
                f"target_weights: found {len(self.target_weights)} values for {len(shapes.target_widths)} targets; "
                "give one per entry of targets.layers, or null for equal weights"
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

    >>> L1(1.0, target_weights=(0.1, 1.0)).target_weights
    (0.1, 1.0)
    """

    def distance(self, step: Step) -> Tensor:
        """(targets,)."""
        return layer_l1(step.predictions, step.targets, step.valid)


@dataclass
class L2(_PerTarget):
    """Mean squared difference between predicted and teacher features, `layer_l2`.

    Attributes:
        weight: in the loss; 0 leaves it out.
        target_weights: one factor per target on its value; null is 1 for each (ARMHuBERT: 1.0 for the last layer, 0.1
            for the others).

    >>> L2().target_weights is None
    True
    """

    def distance(self, step: Step) -> Tensor:
        """(targets,)."""
        return layer_l2(step.predictions, step.targets, step.valid)


@dataclass
class Cosine(_PerTarget):
    """Cosine distance between predicted and teacher features, `layer_cosine`.

    Attributes:
        weight: in the loss; 0 leaves it out.
        form: `log_sigmoid` is -log sigmoid(cos) (DistilHuBERT), `raw` is 1 - cos (DPHuBERT, up to a constant).
        frames: time is pooled to so many frames first, over each utterance's valid frames; null keeps time.
        target_weights: one factor per target on its value; null is 1 for each.

    >>> Cosine(form="raw").form
    'raw'
    """

    form: Literal["log_sigmoid", "raw"] = "log_sigmoid"
    frames: int | None = None

    def check(self, shapes: Shapes) -> None:
        """Refuse fewer than one frame, and weights that do not fit."""
        super().check(shapes)
        if self.frames is not None and self.frames < 1:
            raise SettingsError(f"frames: found {self.frames}, expected at least 1, or null for no pooling")

    def distance(self, step: Step) -> Tensor:
        """(targets,)."""
        predictions, targets, valid = step.predictions, step.targets, step.valid
        if self.frames is not None:
            predictions, targets = (
                [pool_frames(one, valid, self.frames) for one in parts] for parts in (predictions, targets)
            )
            valid = valid.any(1, keepdim=True).expand(-1, self.frames)
        return layer_cosine(predictions, targets, valid, self.form)


@dataclass
class FeaturePenalty(Objective):
    """Mean square of the student's conv features, `feature_penalty`.

    >>> FeaturePenalty(0.1).weight
    0.1
    """

    def __call__(self, step: Step, head: nn.Module | None = None) -> Tensor:
        """Scalar."""
        return feature_penalty(step.student.extractor_features, step.valid)
