"""Correlations over a batch against NumPy, written out element by element."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.objectives import cross_correlation, valid_frames
from robustdistiller.pretrain.objectives.correlation import CrossCorrelation, SelfCorrelation

LENGTHS = (7, 5, 6, 3)
VALID = valid_frames(torch.tensor(LENGTHS), max(LENGTHS))
EPS = 1e-3


def self_correlation(features: list[torch.Tensor], valid: torch.Tensor, frames: int | None = 150, **options):
    """With the factor of the published numbers."""
    options = {"diagonal_scale": 0.0, "off_diagonal_scale": 5e-6 / 50_000, **options}
    return cross_correlation(features, features, valid, frames, **options)


def _features(seed: int, width: int = 5, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    x = torch.randn(len(LENGTHS), max(LENGTHS), width, generator=generator, dtype=torch.float64)
    return (x @ mixing + 2).to(dtype)


def _assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Relative only: the published constants make values of 1e-10 out of tensors of this size."""
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def _pool(row: np.ndarray, frames: int) -> np.ndarray:
    number = len(row)
    edges = [(frame * number // frames, -(-(frame + 1) * number // frames)) for frame in range(frames)]
    return np.stack([row[start:end].mean(0) for start, end in edges])


def _groups(x: torch.Tensor, frames: int | None, normalize: str) -> list[list[tuple[int, np.ndarray]]]:
    """Samples that are standardised together, each with its utterance."""
    rows = [row[:length] for row, length in zip(x.detach().double().numpy(), LENGTHS)]
    if frames is not None:
        rows = [_pool(row, frames) for row in rows]
    places = range(max(map(len, rows)))
    groups = [[(index, row[place]) for index, row in enumerate(rows) if place < len(row)] for place in places]
    if normalize == "batch_and_time":
        return [[sample for group in groups for sample in group]]
    return [group for group in groups if len(group) > 1]


def _standardised(group: list[tuple[int, np.ndarray]]) -> np.ndarray:
    samples = np.stack([sample for _, sample in group])
    return (samples - samples.mean(0)) / (samples.std(0, ddof=1) + EPS)


def _off_diagonal(z: np.ndarray, t: np.ndarray, divisors: np.ndarray, form: str) -> float:
    total = 0.0
    for i in range(z.shape[1]):
        for j in range(t.shape[1]):
            if i != j and form == "covariance":
                total += (z[:, i] * t[:, j] / np.sqrt(divisors)).sum() ** 2 / (len(z) - 1) ** 2
            elif i != j:
                total += ((z[:, i] * t[:, j]) ** 2 / divisors).sum() / (len(z) - 1)
    return total


def _expected(z, t, frames, normalize, divisors, form, diagonal_scale, off_diagonal_scale) -> float:
    values = []
    for one, other in zip(_groups(z, frames, normalize), _groups(t, frames, normalize)):
        a, b = _standardised(one), _standardised(other)
        each = np.array([divisors[index] for index, _ in one])
        diagonal = (((a * b).sum(0) / (len(a) - 1) - 1) ** 2).sum()
        values.append(diagonal_scale * diagonal + off_diagonal_scale * _off_diagonal(a, b, each, form))
    return float(np.mean(values))


@pytest.mark.parametrize("frames", [None, 4, 10])
@pytest.mark.parametrize("normalize", ["batch", "batch_and_time"])
@pytest.mark.parametrize("form", [None, "covariance", "outer_products"])
@pytest.mark.parametrize("width", [2, 5])  # fewer and more features than utterances
def test_both_equal_numpy(frames: int | None, normalize: str, form: str | None, width: int) -> None:
    z, t = _features(0, width), _features(1, width)
    divisors = torch.tensor([1.0, 100.0, 20.0, 3.0], dtype=torch.float64) if form else None
    numbers = divisors.tolist() if form else [1.0] * len(LENGTHS)
    options = {"frames": frames, "normalize": normalize, "eps": EPS, "divisors": divisors}
    options["divisor_form"] = form = form or "covariance"

    expected = [_expected(x, y, frames, normalize, numbers, form, 0.1, 0.03) for x, y in ((z, t), (t, t))]
    padded = [x.masked_fill(~VALID.unsqueeze(-1), 1e4) for x in (z, t)]
    found = cross_correlation(padded, [padded[1]] * 2, VALID, diagonal_scale=0.1, off_diagonal_scale=0.03, **options)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)

    expected = [_expected(x, x, frames, normalize, numbers, form, 0.0, 0.03) for x in (z, t)]
    found = self_correlation(padded, VALID, off_diagonal_scale=0.03, **options)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_unpadded_batches_have_the_published_value() -> None:
    """The loss as it is published, with D x D matrices, at the constants of the published numbers."""
    generator = torch.Generator().manual_seed(0)
    z, t = (torch.randn(6, 40, 16, generator=generator) for _ in range(2))
    valid = torch.ones(6, 40, dtype=torch.bool)
    pooled = [F.adaptive_avg_pool1d(x.transpose(1, 2), 15).transpose(1, 2) for x in (z, t)]
    a, b = ((x - x.mean(0)) / (x.std(0) + 1e-5) for x in pooled)
    cross, own = torch.einsum("bfi,bfj->fij", a, b) / 5, torch.einsum("bfi,bfj->fij", a, a) / 5
    others = 1 - torch.eye(16)
    diagonal = (cross.diagonal(dim1=1, dim2=2) - 1).square().sum(-1) / 10
    expected = (diagonal + 5e-5 * (cross.square() * others).sum((1, 2)) / 100).mean()
    torch.testing.assert_close(cross_correlation([z], [t], valid, frames=15)[0], expected, rtol=1e-5, atol=0)
    expected = (5e-6 * (own.square() * others).sum((1, 2)) / 50_000).mean()
    torch.testing.assert_close(self_correlation([z], valid, frames=15)[0], expected, rtol=1e-5, atol=0)


def test_known_limits() -> None:
    hadamard = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    x = hadamard.reshape(4, 1, 3)  # columns without mean, orthogonal to each other
    valid = torch.ones(4, 1, dtype=torch.bool)
    options = {"frames": None, "eps": 0.0, "off_diagonal_scale": 1.0}
    assert cross_correlation([x], [x], valid, **options).item() == pytest.approx(0, abs=1e-12)
    assert self_correlation([x], valid, **options).item() == pytest.approx(0, abs=1e-12)
    assert cross_correlation([x], [-x], valid, **options).item() == pytest.approx(3 * 4 / 10)
    shifted = x.roll(1, -1)  # every feature of the student is another one of the teacher
    assert cross_correlation([shifted], [x], valid, **options).item() == pytest.approx(3 / 10 + 3)
    same = x[..., :1].expand(-1, -1, 3)
    assert self_correlation([same], valid, **options).item() == pytest.approx(3 * 2)
    assert cross_correlation([5 * x + 3], [x], valid, **options).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("normalize", ["batch", "batch_and_time"])
@pytest.mark.parametrize("frames", [None, 3])
def test_gradients_equal_finite_differences(normalize: str, frames: int | None) -> None:
    z, t = _features(0, 3).requires_grad_(), _features(1, 3)
    divisors = torch.tensor([1.0, 4.0, 2.0, 3.0], dtype=torch.float64)
    for form in ("covariance", "outer_products"):
        options = {"frames": frames, "normalize": normalize, "divisors": divisors, "divisor_form": form, "eps": EPS}
        cross = lambda x, kw=options: cross_correlation([x], [t], VALID, off_diagonal_scale=0.1, **kw)  # noqa: E731
        own = lambda x, kw=options: self_correlation([x], VALID, off_diagonal_scale=0.1, **kw)  # noqa: E731
        assert torch.autograd.gradcheck(cross, [z], fast_mode=True)
        assert torch.autograd.gradcheck(own, [z], fast_mode=True)


def test_padding_gets_no_gradient() -> None:
    for frames in (None, 4):
        z = _features(0).requires_grad_()
        cross_correlation([z], [_features(1)], VALID, frames).sum().backward()
        assert torch.all(z.grad[~VALID] == 0)
        assert z.grad[VALID].abs().max() > 0


def test_constant_features_stay_finite() -> None:
    z = _features(0, dtype=torch.float32)
    z[..., 2] = 0
    z.requires_grad_()
    value = cross_correlation([z], [_features(1, dtype=torch.float32)], VALID) + self_correlation([z], VALID)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(z.grad).all()


def test_batch_of_one_has_no_value_over_the_batch_but_one_over_time(make_step, caplog) -> None:
    step = make_step([9])
    step.predictions[0].requires_grad_()
    for make in (CrossCorrelation, SelfCorrelation):
        value = make()(step)
        assert value.tolist() == [0, 0]
        value.sum().backward()
        assert torch.all(step.predictions[0].grad == 0)
        assert "without two utterances" in caplog.text
        assert torch.all(make(normalize="batch_and_time")(step) > 0)


@pytest.mark.parametrize("make", [CrossCorrelation, SelfCorrelation])
def test_mixed_precision_changes_nothing(make_step, make) -> None:
    step = make_step((7, 5, 6))
    expected = make()(step)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(make()(step), expected, rtol=0, atol=0)


def test_equal_snrs_divide_the_off_diagonal_part(make_step) -> None:
    """At 10 dB by 1, at 20 dB by 100: in the covariance form exactly."""
    options = {"diagonal_divisor": 1e30}  # leaves the off-diagonal part
    for make, extra in ((CrossCorrelation, options | {"snr_of": "student"}), (SelfCorrelation, {})):
        plain = make(**extra)(make_step((7, 5, 6)))
        for snr_db, divisor in ((10.0, 1.0), (15.0, 50.5), (20.0, 100.0), (torch.inf, 100.0), (-5.0, 1.0)):
            step = make_step((7, 5, 6), snr_db=torch.full((3,), snr_db))
            _assert_close(make(snr_weighting="covariance", **extra)(step), plain / divisor)
        exponential = make(snr_weighting="covariance", snr_law="exponential", snr_range_db=(0, 40), **extra)
        step = make_step((7, 5, 6), snr_db=torch.full((3,), 5.0))
        _assert_close(exponential(step), plain * 10)


def test_noisy_utterances_count_more(make_step) -> None:
    """With an open range, only the noisy utterances are decorrelated."""
    step = make_step((7, 7, 7, 7), snr_db=torch.tensor([10.0, 10.0, torch.inf, torch.inf]))
    for form in ("covariance", "outer_products"):
        objective = SelfCorrelation(snr_weighting=form, snr_range_db=(10.0, float("inf")))
        noisy = self_correlation(
            step.predictions,
            step.valid,
            divisors=torch.tensor([1.0, 1.0, 1e30, 1e30]),
            divisor_form=form,
        )
        _assert_close(objective(step), noisy)
        all_noisy = make_step((7, 7, 7, 7), snr_db=torch.full((4,), 10.0))
        assert torch.all(objective(step) < 0.9 * objective(all_noisy))


def test_the_snr_of_the_teacher_is_the_default_of_the_cross_term(make_step) -> None:
    clean_teacher = make_step((7, 5, 6), snr_db=torch.full((3,), 10.0))
    value = CrossCorrelation(snr_weighting="covariance", diagonal_divisor=1e30)(clean_teacher)
    _assert_close(value, CrossCorrelation(diagonal_divisor=1e30)(clean_teacher) / 100)


def test_variants_and_overrides(make_step) -> None:
    step = make_step((7, 5, 6))
    new = CrossCorrelation(variant="new", frames=4)(step)
    _assert_close(
        new, cross_correlation(step.predictions, step.targets, step.valid, 4, eps=1e-4, off_diagonal_scale=5e-4 / 100)
    )
    _assert_close(
        SelfCorrelation(variant="new")(step),
        self_correlation(step.predictions, step.valid, eps=1e-4, off_diagonal_scale=5e-6),
    )
    own = SelfCorrelation(off_diagonal=2.0, off_diagonal_divisor=4.0, eps=0.5, frames=None)(step)
    _assert_close(own, self_correlation(step.predictions, step.valid, None, eps=0.5, off_diagonal_scale=0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snr_weighting": "covariance", "snr_range_db": (0.0, 20.0)}, "found \\[0, 20\\].*negative"),
        ({"snr_weighting": "covariance", "snr_range_db": (20.0, 10.0)}, "expected rising values"),
    ],
)
def test_impossible_options_are_refused(make_shapes, options: dict, message: str) -> None:
    for make in (CrossCorrelation, SelfCorrelation):
        make(snr_weighting="outer_products").check(make_shapes())
        with pytest.raises(SettingsError, match=message):
            make(**options).check(make_shapes())
        assert "corruption" in make(snr_weighting="outer_products").needs and not make().needs


def test_states_are_correlated_where_they_can_be(make_step, make_shapes) -> None:
    """The map's output can be decorrelated by the map, which is thrown away; the states cannot."""
    step = make_step((7, 5, 6))
    cross, own = CrossCorrelation(of="states", frames=4), SelfCorrelation(of="states", frames=4)
    torch.testing.assert_close(own(step), self_correlation(step.student_states, step.valid, 4))
    own.check(make_shapes())  # of any width
    narrow = make_step((7, 5, 6), targets=[target[..., :4] for target in step.targets])
    torch.testing.assert_close(cross(narrow), cross_correlation(narrow.student_states, narrow.targets, step.valid, 4))
    cross.check(make_shapes(match="layers", target_widths=(4, 4)))
    for changes in ({"match": "layers"}, {"match": "heads", "target_widths": (4, 4)}):
        with pytest.raises(SettingsError, match=r"of=states .* give of=predictions"):
            cross.check(make_shapes(**changes))


def test_means_are_sums_divided_by_the_number_of_elements() -> None:
    z, t = _features(0), _features(1)
    options = {"frames": None, "normalize": "batch_and_time"}
    for scales, count in (((1.0, 0.0), 5), ((0.0, 1.0), 5 * 4)):
        total, mean = (
            cross_correlation(
                [z], [t], VALID, **options, diagonal_scale=scales[0], off_diagonal_scale=scales[1], reduction=one
            )
            for one in ("sum", "mean")
        )
        _assert_close(mean, total / count)
    one = torch.randn(4, 7, 1, dtype=torch.float64)
    assert self_correlation([one], VALID, reduction="mean", **options).item() == 0  # no other element, no division by 0
