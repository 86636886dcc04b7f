"""Pooling of time over valid frames, and precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from robustdistiller.pretrain.objectives import masked_mean, valid_frames
from robustdistiller.pretrain.objectives.ops import at_least_float32, full_precision, pool_frames


@pytest.mark.parametrize("frames", [1, 4, 7, 150])
def test_pooling_equals_adaptive_pooling_of_each_utterance(frames: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [11, 150, 300, 1, 37]
    x = torch.randn(len(lengths), max(lengths), 3, generator=generator)
    found = pool_frames(x, valid_frames(torch.tensor(lengths), max(lengths)), frames)
    for row, result, length in zip(x, found, lengths):
        expected = F.adaptive_avg_pool1d(row[:length].T, frames).T
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
    padded = F.adaptive_avg_pool1d(x[0].T, frames).T
    assert (found[0] - padded).abs().max() > 0.1, "the padding does not matter in this test"


def test_pooling_ignores_what_padding_holds() -> None:
    x, valid = torch.ones(2, 5, 1), valid_frames(torch.tensor([3, 0]), 5)
    x[0, 3:] = torch.inf
    found = pool_frames(x, valid, 2)
    assert found[0].tolist() == [[1.0], [1.0]]
    assert found[1].tolist() == [[0.0], [0.0]]


def test_pooling_has_the_gradient_of_finite_differences() -> None:
    x = torch.randn(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: pool_frames(y, valid_frames(torch.tensor([5, 2]), 5), 3), [x])


def test_precision() -> None:
    assert at_least_float32(torch.zeros(1, dtype=torch.float16)).dtype == torch.float32
    assert at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision(x):
            assert (x @ x).dtype == torch.float32


def test_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool)).item() == 0
