"""The terms of the distillation loss: pure functions of tensors, each with its formula.

Notation: B utterances padded to T frames, of which utterance b has n_b valid ones; V = sum of n_b. Every mean runs
over the V valid frames only. The released code averages over the padded frames too, so that its loss depends on how
utterances happened to be batched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def valid_frames(frame_lengths: Tensor, num_frames: int) -> Tensor:
    """Which frames of a padded batch are real.

    Args:
        frame_lengths: (B,) int64, valid frames of each utterance.
        num_frames: T.

    Returns:
        (B, T) bool.

    >>> valid_frames(torch.tensor([1, 3]), 3)
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    return torch.arange(num_frames, device=frame_lengths.device) < frame_lengths.unsqueeze(1)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of `values` (B, T) where `valid` (B, T) is true; 0 if it never is.

    >>> masked_mean(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[True, True, False]]))
    tensor(2.)
    """
    return values.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)


def layer_l1(predictions: Sequence[Tensor], targets: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Mean absolute difference per layer: (1 / (V D)) sum |p_btd - t_btd|.

    The first term of DistilHuBERT (arXiv 2110.01900, eq. 1).

    Args:
        predictions: per layer (B, T, D), output of the student's head.
        targets: per layer (B, T, D), hidden state of the teacher.
        valid: (B, T) bool.

    Returns:
        (layers,) float32, each >= 0; 0 at a perfect match.

    >>> layer_l1([torch.zeros(1, 2, 4)], [torch.ones(1, 2, 4)], torch.ones(1, 2, dtype=torch.bool))
    tensor([1.])
    """
    return torch.stack(
        [masked_mean((p.float() - t.float()).abs().mean(-1), valid) for p, t in zip(predictions, targets)]
    )


def layer_cosine(predictions: Sequence[Tensor], targets: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Mean log-sigmoid cosine distance per layer: (1 / V) sum -log sigmoid(cos(p_bt, t_bt)).

    The second term of DistilHuBERT (arXiv 2110.01900, eq. 1).

    Args:
        predictions: per layer (B, T, D).
        targets: per layer (B, T, D).
        valid: (B, T) bool.

    Returns:
        (layers,) float32 from 0.3133 (same direction) over 0.6931 (orthogonal) to 1.3133 (opposite).

    >>> layer_cosine([torch.ones(1, 2, 4)], [torch.ones(1, 2, 4)], torch.ones(1, 2, dtype=torch.bool))
    tensor([0.3133])
    """
    cosines = [F.cosine_similarity(p.float(), t.float(), dim=-1) for p, t in zip(predictions, targets)]
    return torch.stack([masked_mean(-F.logsigmoid(cosine), valid) for cosine in cosines])


def feature_penalty(features: Tensor, valid: Tensor) -> Tensor:
    """Mean square of the conv features: (1 / (V C)) sum f_btc^2, as in wav2vec 2.0; off in the published recipes.

    Args:
        features: (B, T, C).
        valid: (B, T) bool.

    >>> feature_penalty(torch.full((1, 2, 4), 3.0), torch.ones(1, 2, dtype=torch.bool))
    tensor(9.)
    """
    return masked_mean(features.float().square().mean(-1), valid)


def spectral_distance(estimate: Tensor, target: Tensor, valid: Tensor, kind: str = "l1") -> Tensor:
    """Mean distance of magnitude spectra: (1 / (V K)) sum |e_bsk - y_bsk| (`l1`) or its square (`l2`).

    The enhancement term of RobustDistiller: e is mask x noisy magnitude, y the magnitude of the clean utterance.

    Args:
        estimate: (B, S, K) magnitudes >= 0.
        target: (B, S, K) magnitudes >= 0.
        valid: (B, S) bool.
        kind: `l1` or `l2`.

    >>> spectral_distance(torch.zeros(1, 2, 3), torch.full((1, 2, 3), 2.0), torch.ones(1, 2, dtype=torch.bool), "l2")
    tensor(4.)
    """
    difference = estimate.float() - target.float()
    return masked_mean((difference.abs() if kind == "l1" else difference.square()).mean(-1), valid)
