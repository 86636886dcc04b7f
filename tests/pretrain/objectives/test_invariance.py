"""Agreement of two views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.objectives.invariance import Anchor, Invariance


def test_distances_equal_numpy_over_valid_frames(make_step) -> None:
    step = make_step((7, 3))
    for view, value in ((step.student, 1e3), (step.second, -7.0)):
        view.hidden_states[1][1, 3:] = value
    a, b = (
        np.concatenate([view.hidden_states[1][0], view.hidden_states[1][1, :3]]) for view in (step.student, step.second)
    )
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    found = Invariance(distance="l1", features=1)(step)
    assert found.ndim == 0 and found.item() == pytest.approx(np.abs(a - b).mean(), rel=1e-6)
    assert Invariance(features=1)(step).item() == pytest.approx(1 - cosines.mean(), rel=1e-6)


@pytest.mark.parametrize("distance", ["l1", "cosine"])
def test_known_limits(make_step, distance: str) -> None:
    step = make_step()
    for term, same in (
        (Invariance(distance=distance), make_step(second=step.student)),
        (Anchor(distance=distance), make_step(clean=step.student)),
    ):
        assert term(same).tolist() == pytest.approx([0, 0], abs=1e-6)
    opposite = step.student._replace(predictions=[-one for one in step.student.predictions])
    if distance == "cosine":
        assert Anchor()(make_step(clean=opposite)).tolist() == pytest.approx([2, 2], abs=1e-6)


@pytest.mark.parametrize(
    ("stop", "moved"), [("none", (True, True)), ("first", (False, True)), ("second", (True, False))]
)
@pytest.mark.parametrize("features", ["predictions", "last_hidden", 0])
def test_gradient_reaches_the_views_it_should(make_step, stop: str, moved: tuple, features: str | int) -> None:
    step = make_step()
    places = {"predictions": lambda x: x.predictions[1], "last_hidden": lambda x: x.hidden_states[-1]}
    place = places.get(features, lambda x: x.hidden_states[0])
    views = [place(one).requires_grad_() for one in (step.student, step.second, step.clean)]
    Invariance(features=features, stop_gradient=stop)(step).sum().backward()
    assert tuple(view.grad is not None for view in views) == (*moved, False)


@pytest.mark.parametrize("features", ["predictions", "last_hidden", 1])
def test_the_clean_view_is_an_anchor(make_step, features: str | int) -> None:
    """What the student makes of corrupted speech moves, what it makes of clean speech does not, gradient or not."""
    step = make_step()
    tensors = (
        [*step.student.predictions, *step.student.hidden_states],
        [*step.clean.predictions, *step.clean.hidden_states],
    )
    for tensor in (*tensors[0], *tensors[1]):
        tensor.requires_grad_()
    value = Anchor(features=features)(step)
    torch.testing.assert_close(value, Invariance(features=features)(make_step(second=step.clean)))
    value.sum().backward()
    assert any(tensor.grad is not None for tensor in tensors[0])
    assert all(tensor.grad is None for tensor in tensors[1])


def test_what_has_to_be_there() -> None:
    assert Invariance().needs == {"corruption", "second_view"}
    assert Anchor().needs == {"corruption", "clean_view"}


@pytest.mark.parametrize("term", [Invariance, Anchor])
@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({}, {"match": "layers"}, "features: predictions are those of heads"),
        ({"features": 3}, {}, "features: found layer 3, expected 0 to 2 or last_hidden"),
    ],
)
def test_what_does_not_fit_is_refused(make_shapes, term, options: dict, shapes: dict, message: str) -> None:
    term(features="last_hidden").check(make_shapes(match="layers"))
    with pytest.raises(SettingsError, match=message):
        term(**options).check(make_shapes(**shapes))
