"""The term that drives the expected sparsity to its target: an augmented Lagrangian with trained multipliers."""

from __future__ import annotations

from torch import Tensor


def ramped_sparsity(step: int, sparsity: float, ramp_steps: int) -> float:
    """The sparsity demanded in optimizer step `step` (from 0): rises linearly from 0, as in DPHuBERT.

    >>> [ramped_sparsity(step, 0.75, 100) for step in (0, 50, 100, 999)]
    [0.0, 0.375, 0.75, 0.75]
    """
    return sparsity if step >= ramp_steps else sparsity * step / ramp_steps


def lagrangian(sparsity: Tensor, target: float, multipliers: Tensor) -> Tensor:
    """`m0 * (s - t) + m1 * (s - t)^2` (Wang et al., arXiv 1910.04732, section 3.3; CoFi and DPHuBERT use it too).

    Gates descend it and multipliers ascend it. From `m = 0`, as long as `s` is below `t`, `m0` falls and `m1` rises,
    both of which reward closing gates; above `t`, `m0` rises again.

    Args:
        sparsity: expected sparsity s, a scalar.
        target: t.
        multipliers: `(2,)`.

    >>> import torch
    >>> lagrangian(torch.tensor(0.5), 0.75, torch.tensor([-1.0, 2.0]))
    tensor(0.3750)
    """
    gap = sparsity - target
    return multipliers[0] * gap + multipliers[1] * gap.square()
