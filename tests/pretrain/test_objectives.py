"""Loss terms against values worked out in NumPy, on padded batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistiller.pretrain.module import learning_rate_factor
from robustdistiller.pretrain.objectives import (
    feature_penalty,
    layer_cosine,
    layer_l1,
    masked_mean,
    spectral_distance,
    valid_frames,
)

LENGTHS = (7, 3, 1)


@pytest.fixture
def tensors() -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(5)
    shape = (len(LENGTHS), max(LENGTHS), 6)
    return [generator.normal(size=shape) for _ in range(2)], [generator.normal(size=shape) for _ in range(2)]


def _valid_rows(array: np.ndarray) -> np.ndarray:
    return np.concatenate([row[:length] for row, length in zip(array, LENGTHS)])


def _torch(arrays: list[np.ndarray], padding: float = 0.0) -> list[torch.Tensor]:
    filled = [array.copy() for array in arrays]
    for array in filled:
        for row, length in zip(array, LENGTHS):
            row[length:] = padding
    return [torch.tensor(array, dtype=torch.float32) for array in filled]


VALID = valid_frames(torch.tensor(LENGTHS), max(LENGTHS))


def test_l1_equals_numpy_over_valid_frames(tensors) -> None:
    predictions, targets = tensors
    expected = [np.abs(_valid_rows(p) - _valid_rows(t)).mean() for p, t in zip(predictions, targets)]
    found = layer_l1(_torch(predictions, 1e6), _torch(targets, -3.0), VALID)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    everywhere = [np.abs(p - t).mean() for p, t in zip(predictions, targets)]
    assert not np.allclose(found.numpy(), everywhere, rtol=1e-3), "the padding does not matter in this test"


def test_cosine_equals_numpy_over_valid_frames(tensors) -> None:
    predictions, targets = tensors
    expected = []
    for prediction, target in zip(map(_valid_rows, predictions), map(_valid_rows, targets)):
        norms = np.linalg.norm(prediction, axis=1) * np.linalg.norm(target, axis=1)
        expected.append(np.log1p(np.exp(-(prediction * target).sum(1) / norms)).mean())
    found = layer_cosine(_torch(predictions, 1e6), _torch(targets, -3.0), VALID)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    swapped = layer_cosine(_torch(predictions), _torch(targets[::-1]), VALID)
    assert not np.allclose(swapped.numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_spectral_distance_equals_numpy(tensors, kind: str) -> None:
    estimate, target = np.abs(tensors[0][0]), np.abs(tensors[1][0])
    difference = _valid_rows(estimate) - _valid_rows(target)
    expected = np.abs(difference).mean() if kind == "l1" else np.square(difference).mean()
    found = spectral_distance(*_torch([estimate], 9.0), *_torch([target], 1e3), VALID, kind)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_feature_penalty_equals_numpy(tensors) -> None:
    expected = np.square(_valid_rows(tensors[0][0])).mean()
    assert feature_penalty(*_torch([tensors[0][0]], 1e3), VALID).item() == pytest.approx(expected, rel=1e-6)


def test_known_limits() -> None:
    x = torch.eye(4)[None]
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert layer_l1([x], [x], valid).item() == 0
    assert layer_cosine([x], [x], valid).item() == pytest.approx(np.log1p(np.exp(-1)), rel=1e-6)
    assert layer_cosine([x], [x.roll(1, -1)], valid).item() == pytest.approx(np.log(2), rel=1e-6)
    assert layer_cosine([x], [-x], valid).item() == pytest.approx(np.log1p(np.exp(1)), rel=1e-6)
    assert masked_mean(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool)).item() == 0


def test_padding_gets_no_gradient(tensors) -> None:
    predictions = [one.requires_grad_() for one in _torch(tensors[0], 0.5)]
    targets = _torch(tensors[1], -0.5)
    (layer_l1(predictions, targets, VALID).sum() + layer_cosine(predictions, targets, VALID).sum()).backward()
    for prediction in predictions:
        assert torch.all(prediction.grad[~VALID] == 0)
        assert torch.all(prediction.grad[VALID].abs().sum(-1) > 0)


def test_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    target, valid = torch.randn(2, 3, 4), valid_frames(torch.tensor([3, 2]), 3)
    prediction = torch.randn(2, 3, 4, requires_grad=True)
    layer_l1([prediction], [target], valid).sum().backward()
    expected = torch.sign(prediction.detach() - target) / (5 * 4) * valid.unsqueeze(-1)
    torch.testing.assert_close(prediction.grad, expected)


def test_schedule_equals_s3prl() -> None:
    from s3prl.optimizers import WarmupLinearSchedule

    schedule = WarmupLinearSchedule(warmup=0.07, t_total=200)
    for step in range(1, 201):
        assert learning_rate_factor(step, 200, 0.07) == pytest.approx(schedule.get_lr(step), abs=1e-12)
    assert learning_rate_factor(150, 200, 0.07, decay=False) == 1.0
