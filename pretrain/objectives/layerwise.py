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
from torch import Tensor

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.objectives.base import Objective, Step
from robustdistiller.pretrain.objectives.tensors import at_least_float32, masked_mean


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
class L1Config:
    """Mean absolute difference between predicted and teacher features.

    Attributes:
        weight: in the loss; 0 leaves it out.
        target_weights: one factor per target on its value; null is 1 for each. The trainer takes the mean over
            targets, so that factors that sum to the number of targets keep the size of the term.
    """

    weight: float = 0.0
    target_weights: tuple[float, ...] | None = None


@dataclass
class L2Config:
    """Mean squared difference between predicted and teacher features.

    Attributes:
        weight: in the loss; 0 leaves it out.
        target_weights: one factor per target on its value; null is 1 for each (ARMHuBERT: 1.0 for the last layer, 0.1
            for the others).
    """

    weight: float = 0.0
    target_weights: tuple[float, ...] | None = None


@dataclass
class CosineConfig:
    """Cosine distance between predicted and teacher features.

    Attributes:
        weight: in the loss; 0 leaves it out.
        form: `log_sigmoid` is -log sigmoid(cos) (DistilHuBERT), `raw` is 1 - cos (DPHuBERT, up to a constant).
        target_weights: one factor per target on its value; null is 1 for each.
    """

    weight: float = 0.0
    form: Literal["log_sigmoid", "raw"] = "log_sigmoid"
    target_weights: tuple[float, ...] | None = None


@dataclass
class FeaturePenaltyConfig:
    """Mean square of the student's conv features.

    Attributes:
        weight: in the loss; 0 leaves it out.
    """

    weight: float = 0.0


class _Layerwise(Objective):
    """A distance per target, times the target's weight."""

    def __init__(self, target_weights: Sequence[float] | None = None):
        super().__init__()
        self.target_weights = None if target_weights is None else tuple(target_weights)

    def distance(self, step: Step) -> Tensor:
        raise NotImplementedError

    def forward(self, step: Step) -> Tensor:
        """(targets,), each times its weight.

        Raises:
            SettingsError: there are more or fewer weights than targets.
        """
        values = self.distance(step)
        if self.target_weights is None:
            return values
        if len(self.target_weights) != len(values):
            raise SettingsError(
                f"target_weights: found {len(self.target_weights)} values for {len(values)} targets; "
                "give one per entry of targets.layers, or null for equal weights"
            )
        weights = torch.tensor(self.target_weights, dtype=values.dtype)
        return values * weights.to(values.device, non_blocking=True)


class L1(_Layerwise):
    """`layer_l1` of the predictions.

    >>> L1(target_weights=(0.1, 1.0)).target_weights
    (0.1, 1.0)
    """

    def distance(self, step: Step) -> Tensor:
        """(targets,)."""
        return layer_l1(step.predictions, step.targets, step.valid)


class L2(_Layerwise):
    """`layer_l2` of the predictions.

    >>> L2().target_weights is None
    True
    """

    def distance(self, step: Step) -> Tensor:
        """(targets,)."""
        return layer_l2(step.predictions, step.targets, step.valid)


class Cosine(_Layerwise):
    """`layer_cosine` of the predictions.

    >>> Cosine(form="raw").form
    'raw'
    """

    def __init__(
        self, form: Literal["log_sigmoid", "raw"] = "log_sigmoid", target_weights: Sequence[float] | None = None
    ):
        super().__init__(target_weights)
        self.form = form

    def distance(self, step: Step) -> Tensor:
        """(targets,)."""
        return layer_cosine(step.predictions, step.targets, step.valid, self.form)


class FeaturePenalty(Objective):
    """`feature_penalty` of the student's conv features.

    >>> sum(1 for _ in FeaturePenalty().parameters())
    0
    """

    def forward(self, step: Step) -> Tensor:
        """Scalar."""
        return feature_penalty(step.output.extractor_features, step.valid)
