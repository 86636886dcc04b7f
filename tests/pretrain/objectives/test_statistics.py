"""Statistics over the samples of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistiller.pretrain.objectives.statistics import off_diagonal_squares, snr_divisor, standardize


@pytest.mark.parametrize(("samples", "width"), [(24, 768), (5, 5), (40, 6), (1, 3)])
def test_off_diagonal_squares_equal_those_of_the_product(samples: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    z, t = (torch.randn(2, samples, width, generator=generator, requires_grad=True) for _ in range(2))
    found = off_diagonal_squares(z, t)
    product = torch.einsum("fni,fnj->fij", z, t)
    expected = (product * (1 - torch.eye(width))).square().sum((1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(torch.autograd.grad(found.sum(), (z, t)), torch.autograd.grad(expected.sum(), (z, t))):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())
    assert not torch.allclose(found, product.square().sum((1, 2)), rtol=1e-4), "the diagonal does not matter here"


def test_standardised_samples_equal_numpy() -> None:
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    valid = torch.tensor([[True] * 5, [True, False, True, True, False], [True] + [False] * 4])
    found = standardize(x, valid, 0.1).numpy()
    for row, mask, result in zip(x.numpy(), valid.numpy(), found):
        kept = row[mask]
        spread = kept.std(0, ddof=1) if len(kept) > 1 else 0.0
        np.testing.assert_allclose(result[mask], (kept - kept.mean(0)) / (spread + 0.1), rtol=1e-5, atol=1e-6)
        assert np.all(result[~mask] == 0)


def test_divisors() -> None:
    snr_db = torch.tensor([-torch.inf, 9.0, 10.0, 15.0, 20.0, 30.0, torch.inf])
    assert snr_divisor(snr_db).tolist() == pytest.approx([1, 1, 1, 50.5, 100, 100, 100], rel=1e-5)
    opened = snr_divisor(snr_db, range_db=(10.0, float("inf"))).tolist()
    assert opened == pytest.approx([1, 1, 1, 50.5, 100, 199, float("inf")], rel=1e-5)
    exponential = snr_divisor(snr_db, "exponential", (0.0, 40.0)).tolist()
    assert exponential == pytest.approx([0.01, 10**-0.2, 1, 10, 100, 1e4, 1e6], rel=1e-5)
