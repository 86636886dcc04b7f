"""Layer similarities against direct N x N computations, known values and invariances; sums against one batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from robustdistiller.pretrain.teacher.groups.similarity import SIMILARITIES, SVCCA, LinearCKA, MeanCosine

KINDS = sorted(SIMILARITIES)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(frames: int = 60, dim: int = 6) -> list[Tensor]:
    """Three layers, each the one before through a map, with noise and a large mean."""
    first = draw(frames, dim)
    second = first @ draw(dim, dim, seed=1) + draw(frames, dim, seed=2) + 50.0
    return [first, second, (second - 50.0).tanh() + 0.3 * draw(frames, dim, seed=3)]


def measure(kind: object, states: list[Tensor], valid: Tensor | None = None) -> np.ndarray:
    kind.update(states, valid)
    return kind.matrix()


def direct_cka(x: Tensor, y: Tensor, unbiased: bool) -> float:
    """From N x N kernels, term by term as in the papers."""

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        n, k, m = len(a), a @ a.T, b @ b.T
        if not unbiased:
            centre = np.eye(n) - np.ones((n, n)) / n
            return float(np.trace(k @ centre @ m @ centre)) / (n - 1) ** 2
        np.fill_diagonal(k, 0)
        np.fill_diagonal(m, 0)
        one = np.ones(n)
        terms = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return float(terms - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    a, b = x.numpy(), y.numpy()
    return hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b))


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_is_that_of_the_kernels(unbiased: bool) -> None:
    states = related()
    found = measure(LinearCKA(unbiased), states)
    for i, j in itertools.combinations(range(3), 2):
        assert found[i, j] == pytest.approx(direct_cka(states[i], states[j], unbiased), rel=1e-9)
        assert 0.02 < found[i, j] < 0.98  # neither end of the range would tell much
    # The two estimates differ here, so that one cannot pass for the other.
    assert np.abs(found - measure(LinearCKA(not unbiased), states)).max() > 0.01


@pytest.mark.parametrize("unbiased", [True, False])
def test_cka_is_blind_to_rotation_scale_and_shift_but_not_to_any_linear_map(unbiased: bool) -> None:
    first, second, _ = related()
    rotation = torch.from_numpy(np.linalg.qr(draw(6, 6, seed=7).numpy())[0])
    before = measure(LinearCKA(unbiased), [first, second])[0, 1]
    after = measure(LinearCKA(unbiased), [first, -2.5 * second @ rotation + 3])[0, 1]
    assert after == pytest.approx(before, abs=1e-9)
    assert measure(LinearCKA(unbiased), [first, first @ rotation])[0, 1] == pytest.approx(1.0, abs=1e-9)
    stretched = second @ torch.diag(torch.tensor([10.0, 1, 1, 1, 1, 1], dtype=torch.float64))
    assert abs(measure(LinearCKA(unbiased), [first, stretched])[0, 1] - before) > 0.01


def test_orthogonal_features_have_no_similarity() -> None:
    signs = torch.from_numpy(scipy.linalg.hadamard(16)).double()[:, 1:]  # orthogonal columns of mean 0
    assert measure(LinearCKA(unbiased=False), [signs[:, :4], signs[:, 4:9]])[0, 1] == pytest.approx(0, abs=1e-12)
    assert measure(SVCCA(1.0), [signs[:, :4], signs[:, 4:9]])[0, 1] == pytest.approx(0, abs=1e-12)
    disjoint = torch.tensor([[1.0, 0.0]]).repeat(5, 1), torch.tensor([[0.0, 2.0]]).repeat(5, 1)
    assert measure(MeanCosine(), list(disjoint))[0, 1] == 0


def test_unrelated_features_have_no_similarity_only_without_bias() -> None:
    pairs = [[draw(40, 20, seed=seed), draw(40, 20, seed=1000 + seed)] for seed in range(30)]
    assert abs(np.mean([measure(LinearCKA(), pair)[0, 1] for pair in pairs])) < 0.02
    assert np.mean([measure(LinearCKA(unbiased=False), pair)[0, 1] for pair in pairs]) > 0.25


def test_half_shared_features_have_the_cka_worked_out_by_hand() -> None:
    signs = torch.from_numpy(scipy.linalg.hadamard(16)).double()[:, 1:]
    # X has two unit directions, Y one of them and another: ||X^T Y||^2 = n^2, ||X^T X|| = ||Y^T Y|| = n sqrt(2).
    assert measure(LinearCKA(False), [signs[:, [0, 1]], signs[:, [1, 2]]])[0, 1] == pytest.approx(0.5)
    # The shared one three times as large in both: 81 / (81 + 1).
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    pair = [signs[:, [0, 1]] * weights, signs[:, [1, 2]] * weights.flip(0)]
    assert measure(LinearCKA(False), pair)[0, 1] == pytest.approx(81 / 82)
    assert measure(SVCCA(1.0), pair)[0, 1] == pytest.approx(0.5)  # correlations 1 and 0
    assert measure(SVCCA(0.8), pair)[0, 1] == pytest.approx(1.0)  # one direction holds 0.9 of each variance
    assert measure(SVCCA(0.95), pair)[0, 1] == pytest.approx(0.5)  # 0.9 is not enough: both are needed


def test_svcca_is_the_mean_of_scipys_principal_angles() -> None:
    states = [state[:, :width] for state, width in zip(related(), (6, 4, 5))]
    found = measure(SVCCA(1.0), states)
    centred = [(state - state.mean(dim=0)).numpy() for state in states]
    for i, j in itertools.combinations(range(3), 2):
        assert found[i, j] == pytest.approx(np.cos(scipy.linalg.subspace_angles(centred[i], centred[j])).mean())


def test_svcca_is_blind_to_every_linear_map_if_all_directions_are_kept() -> None:
    first, second, _ = related()
    before = measure(SVCCA(1.0), [first, second])[0, 1]
    after = measure(SVCCA(1.0), [first @ draw(6, 6, seed=5), second @ draw(6, 6, seed=6) - 4])[0, 1]
    assert after == pytest.approx(before, abs=1e-8)


def test_directions_that_repeat_others_are_no_directions() -> None:
    x = draw(30, 3)
    repeated = torch.cat([x, x[:, :2]], dim=1)
    assert measure(SVCCA(1.0), [x, repeated])[0, 1] == pytest.approx(1.0)


def test_cosine_is_the_mean_over_frames() -> None:
    states = related()
    expected = torch.cosine_similarity(states[0], states[1], dim=-1).mean().item()
    assert measure(MeanCosine(), states)[0, 1] == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_add_up_to_one(kind: str) -> None:
    states = related()
    whole, pieces = SIMILARITIES[kind](), SIMILARITIES[kind]()
    whole.update(states)
    for start, stop in ((0, 7), (7, 8), (8, 41), (41, 60)):
        pieces.update([state[start:stop] for state in states])
    assert pieces.frames == whole.frames == 60
    np.testing.assert_allclose(pieces.matrix(), whole.matrix(), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_count(kind: str) -> None:
    states = related()
    valid = torch.arange(40) < torch.tensor([40, 20]).unsqueeze(1)
    padded = [torch.full((2, 40, 6), 1e3, dtype=torch.float64) for _ in states]
    for state, row in zip(states, padded):
        row[valid] = state
    np.testing.assert_allclose(
        measure(SIMILARITIES[kind](), padded, valid), measure(SIMILARITIES[kind](), states), atol=1e-10
    )
    assert np.abs(measure(SIMILARITIES[kind](), padded) - measure(SIMILARITIES[kind](), states)).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_matrix_is_symmetric_with_a_unit_diagonal(kind: str) -> None:
    found = measure(SIMILARITIES[kind](), [state.float() for state in related()])
    assert found.dtype == np.float64 and found.shape == (3, 3)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found.diagonal(), 1.0)


@pytest.mark.parametrize("unbiased", [True, False])
def test_a_large_common_mean_costs_no_digits(unbiased: bool) -> None:
    first, second, _ = related()
    plain = measure(LinearCKA(unbiased), [first, second])
    np.testing.assert_allclose(measure(LinearCKA(unbiased), [first + 1e6, second - 1e6]), plain, atol=1e-7)


def test_errors_say_what_is_wrong() -> None:
    x = draw(10, 6)
    with pytest.raises(ValueError, match="CKA needs at least 4 frames and has seen 3"):
        measure(LinearCKA(), [x[:3], x[:3]])
    with pytest.raises(ValueError, match="CCA of 6 and 6 directions needs at least 13 frames and has seen 10"):
        measure(SVCCA(1.0), [x, draw(10, 6, seed=1)])
    with pytest.raises(ValueError, match=r"state 1 \(from 0\) is the same in every frame"):
        measure(LinearCKA(), [x, torch.full((10, 6), 0.1)])
    with pytest.raises(ValueError, match=r"state 1 \(from 0\) has NaN"):
        measure(LinearCKA(), [x, x.where(x < x.max(), torch.nan)])
    with pytest.raises(ValueError, match=r"widths \[5, 6\]"):
        measure(MeanCosine(), [x, x[:, :5]])
    with pytest.raises(ValueError, match="expected equal frames"):
        measure(LinearCKA(), [x, x[:5]])
    with pytest.raises(ValueError, match="has seen no frames"):
        MeanCosine().matrix()
    with pytest.raises(ValueError, match="variance=0"):
        SVCCA(0)
    cka = LinearCKA()
    cka.update([x, x])
    with pytest.raises(ValueError, match="3 layers, after batches of 2"):
        cka.update([x, x, x])
