"""Statistics over the samples of a batch that the correlation objectives are made of."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robustdistiller.pretrain.objectives.ops import at_least_float32

SnrLaw = Literal["linear", "exponential"]


def standardize(x: Tensor, valid: Tensor, eps: float) -> Tensor:
    """(x - mean) / (std + eps) over the valid samples, feature by feature; 0 elsewhere. The std divides by N - 1.

    Args:
        x: (F, N, D).
        valid: (F, N) bool.
        eps: keeps features that are constant over the samples at 0.

    Returns:
        (F, N, D); its rows are 0 where fewer than two samples are valid.

    >>> standardize(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]), 0.0).squeeze()
    tensor([-0.7071,  0.7071,  0.0000])
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
    N x N matrices: for N = 24 utterances of D = 768 features a sixteenth of the work of the D x D product and a
    thousandth of its memory. Whichever of the two is smaller is formed, so that it never exceeds the input.

    Args:
        z: (F, N, D).
        t: (F, N, D).

    Returns:
        (F,).

    >>> off_diagonal_squares(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0]]]))  # (1 x 4)^2 + (2 x 3)^2
    tensor([52.])
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

    `linear`: 9.9 SNR - 98, as in the released code (see `correlation`); that this branch is the "heuristic" of
    the paper is not confirmed, and a comment there calls it unfinished. It is 0 at 9.9 dB and negative below, which
    would reward correlation, and unbounded for clean speech. The SNR is therefore first clamped to `range_db`, by
    default the range the published models were trained in. `exponential`: 100^((SNR - 10) / 10), through the same two
    points and positive everywhere, for wider ranges.

    Args:
        snr_db: (B,), infinite where there is no noise.
        law: which of the two.
        range_db: lowest and highest SNR that is told apart; with an infinite upper end, clean utterances have an
            infinite divisor and do not count.

    >>> snr_divisor(torch.tensor([0.0, 10.0, 15.0, 20.0, float("inf")]))
    tensor([  1.0000,   1.0000,  50.5000, 100.0000, 100.0000])
    """
    snr_db = at_least_float32(snr_db).clamp(*range_db)
    return 9.9 * snr_db - 98 if law == "linear" else 10 ** ((snr_db - 10) / 5)
