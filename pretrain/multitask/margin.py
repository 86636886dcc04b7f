"""Angular softmax with a margin, for speaker embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def margin_logits(
    cosines: Tensor, labels: Tensor, scale: float = 30.0, margin: float = 0.0, margin_type: str = "am"
) -> Tensor:
    """Logits for cross-entropy: cosines with a handicap on the right class, scaled.

    AM-softmax (https://arxiv.org/abs/1801.05599) lowers the right class's cosine, cos t - m; AAM-softmax
    (https://arxiv.org/abs/1801.07698) widens its angle, cos(t + m), and beyond t = pi - m goes on as cos t - m sin m,
    so that the logit never rises with the angle. With `margin=0` both are the plain softmax over scaled cosines.

    Args:
        cosines: (B, classes) between embedding and class centre, -1 to 1.
        labels: (B,) int64, the right classes.
        scale: factor on everything.
        margin: m; of the cosine for `am`, in radians for `aam`.
        margin_type: `am` or `aam`.

    Returns:
        (B, classes).

    Raises:
        ValueError: another margin type.

    >>> margin_logits(torch.tensor([[0.5, 0.2]]), torch.tensor([0]), scale=10.0, margin=0.2)
    tensor([[3., 2.]])
    """
    right = cosines.gather(1, labels.unsqueeze(1))
    if margin_type == "am":
        handicapped = right - margin
    elif margin_type == "aam":
        # The slope of the sine is infinite at a cosine of 1, where embedding and centre coincide.
        sine = (1 - right.square()).clamp_min(1e-7).sqrt()
        turned = right * math.cos(margin) - sine * math.sin(margin)
        handicapped = torch.where(right > -math.cos(margin), turned, right - margin * math.sin(margin))
    else:
        raise ValueError(f"margin_type: found {margin_type!r}, expected am or aam")
    if margin == 0:
        handicapped = right
    return scale * cosines.scatter(1, labels.unsqueeze(1), handicapped)


def angular_softmax(
    embeddings: Tensor,
    centres: Tensor,
    labels: Tensor,
    scale: float = 30.0,
    margin: float = 0.0,
    margin_type: str = "am",
) -> Tensor:
    """Mean cross-entropy of `margin_logits` between embeddings and class centres; their lengths do not matter.

    Args:
        embeddings: (B, D).
        centres: (classes, D).
        labels: (B,) int64.
        scale: see `margin_logits`.
        margin: see `margin_logits`.
        margin_type: see `margin_logits`.

    >>> round(angular_softmax(torch.eye(2), 3 * torch.eye(2), torch.tensor([0, 1]), scale=1.0).item(), 4)
    0.3133
    """
    cosines = F.normalize(embeddings, dim=1) @ F.normalize(centres, dim=1).T
    return F.cross_entropy(margin_logits(cosines, labels, scale, margin, margin_type), labels)
