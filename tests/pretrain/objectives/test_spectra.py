"""Spectra and distances of waveforms against NumPy and PyTorch's own transforms, utterance by utterance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustdistiller.pretrain.objectives import si_snr_db, spectral_distance, valid_frames
from robustdistiller.pretrain.objectives.spectra import (
    MRSTFT_RESOLUTIONS,
    inverse_spectrum,
    mrstft_distance,
    spectrum,
)

LENGTHS = torch.tensor([3333, 2001, 1600])


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Estimate and target; what is past an utterance's end differs."""
    generator = torch.Generator().manual_seed(0)
    target = 0.1 * torch.randn(3, 3333, generator=generator)
    estimate = 0.7 * target + 0.03 * torch.randn(3, 3333, generator=generator) + 0.01
    outside = ~valid_frames(LENGTHS, 3333)
    return estimate.masked_fill(outside, 5.0), target.masked_fill(outside, -2.0)


def _numpy_magnitudes(samples: np.ndarray, n_fft: int, hop: int, window_samples: int) -> np.ndarray:
    window = np.zeros(n_fft)
    left = (n_fft - window_samples) // 2
    window[left : left + window_samples] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_samples) / window_samples)
    padded = np.pad(samples.astype(np.float64), n_fft // 2)
    starts = range(0, len(samples) // hop * hop + 1, hop)
    power = np.abs(np.fft.rfft([padded[start : start + n_fft] * window for start in starts])) ** 2
    return np.sqrt(np.maximum(power, 1e-7))


def _numpy_si_snr_db(estimate: np.ndarray, target: np.ndarray) -> float:
    e, y = estimate - estimate.mean(), target - target.mean()
    along = e @ y / (y @ y) * y
    return 10 * np.log10((along @ along) / ((e - along) @ (e - along)))


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_spectral_distance_equals_numpy(kind: str) -> None:
    generator = np.random.default_rng(0)
    estimate, target = np.abs(generator.normal(size=(2, 3, 7, 6)))
    lengths = (7, 3, 1)
    rows = [estimate[index, :length] - target[index, :length] for index, length in enumerate(lengths)]
    difference = np.concatenate(rows)
    expected = np.abs(difference).mean() if kind == "l1" else np.square(difference).mean()
    valid = valid_frames(torch.tensor(lengths), 7)
    found = spectral_distance(torch.tensor(estimate), torch.tensor(target), valid, kind)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert np.abs(estimate - target).mean() != pytest.approx(np.abs(difference).mean(), rel=1e-3)


def test_si_snr_equals_numpy(pair) -> None:
    estimate, target = pair
    expected = [
        _numpy_si_snr_db(e[:length].double().numpy(), y[:length].double().numpy())
        for e, y, length in zip(estimate, target, LENGTHS)
    ]
    np.testing.assert_allclose(si_snr_db(estimate, target, LENGTHS).numpy(), expected, atol=1e-3)
    whole = si_snr_db(estimate, target, torch.tensor([3333] * 3))[1].item()
    assert abs(whole - expected[1]) > 1, "the padding does not matter in this test"


def test_si_snr_at_its_limits() -> None:
    generator = torch.Generator().manual_seed(0)
    target, other = torch.randn(2, 1000, generator=generator, dtype=torch.float64)
    target, other = target - target.mean(), other - other.mean()
    other = other - (other @ target) / (target @ target) * target  # nothing in common
    estimates = torch.stack([target, -3 * target + 7, other, target + other * target.norm() / other.norm(), 0 * target])
    lengths = torch.tensor([1000] * 5)
    estimates.requires_grad_()
    found = si_snr_db(estimates, target.expand(5, -1), lengths)
    assert found.tolist() == pytest.approx([80, 80, -80, 0, 0], abs=1e-6)
    found.sum().backward()
    assert torch.isfinite(estimates.grad).all()
    assert si_snr_db(target[None], 0 * target[None], lengths[:1]).item() == 0
    for level in (1e-4, 1e4):
        quiet = si_snr_db(level * estimates[3:4].float(), 1e-3 * target[None].float(), lengths[:1])
        assert quiet.item() == pytest.approx(0, abs=1e-4)


def test_si_snr_has_the_gradient_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    estimate, target = torch.randn(2, 2, 8, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([8, 5])
    assert torch.autograd.gradcheck(lambda e: si_snr_db(e, target, lengths), [estimate.requires_grad_()])


@pytest.mark.parametrize(("n_fft", "hop", "window"), [(512, 160, 400), *MRSTFT_RESOLUTIONS])
def test_spectrum_equals_numpy(n_fft: int, hop: int, window: int) -> None:
    samples = 0.1 * torch.randn(1, 3333, generator=torch.Generator().manual_seed(0))
    found = spectrum(samples, n_fft, hop, window).abs().clamp(min=1e-7**0.5)
    np.testing.assert_allclose(found[0].numpy(), _numpy_magnitudes(samples[0].numpy(), n_fft, hop, window), atol=1e-5)


def test_inverse_of_changed_spectra_equals_torch_for_each_utterance() -> None:
    """Spectra that are no waveform's, in a padded batch: every utterance gets what it would get alone."""
    generator = torch.Generator().manual_seed(0)
    spectra = torch.randn(3, 3333 // 160 + 1, 257, generator=generator, dtype=torch.complex64)
    found = inverse_spectrum(spectra, valid_frames(LENGTHS // 160 + 1, spectra.shape[1]), 160, 400, 3333)
    for index, length in enumerate(LENGTHS.tolist()):
        alone = spectra[index, : length // 160 + 1].T
        expected = torch.istft(alone, 512, 160, 400, torch.hann_window(400), length=length)
        torch.testing.assert_close(found[index, :length], expected, rtol=0, atol=1e-5)
    batch = torch.istft(spectra.transpose(1, 2), 512, 160, 400, torch.hann_window(400), length=3333)
    assert (found[1, :2001] - batch[1, :2001]).abs().max() > 1e-3, "the padding does not matter in this test"


@pytest.mark.parametrize("over", ["batch", "utterance"])
def test_mrstft_equals_numpy(pair, over: str) -> None:
    """Over the batch, as released: one ratio of norms for all utterances, which loud ones rule."""
    estimate, target = pair
    estimate, target = (x * torch.tensor([[1.0], [10.0], [0.1]]) for x in (estimate, target))
    estimate[1] += 1.5 * target[1]
    values = []
    for resolution in MRSTFT_RESOLUTIONS:
        errors, powers, logs = [], [], []
        for e, y, length in zip(estimate.numpy(), target.numpy(), LENGTHS):
            e, y = (_numpy_magnitudes(x[:length], *resolution) for x in (e, y))
            errors.append(np.square(y - e).sum())
            powers.append(np.square(y).sum())
            logs.append(np.abs(np.log(y) - np.log(e)).mean(1))
        if over == "batch":
            convergence, log = np.sqrt(sum(errors) / sum(powers)), np.concatenate(logs).mean()
        else:
            convergence, log = np.sqrt(np.divide(errors, powers)).mean(), np.mean([one.mean() for one in logs])
        values.append(0.5 * convergence + 0.5 * log)
    found = mrstft_distance(estimate, target, LENGTHS, over=over).item()
    assert found == pytest.approx(np.mean(values), rel=1e-4)
    other = mrstft_distance(estimate, target, LENGTHS, over="batch" if over == "utterance" else "utterance").item()
    assert other != pytest.approx(found, rel=0.02)


def test_mrstft_at_its_limits(pair) -> None:
    estimate, target = pair
    perfect = target.clone().requires_grad_()
    value = mrstft_distance(perfect, target, LENGTHS)
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(perfect.grad).all()
    nothing = torch.zeros_like(target)
    doubled = mrstft_distance(2 * target, target, LENGTHS)
    assert doubled.item() == pytest.approx(0.5 * 1 + 0.5 * np.log(2), rel=1e-3)
    silence = mrstft_distance(estimate, nothing, LENGTHS)
    assert torch.isfinite(silence)


def test_mrstft_has_the_gradient_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    estimate, target = torch.randn(2, 2, 40, generator=generator, dtype=torch.float64)
    lengths, resolutions = torch.tensor([40, 23]), [(16, 4, 12), (8, 3, 8)]
    check = torch.autograd.gradcheck
    for over in ("batch", "utterance"):
        assert check(lambda e: mrstft_distance(e, target, lengths, over, resolutions), [estimate.requires_grad_()])  # noqa: B023


def test_inverse_has_the_gradient_of_finite_differences() -> None:
    spectra = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    valid = valid_frames(torch.tensor([5, 3]), 5)
    assert torch.autograd.gradcheck(lambda s: inverse_spectrum(s, valid, 3, 8, 14), [spectra.requires_grad_()])


def test_mixed_precision_changes_nothing(pair) -> None:
    estimate, target = pair
    expected = si_snr_db(estimate, target, LENGTHS), mrstft_distance(estimate, target, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        found = si_snr_db(estimate, target, LENGTHS), mrstft_distance(estimate, target, LENGTHS)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
