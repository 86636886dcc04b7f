"""Correlations between features over the samples of a batch, as formulas.

Notation: D features; frame f of F after pooling; N samples (utterances) at a frame, N_f of them valid. x^ is x
standardised over the N_f samples, feature by feature: (x - mean) / (std + eps), std with divisor N_f - 1. Then

    C = z^' t^ / (N_f - 1)      S = z^' z^ / (N_f - 1)      both D x D, for each target and frame.

Statistics are those of one device's batch: nothing is gathered over devices.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from robustdistiller.pretrain.objectives.ops import at_least_float32, full_precision, pool_frames

SnrLaw = Literal["linear", "exponential"]

_logger = logging.getLogger(__name__)


def cross_correlation(
    predictions: Sequence[Tensor],
    targets: Sequence[Tensor],
    valid: Tensor,
    frames: int | None = 150,
    normalize: Literal["batch", "batch_and_time"] = "batch",
    eps: float = 1e-5,
    diagonal_scale: float = 1 / 10,
    off_diagonal_scale: float = 5e-5 / 100,
    reduction: Literal["sum", "mean"] = "sum",
    divisors: Tensor | None = None,
    divisor_form: Literal["covariance", "outer_products"] = "covariance",
) -> Tensor:
    """Distance of the student-teacher correlations from the identity, per target, as a mean over frames of

        diagonal_scale sum_i (C_ii - 1)^2 + off_diagonal_scale sum_{i != j} C_ij^2

    With B utterances C has rank B - 1 at most: for B < D it cannot be the identity. `normalize="batch_and_time"` takes
    all frames of all utterances as samples of a single C instead. With `reduction="mean"` the first sum is divided by
    its D elements and the second by its D (D - 1).

    Per-utterance `divisors` d_b (B,), of `snr_divisor`, enter the second sum only. `covariance`: C_ij = sum_b z^_bi
    t^_bj / (sqrt(d_b) (N - 1)), so that equal divisors d divide the sum by d. `outer_products`, as released: sum_{i !=
    j} is that of sum_b (z^_bi t^_bj)^2 / (d_b (N - 1)): the energy of single utterances rather than a correlation over
    them.

    Args:
        predictions: per target (B, T, D).
        targets: per target (B, T, D); with `predictions` here and `diagonal_scale=0` it is the self-correlation.
        valid: (B, T) bool.
        frames, normalize, eps, reduction, divisor_form: as in `correlation.CrossCorrelation`.
        diagonal_scale, off_diagonal_scale: factors on the two sums.
        divisors: `None` is 1 for all.

    Returns:
        (targets,) float32, >= 0. Frames with fewer than two valid samples are left out; 0 if all are, as with
        `normalize="batch"` and a batch of one.

    >>> x = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(4, 1, 1)
    >>> values = cross_correlation([x, x], [x, -x], torch.ones(4, 1, dtype=torch.bool), frames=None)  # C = 1, C = -1
    >>> values.round(decimals=3)
    tensor([0.0000, 0.4000])
    """
    values = []
    for prediction, target in zip(predictions, targets, strict=True):
        with full_precision(prediction):
            z, counted = _samples(prediction, valid, frames, normalize)
            z = standardize(z, counted, eps)
            t = z if target is prediction else standardize(_samples(target, valid, frames, normalize)[0], counted, eps)
            below = (counted.sum(1) - 1).clamp(min=1)
            diagonal = ((z * t).sum(1) / below.unsqueeze(1) - 1).square().sum(-1)
            off_diagonal = _off_diagonal(z, t, below, divisors, divisor_form)
            if reduction == "mean":
                width = z.shape[-1]
                diagonal, off_diagonal = diagonal / width, off_diagonal / max(width * (width - 1), 1)
            values.append(_mean_frame(diagonal_scale * diagonal + off_diagonal_scale * off_diagonal, counted))
    return torch.stack(values)


def _samples(x: Tensor, valid: Tensor, frames: int | None, normalize: str) -> tuple[Tensor, Tensor]:
    """(F, N, D) samples per frame, and which of them count: (F, N) bool."""
    if frames is None:
        x = at_least_float32(x)
    else:
        x = pool_frames(x, valid, frames)
        valid = valid.any(1, keepdim=True).expand(-1, frames)
    if normalize == "batch_and_time":
        return x.reshape(1, -1, x.shape[-1]), valid.reshape(1, -1)
    return x.transpose(0, 1), valid.transpose(0, 1)


def _off_diagonal(z: Tensor, t: Tensor, below: Tensor, divisors: Tensor | None, form: str) -> Tensor:
    """(F,) sums over i != j of squared elements."""
    if divisors is not None:  # one for each sample
        divisors = divisors.repeat_interleave(z.shape[1] // len(divisors)).unsqueeze(0)
    if divisors is not None and form == "outer_products":
        squares = z.square().sum(-1) * t.square().sum(-1) - (z * t).square().sum(-1)
        return (squares / divisors).sum(1) / below
    if divisors is not None:
        z = z * divisors.rsqrt().unsqueeze(-1)
    return off_diagonal_squares(z, t) / below.square()


def _mean_frame(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the frames that have at least two samples."""
    usable = counted.sum(1) > 1
    if counted.shape[1] < 2:
        _logger.warning("a batch without two utterances has no correlations: their term is 0 for it")
    return (values * usable).sum() / usable.sum().clamp(min=1)


def standardize(x: Tensor, valid: Tensor, eps: float) -> Tensor:
    """(x - mean) / (std + eps) over the valid samples, feature by feature; 0 elsewhere. The std divides by N - 1.

    `x` is (F, N, D), `valid` (F, N) bool. Features that are constant over the samples, or have fewer than two, are 0.
    """
    mask = valid.unsqueeze(-1)
    count = mask.sum(1, keepdim=True)
    mean = x.masked_fill(~mask, 0.0).sum(1, keepdim=True) / count.clamp(min=1)
    centred = (x - mean).masked_fill(~mask, 0.0)
    variance = centred.square().sum(1, keepdim=True) / (count - 1).clamp(min=1)
    spread = variance > 0
    # The root has an infinite slope at 0, which would make the gradient NaN.
    std = variance.where(spread, 1.0).sqrt() * spread
    return centred / (std + eps + ~spread)


def off_diagonal_squares(z: Tensor, t: Tensor) -> Tensor:
    """Sum of the squared off-diagonal elements of z't for each frame, without forming z't where that is cheaper.

    The sum over all i, j of (z't)_ij^2 is the trace of (zz')(tt'), that is the sum of the element-wise product of two
    N x N matrices. Whichever of the two products is smaller is formed: for N = 24 utterances of D = 768 features a
    sixteenth of the work and a thousandth of the memory. `z` and `t` are (F, N, D), the result (F,).
    """
    if z.shape[1] <= z.shape[2]:
        everything = ((z @ z.transpose(1, 2)) * (t @ t.transpose(1, 2))).sum((1, 2))
        return everything - (z * t).sum(1).square().sum(-1)
    product = z.transpose(1, 2) @ t
    return (product - torch.diag_embed(product.diagonal(dim1=1, dim2=2))).square().sum((1, 2))


def snr_divisor(
    snr_db: Tensor,
    law: SnrLaw = "linear",
    range_db: tuple[float, float] = (10.0, 20.0),
) -> Tensor:
    """What an utterance's off-diagonal term is divided by: 1 at 10 dB, 100 at 20 dB; less noise, less decorrelation.

    `linear`: 9.9 SNR - 98, as in the released code (whether it is the "heuristic" of the paper is not confirmed). It is
    0 at 9.9 dB and negative below, which would reward correlation, and unbounded for clean speech: the SNR is first
    clamped to `range_db`, by default the range the published models were trained in. `exponential`:
    100^((SNR - 10) / 10), through the same two points and positive everywhere, for wider ranges.

    Args:
        snr_db: (B,), infinite where there is no noise.
        law: which of the two.
        range_db: lowest and highest SNR that is told apart; with an infinite upper end, clean utterances have an
            infinite divisor and do not count.
    """
    snr_db = at_least_float32(snr_db).clamp(*range_db)
    return 9.9 * snr_db - 98 if law == "linear" else 10 ** ((snr_db - 10) / 5)
