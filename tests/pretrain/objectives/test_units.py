"""Prediction of units at masked frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.objectives import unit_cross_entropy, valid_frames
from robustdistiller.pretrain.objectives.units import Units

VALID = valid_frames(torch.tensor([6, 3]), 6)
MASK = torch.tensor([[0, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 1]], dtype=torch.bool)  # beyond the end, too


def _drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
    units = torch.randint(5, (2, 6), generator=generator).masked_fill(~VALID, -1)
    return logits, units


@pytest.mark.parametrize("weight", [0.0, 0.25])
@pytest.mark.parametrize("masked", [True, False])
def test_cross_entropy_equals_numpy(weight: float, masked: bool) -> None:
    logits, units = _drawn()
    total, count = 0.0, 0
    for b, frames in enumerate((6, 3)):
        for t in range(frames):
            row = logits[b, t].numpy()
            hidden = bool(MASK[b, t]) or not masked
            count += hidden
            total += (1.0 if hidden else weight) * (np.log(np.exp(row).sum()) - row[units[b, t]])
    found = unit_cross_entropy(logits, units, VALID, MASK if masked else None, weight)
    assert found.item() == pytest.approx(total / count, rel=1e-9)


def test_known_limits() -> None:
    logits, units = _drawn()
    assert unit_cross_entropy(0 * logits, units, VALID, MASK).item() == pytest.approx(np.log(5))
    sure = 100 * torch.nn.functional.one_hot(units.clamp(min=0), 5).double()
    assert unit_cross_entropy(sure, units, VALID, MASK).item() < 1e-9
    assert unit_cross_entropy(logits, units, VALID, torch.zeros_like(MASK)).item() == 0


def test_gradient_is_that_of_masked_frames() -> None:
    logits, units = _drawn()
    assert torch.autograd.gradcheck(lambda x: unit_cross_entropy(x, units, VALID, MASK, 0.1), [logits.requires_grad_()])
    unit_cross_entropy(logits, units, VALID, MASK).backward()
    assert torch.equal(logits.grad.abs().sum(-1) > 0, MASK & VALID)


def test_term_has_a_linear_head_on_the_layer_it_says(make_step, make_shapes) -> None:
    units = torch.tensor([[0, 3, 2, 1, 0, 0, 2], [1, 1, 0, 0, 0, 0, 0]])
    mask = torch.zeros_like(units, dtype=torch.bool)
    mask[:, 1] = True
    step, shapes = make_step(units=units, mask=mask), make_shapes(num_units=4)
    for layer, state in (("last_hidden", step.student.hidden_states[-1]), (1, step.student.hidden_states[1])):
        term = Units(layer=layer, unmasked_weight=0.5)
        term.check(shapes)
        head = term.make_head(shapes)
        assert (head.in_features, head.out_features) == (4, 4)
        expected = unit_cross_entropy(head(state), units, step.valid, mask, 0.5)
        torch.testing.assert_close(term(step, head), expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert term(step, head).dtype == torch.float32
    assert (term.needs, term.mean_over) == ({"units"}, "masked_frames")


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({}, {"num_units": None}, "not divided into units"),
        ({"layer": 7}, {}, "layer: found layer 7, expected 0 to 2 or last_hidden"),
    ],
)
def test_what_does_not_fit_is_refused(make_shapes, options: dict, shapes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Units(**options).check(make_shapes(**{"num_units": 4} | shapes))
