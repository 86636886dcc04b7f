"""Relations between frames against NumPy, utterance by utterance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.objectives import relation_distance, valid_frames
from robustdistiller.pretrain.objectives.relations import Relations

LENGTHS = (7, 4, 1)
VALID = valid_frames(torch.tensor(LENGTHS), max(LENGTHS))
FORMS = ("mse", "mse_of_sums", "kl")


def _features(seed: int, width: int, padding: float = 0.0) -> torch.Tensor:
    x = torch.randn(3, 7, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.masked_fill(~VALID.unsqueeze(-1), padding)


def _expected(student: list[torch.Tensor], teacher: list[torch.Tensor], form: str) -> float:
    """Element by element, of the utterances without their padding."""
    values = []
    for b, frames in enumerate(LENGTHS):
        widths = student[0].shape[-1], teacher[0].shape[-1]
        products = []
        for x, y in (student, teacher):
            x, y = x[b, :frames].numpy(), y[b, :frames].numpy()
            products.append(np.array([[sum(x[i] * y[j]) for j in range(frames)] for i in range(frames)]))
        if form == "kl":
            s, t = (np.exp(one / np.sqrt(width)) for one, width in zip(products, widths))
            s, t = s / s.sum(1, keepdims=True), t / t.sum(1, keepdims=True)
            values.append((t * np.log(t / s)).sum(1).mean())
            continue
        s, t = (one / (width if form == "mse" else 1) for one, width in zip(products, widths))
        values.append(np.square(s - t).mean())
    return float(np.mean(values))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("same", [True, False])
def test_distance_equals_numpy_over_valid_frames(form: str, same: bool) -> None:
    """Of any widths; what padding holds does not matter."""
    student, teacher = ([_features(seed, width) for seed in seeds] for seeds, width in (((0, 1), 3), ((2, 3), 5)))
    if same:
        student[1], teacher[1] = student[0], teacher[0]
    padded = [[x.masked_fill(~VALID.unsqueeze(-1), 1e3) for x in pair] for pair in (student, teacher)]
    found = relation_distance(*map(tuple, padded), VALID, form)
    assert found.ndim == 0
    assert found.item() == pytest.approx(_expected(student, teacher, form), rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_known_limits(form: str) -> None:
    x = _features(0, 4)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    assert relation_distance((x, x), (x, x), VALID, form).item() == 0
    rotated = x @ rotation
    assert relation_distance((rotated, rotated), (x, x), VALID, form).item() < 1e-12
    shuffled = x.roll(1, 1)  # another order of the frames is another relation
    assert relation_distance((shuffled, shuffled), (x, x), VALID, form).item() > 0.01
    nothing = relation_distance((x, x), (x, x + 1), torch.zeros_like(VALID), form)
    assert nothing.item() == 0
    if form != "kl":  # ||0 - R||^2: of single frames of length 2 in four dimensions, 4 or 4 / 4 each
        y, valid = torch.ones(2, 1, 4), torch.ones(2, 1, dtype=torch.bool)
        assert relation_distance((0 * y, y), (y, y), valid, form).item() == (1 if form == "mse" else 16)


def test_width_does_not_matter_to_means_of_products() -> None:
    """Eight common factors spread over more features: the value of `mse` stays, that of the sums has the square."""
    values = {}
    factors = torch.randn(2, 2, 50, 8, generator=torch.Generator().manual_seed(0))
    for width in (64, 256):
        basis, _ = torch.linalg.qr(torch.randn(width, 8, generator=torch.Generator().manual_seed(1)))
        student, teacher = factors @ basis.T * width**0.5
        valid = torch.ones(2, 50, dtype=torch.bool)
        values[width] = [relation_distance((student,) * 2, (teacher,) * 2, valid, form).item() for form in FORMS[:2]]
    assert values[64][0] == pytest.approx(values[256][0], rel=1e-4)
    assert values[64][1] == pytest.approx(values[256][1] / 16, rel=1e-4)
    assert values[64][1] == pytest.approx(values[64][0] * 64**2, rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_equal_finite_differences(form: str) -> None:
    x, y, u, v = (_features(seed, 3) for seed in range(4))
    inputs = [x.requires_grad_(), y.requires_grad_()]
    assert torch.autograd.gradcheck(lambda a, b: relation_distance((a, b), (u, v), VALID, form), inputs)
    relation_distance((x, y), (u, v), VALID, form).backward()
    assert torch.all(x.grad[~VALID] == 0) and x.grad[VALID].abs().max() > 0


def test_matrices_are_not_kept_for_the_gradient() -> None:
    kept = []
    x, u = torch.randn(4, 300, 8, requires_grad=True), torch.randn(4, 300, 8)
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        relation_distance((x, x), (u, u), torch.ones(4, 300, dtype=torch.bool))
    assert max(kept) < 300 * 300


def test_term_is_the_sum_over_layers_divided_by_their_number(make_step) -> None:
    step = make_step((7, 3))
    states, targets, valid = step.student_states, step.targets, step.valid
    layer_wise = [relation_distance((s, s), (t, t), valid) for s, t in zip(states, targets)]
    intra = relation_distance(tuple(states), tuple(targets), valid)
    found = Relations()(step)
    torch.testing.assert_close(found, torch.stack([layer_wise[0], layer_wise[1] + intra]))
    torch.testing.assert_close(Relations(layer_wise=0.0, intra_layer=2.0)(step), torch.stack([0 * intra, 2 * intra]))
    torch.testing.assert_close(Relations(layer_wise=3.0, intra_layer=0.0)(step), 3 * torch.stack(layer_wise))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(Relations()(step), found, rtol=0, atol=0)


def test_every_utterance_counts_alike(make_step) -> None:
    """As `mean_over` says: a batch is the mean of its utterances, whatever their lengths."""
    step, term = make_step((9, 2)), Relations(form="kl")
    alone = [
        relation_distance(
            *(tuple(x[b : b + 1, :n] for x in pair) for pair in (step.student_states, step.targets)),
            torch.ones(1, n, dtype=torch.bool),
            "kl",
        )
        for b, n in enumerate((9, 2))
    ]
    assert term.mean_over == "utterances"
    torch.testing.assert_close(Relations(layer_wise=0.0, form="kl")(step)[1], sum(alone) / 2)


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ({"layer_wise": 0.0, "intra_layer": 0.0}, {}, "layer_wise and intra_layer are 0, expected one above 0"),
        ({}, {"match": "heads"}, "relations of 2 teacher layers at once"),
        ({}, {"num_teachers": 2}, "intra_layer compares .* found 2 of 2: give intra_layer=0"),
        ({}, {"state_widths": (4,), "target_widths": (6,)}, "found 1 of 1: give intra_layer=0"),
    ],
)
def test_what_does_not_fit_is_refused(make_shapes, options: dict, shapes: dict, message: str) -> None:
    Relations().check(make_shapes(match="layers"))
    Relations(intra_layer=0.0).check(make_shapes(match="heads", state_widths=(4,), target_widths=(6,)))
    with pytest.raises(SettingsError, match=message):
        Relations(**options).check(make_shapes(**{"match": "layers"} | shapes))
