"""How alike the layers of an encoder are: linear CKA, SVCCA and mean cosine, summed up batch by batch.

Each measure is a class with `update`, which takes the hidden states of one batch, and `matrix`, which gives the layer x
layer similarities of everything seen so far. Frames are the samples, hidden units the features, and only sums over
frames are kept, so that any number of frames fits: CKA and CCA keep one D x D matrix per pair of layers in float64
(0.4 GB for 12 layers of width 768, 2.5 GB for 24 of width 1024), the cosine one number per pair.

L layers, N frames, D units.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class _Moments:
    """First and second moments of the frames of several layers, and what unbiased CKA needs beyond them.

    Frames are shifted by the mean of the first batch. Every measure here is blind to a shift, and the sums lose no
    digits to a large common mean, which hidden states of speech models have.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._shift: list[Tensor] = []
        self._sum: list[Tensor] = []  # per layer (D,)
        self._product: dict[tuple[int, int], Tensor] = {}  # per pair i <= j: X_i^T X_j, (D, D)
        self._energy_product = torch.zeros(())  # (L, L), sum over frames of |x_i|^2 |x_j|^2
        self._energy_sum: list[Tensor] = []  # per layer (D, L), sum over frames of x_i |x_j|^2

    def update(self, states: Sequence[Tensor], valid: Tensor | None = None) -> None:
        """Add the frames of one batch.

        Args:
            states: one per layer, each (batch, frames, D) or (frames, D); D may differ between layers.
            valid: (batch, frames) or (frames,) bool, frames that count; `None` counts all.

        Raises:
            ValueError: a value is not finite, or the layers differ in their frames or are not as many as before.
        """
        rows = _frames(states, valid)
        if not len(rows[0]):
            return
        if not self._shift:
            self._shift = [row.mean(dim=0) for row in rows]
        if len(rows) != len(self._shift):
            raise ValueError(f"{len(rows)} layers, after batches of {len(self._shift)}; expected the same ones")
        rows = [row - shift for row, shift in zip(rows, self._shift)]
        energies = torch.stack([row.square().sum(dim=1) for row in rows], dim=1)
        first = not self._product
        self.frames += len(energies)
        self._energy_product = self._energy_product.to(energies) + energies.T @ energies
        for i, row in enumerate(rows):
            if first:
                self._sum.append(row.sum(dim=0))
                self._energy_sum.append(row.T @ energies)
            else:
                self._sum[i] += row.sum(dim=0)
                self._energy_sum[i].addmm_(row.T, energies)
            for j in range(i, len(rows)):
                if first:
                    self._product[i, j] = row.T @ rows[j]
                else:
                    self._product[i, j].addmm_(row.T, rows[j])

    def _centred(self, i: int, j: int) -> Tensor:
        """X_i^T X_j of centred frames, for i <= j."""
        return self._product[i, j] - torch.outer(self._sum[i], self._sum[j]) / self.frames

    def _refuse_constant(self) -> None:
        for i, shift in enumerate(self._shift):
            # What rounding leaves of equal frames is some 1e-32 of their energy.
            if self._centred(i, i).trace() <= 1e-24 * self.frames * shift.square().sum():
                raise ValueError(f"state {i} (from 0) is the same in every frame: it has no similarity to others")

    def _need(self, frames: int, what: str) -> None:
        if self.frames < frames:
            raise ValueError(f"{what} needs at least {frames} frames and has seen {self.frames}; give more speech")


class LinearCKA(_Moments):
    """Linear centred kernel alignment (Kornblith et al. 2019, https://arxiv.org/abs/1905.00414, equation 4).

    HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), with HSIC from D x D cross-products instead of N x N kernels: blind to
    shifts, rotations and a common scale of either side, but not to the relative scale of directions.

    Args:
        unbiased: estimate HSIC by HSIC_1 of Song et al. 2012 (https://www.jmlr.org/papers/v13/song12a.html, equation
            5), as Nguyen et al. 2021 (https://arxiv.org/abs/2010.15327) do. It is near 0, and may be below, for
            unrelated features however few the frames; the biased estimate grows with D / N.
    """

    def __init__(self, unbiased: bool = True) -> None:
        super().__init__()
        self.unbiased = unbiased

    def matrix(self) -> np.ndarray:
        """(L, L) float64, symmetric, at most 1, exactly 1 on the diagonal.

        Raises:
            ValueError: fewer than 4 frames, or a layer that does not vary.
        """
        self._need(4, "CKA")
        self._refuse_constant()
        layers = range(len(self._sum))
        hsic = torch.zeros(len(layers), len(layers), dtype=torch.float64)
        for i in layers:
            for j in layers[i:]:
                hsic[i, j] = hsic[j, i] = self._hsic_1(i, j) if self.unbiased else self._centred(i, j).square().sum()
        scale = hsic.diagonal()
        return _finished(hsic / torch.outer(scale, scale).sqrt())

    def _hsic_1(self, i: int, j: int) -> Tensor:
        """n (n - 3) times Song's estimate; the factor cancels.

        With zeros on the diagonals of K = X X^T and L = Y Y^T it is
        tr(K L) + (1^T K 1)(1^T L 1) / ((n - 1)(n - 2)) - 2 (1^T K L 1) / (n - 2).
        """
        n, product, energy = self.frames, self._product[i, j], self._energy_product[i, j]
        trace = product.square().sum() - energy
        rows = (
            self._sum[i] @ product @ self._sum[j]
            - self._sum[i] @ self._energy_sum[i][:, j]
            - self._sum[j] @ self._energy_sum[j][:, i]
            + energy
        )
        totals = [self._sum[k].square().sum() - self._product[k, k].trace() for k in (i, j)]
        return trace + totals[0] * totals[1] / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)


class SVCCA(_Moments):
    """Mean canonical correlation of the strongest directions (Raghu et al. 2017, https://arxiv.org/abs/1706.05806).

    Each layer is first reduced to the fewest principal directions that hold a share `variance` of its variance: without
    that, the correlations are mostly those of noise. Blind to every invertible linear map within those directions.
    """

    def __init__(self, variance: float = 0.99) -> None:
        if not 0 < variance <= 1:
            raise ValueError(f"variance={variance}; expected a share above 0, up to 1")
        super().__init__()
        self.variance = variance

    def matrix(self) -> np.ndarray:
        """(L, L) float64, symmetric, 0 to 1.

        Raises:
            ValueError: so few frames that some correlations could only be 1, or a layer that does not vary.
        """
        self._need(2, "CCA")
        layers = range(len(self._sum))
        self._refuse_constant()
        whiten = [self._whitening(i) for i in layers]
        # Two spaces of k and l directions in the n - 1 dimensions of centred frames share k + l - (n - 1) of them.
        widths = sorted(one.shape[1] for one in whiten)
        self._need(sum(widths[-2:]) + 1, f"CCA of {' and '.join(map(str, widths[-2:]))} directions")
        similarity = torch.eye(len(layers), dtype=torch.float64)
        for i in layers:
            for j in layers[i + 1 :]:
                correlations = torch.linalg.svdvals(whiten[i].T @ self._centred(i, j) @ whiten[j])
                similarity[i, j] = similarity[j, i] = correlations.clamp(max=1.0).mean()
        return _finished(similarity)

    def _whitening(self, i: int) -> Tensor:
        """(D, k): the k strongest principal directions, scaled so that the projected frames have unit covariance."""
        values, directions = torch.linalg.eigh(self._centred(i, i))
        values, directions = values.flip(0).clamp(min=0.0), directions.flip(1)
        values = values * (values > values[0] * len(values) * torch.finfo(values.dtype).eps)  # the rest is rounding
        kept = values.cumsum(0) / values.sum()
        count = min(int((kept < self.variance - 1e-12).sum()) + 1, int((values > 0).sum()))
        return directions[:, :count] / values[:count].sqrt()


class MeanCosine:
    """Mean over frames of the cosine between two layers' hidden states.

    It compares unit by unit, which has a meaning between layers that add to one residual stream, and, unlike CKA, it is
    high where both layers share a large common mean.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._sum = torch.zeros(())

    def update(self, states: Sequence[Tensor], valid: Tensor | None = None) -> None:
        """Add the frames of one batch; as in `LinearCKA`, but all layers must have the same width.

        Raises:
            ValueError: a value is not finite, or the layers differ in width or frames.
        """
        rows = _frames(states, valid)
        widths = sorted({row.shape[1] for row in rows})
        if len(widths) > 1:
            raise ValueError(f"the layers have widths {widths}; a cosine needs equal ones: use CKA")
        unit = F.normalize(torch.stack(rows), dim=-1)
        self.frames += unit.shape[1]
        self._sum = self._sum.to(unit) + torch.einsum("ind,jnd->ij", unit, unit)

    def matrix(self) -> np.ndarray:
        """(L, L) float64, symmetric, -1 to 1.

        Raises:
            ValueError: no frames.
        """
        if not self.frames:
            raise ValueError("the cosine has seen no frames; give more speech")
        return _finished(self._sum / self.frames)


#: The measures by the names that settings use.
SIMILARITIES: dict[str, type[LinearCKA | MeanCosine | SVCCA]] = {"cka": LinearCKA, "cosine": MeanCosine, "cca": SVCCA}


def _frames(states: Sequence[Tensor], valid: Tensor | None) -> list[Tensor]:
    """Per layer (N, D) float64, valid frames only."""
    if not states or len({state.shape[:-1] for state in states}) > 1:
        raise ValueError(f"hidden states of shapes {[tuple(state.shape) for state in states]}; expected equal frames")
    if valid is not None and valid.shape != states[0].shape[:-1]:
        raise ValueError(f"valid has shape {tuple(valid.shape)}; expected {tuple(states[0].shape[:-1])}")
    rows = [state.flatten(0, -2) if valid is None else state[valid.to(state.device)] for state in states]
    for index, row in enumerate(rows):
        if not torch.isfinite(row).all():
            raise ValueError(f"state {index} (from 0) has NaN or infinite values")
    # Apple's GPUs have no float64.
    return [(row.cpu() if row.device.type == "mps" else row).double() for row in rows]


def _finished(similarity: Tensor) -> np.ndarray:
    """Without the last digits' rounding: symmetric, 1 on the diagonal, never beyond."""
    values = similarity.cpu().numpy()
    values = np.clip((values + values.T) / 2, -1.0, 1.0)
    np.fill_diagonal(values, 1.0)
    return values
