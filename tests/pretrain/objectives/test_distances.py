"""Distances per target against values worked out in NumPy, on padded batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustdistiller.common.settings import read
from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.objectives import layer_cosine, layer_l1, masked_mean, valid_frames
from robustdistiller.pretrain.objectives.distances import L1, L2, Cosine, FeaturePenalty

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


def test_l2_equals_numpy_over_valid_frames(tensors, make_step) -> None:
    predictions, targets = tensors
    expected = [np.square(_valid_rows(p) - _valid_rows(t)).mean() for p, t in zip(predictions, targets)]
    step = make_step(LENGTHS, predictions=_torch(predictions, 1e3), targets=_torch(targets, -3.0))
    found = L2()(step)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_cosine_equals_numpy_over_valid_frames(tensors) -> None:
    predictions, targets = tensors
    expected = []
    for prediction, target in zip(map(_valid_rows, predictions), map(_valid_rows, targets)):
        norms = np.linalg.norm(prediction, axis=1) * np.linalg.norm(target, axis=1)
        expected.append(np.log1p(np.exp(-(prediction * target).sum(1) / norms)).mean())
    found = layer_cosine(_torch(predictions, 1e6), _torch(targets, -3.0), VALID)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    raw = [
        1 - ((p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)).mean()
        for p, t in zip(map(_valid_rows, predictions), map(_valid_rows, targets))
    ]
    found = layer_cosine(_torch(predictions, 1e6), _torch(targets, -3.0), VALID, "raw")
    np.testing.assert_allclose(found.numpy(), raw, rtol=1e-6)
    swapped = layer_cosine(_torch(predictions), _torch(targets[::-1]), VALID)
    assert not np.allclose(swapped.numpy(), expected, rtol=1e-3)


def test_feature_penalty_equals_numpy(tensors, make_step) -> None:
    step = make_step(LENGTHS)
    step.student = step.student._replace(extractor_features=_torch([tensors[0][0]], 1e3)[0])
    expected = np.square(_valid_rows(tensors[0][0])).mean()
    assert FeaturePenalty()(step).item() == pytest.approx(expected, rel=1e-6)


def test_known_limits() -> None:
    x = torch.eye(4)[None]
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert layer_l1([x], [x], valid).item() == 0
    assert layer_cosine([x], [x], valid).item() == pytest.approx(np.log1p(np.exp(-1)), rel=1e-6)
    assert layer_cosine([x], [x.roll(1, -1)], valid).item() == pytest.approx(np.log(2), rel=1e-6)
    assert layer_cosine([x], [-x], valid).item() == pytest.approx(np.log1p(np.exp(1)), rel=1e-6)
    for other, distance in ((x, 0), (x.roll(1, -1), 1), (-x, 2)):
        assert layer_cosine([x], [other], valid, "raw").item() == pytest.approx(distance, abs=1e-6)
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


@pytest.mark.parametrize("distance", [layer_l1, layer_cosine, lambda *x: layer_cosine(*x, "raw")])
def test_gradients_equal_finite_differences(distance) -> None:
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    prediction = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    valid = valid_frames(torch.tensor([3, 2]), 3)
    assert torch.autograd.gradcheck(lambda x: distance([x], [target], valid), [prediction])


@pytest.mark.parametrize("objective", [L1, L2, Cosine])
def test_target_weights_scale_each_value(make_step, make_shapes, objective) -> None:
    step = make_step()
    plain, weighted = objective()(step), objective(target_weights=(0.1, 1.0))(step)
    torch.testing.assert_close(weighted, plain * torch.tensor([0.1, 1.0]))
    objective(target_weights=(1, 1)).check(make_shapes())
    with pytest.raises(SettingsError, match="found 3 values for 2 targets"):
        objective(target_weights=(1, 1, 1)).check(make_shapes())


def test_pooled_cosine_is_that_of_pooled_features(make_step, make_shapes) -> None:
    """As in the released code of the correlation recipe: both sides are pooled, then compared."""
    step = make_step((7, 3))
    expected = []
    for prediction, target in zip(step.predictions, step.targets):
        rows = [
            F.cosine_similarity(*(F.adaptive_avg_pool1d(x[b, :n].T, 4) for x in (prediction, target)), dim=0)
            for b, n in enumerate((7, 3))
        ]
        expected.append(-F.logsigmoid(torch.stack(rows)).mean())
    pooled = Cosine(frames=4)
    torch.testing.assert_close(pooled(step), torch.stack(expected))
    assert not torch.allclose(pooled(step), Cosine()(step), rtol=1e-2)
    assert (pooled.mean_over, Cosine().mean_over) == ("utterances", "frames")
    with pytest.raises(SettingsError, match="frames: found 0, expected at least 1"):
        read(Cosine, {"frames": 0})


def test_objectives_pass_on_what_they_should(make_step) -> None:
    step = make_step()
    x = step.predictions, step.targets, step.valid
    torch.testing.assert_close(L1()(step), layer_l1(*x))
    torch.testing.assert_close(Cosine()(step), layer_cosine(*x))
    torch.testing.assert_close(Cosine(form="raw")(step), layer_cosine(*x, "raw"))


def test_half_precision_input_is_computed_in_float32(make_step) -> None:
    step = make_step()
    half = make_step(predictions=[x.bfloat16() for x in step.predictions])
    exact = make_step(predictions=[x.float() for x in half.predictions])
    with torch.autocast("cpu", torch.bfloat16):
        for objective in (L1(), L2(), Cosine(), Cosine(form="raw")):
            assert objective(half).dtype == torch.float32
            torch.testing.assert_close(objective(half), objective(exact), rtol=0, atol=0)
