"""Agreement of two views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.objectives import valid_frames
from robustdistiller.pretrain.objectives.invariance import Invariance, view_distance


def test_distances_equal_numpy_over_valid_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2, 5, 4, generator=generator)
    x[1, 2:], y[1, 2:] = 1e3, -7.0
    valid = valid_frames(torch.tensor([5, 2]), 5)
    a, b = (np.concatenate([z[0], z[1, :2]]) for z in (x.numpy(), y.numpy()))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert view_distance([x], [y], valid, "l1").item() == pytest.approx(np.abs(a - b).mean(), rel=1e-6)
    assert view_distance([x], [y], valid).item() == pytest.approx(1 - cosines.mean(), rel=1e-6)


def test_known_limits() -> None:
    x, valid = torch.eye(4)[None], torch.ones(1, 4, dtype=torch.bool)
    found = view_distance([x] * 3, [x, x.roll(1, -1), -x], valid)
    assert found.tolist() == pytest.approx([0, 1, 2], abs=1e-6)
    assert view_distance([x], [x], valid, "l1").item() == 0


@pytest.mark.parametrize("distance", ["l1", "cosine"])
def test_gradients_equal_finite_differences(distance: str) -> None:
    x, y = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    valid = valid_frames(torch.tensor([3, 2]), 3)
    inputs = [x.requires_grad_(), y.requires_grad_()]
    assert torch.autograd.gradcheck(lambda a, b: view_distance([a], [b], valid, distance), inputs)


@pytest.mark.parametrize(
    ("stop", "moved"), [("none", (True, True)), ("first", (False, True)), ("second", (True, False))]
)
@pytest.mark.parametrize("features", ["predictions", "last_hidden"])
def test_gradient_reaches_the_views_it_should(make_step, stop: str, moved: tuple, features: str) -> None:
    step = make_step()
    views = [x.predictions[1] if features == "predictions" else x.hidden_states[-1] for x in (step.output, step.second)]
    for view in views:
        view.requires_grad_()
    Invariance(features=features, stop_gradient=stop)(step).sum().backward()
    assert tuple(view.grad is not None for view in views) == moved


def test_objective_compares_what_it_should(make_step) -> None:
    step = make_step()
    a, b = step.output, step.second
    expected = view_distance(a.predictions, b.predictions, step.valid, "l1")
    torch.testing.assert_close(Invariance("l1")(step), expected)
    last = view_distance(a.hidden_states[-1:], b.hidden_states[-1:], step.valid)
    found = Invariance(features="last_hidden")(step)
    assert found.ndim == 0
    torch.testing.assert_close(found, last[0])
    assert Invariance().needs_second_view


def test_student_without_heads_is_refused(make_step) -> None:
    step = make_step()
    bare = make_step(output=step.output._replace(predictions=[]))
    with pytest.raises(SettingsError, match="needs prediction heads"):
        Invariance()(bare)
