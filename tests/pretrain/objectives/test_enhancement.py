"""The enhancement head: spectra and mask loss against NumPy and SciPy, the LSTM against packed sequences."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from robustdistiller.pretrain.objectives import spectral_distance, valid_frames
from robustdistiller.pretrain.objectives.enhancement import BiLSTM, EnhancementHead, magnitude_spectrum, num_spectra


def numpy_magnitudes(samples: np.ndarray) -> np.ndarray:
    """(samples // 160 + 1, 257), by writing out the definition."""
    window = np.zeros(512)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(samples.astype(np.float64), 256)
    frames = [padded[start : start + 512] * window for start in range(0, len(samples) // 160 * 160 + 1, 160)]
    return np.abs(np.fft.rfft(frames))


def test_spectrum_equals_numpy_and_scipy() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 3333).astype(np.float32)
    found = magnitude_spectrum(torch.from_numpy(samples)[None])[0].numpy()
    np.testing.assert_allclose(found, numpy_magnitudes(samples), atol=2e-6)
    hann = scipy.signal.get_window("hann", 400)
    _, _, spectrum = scipy.signal.stft(
        samples, window=hann, nperseg=400, noverlap=240, nfft=512, boundary="zeros", padded=False
    )
    inner = np.abs(spectrum.T) * hann.sum()  # SciPy starts its window half a window earlier and scales by its sum
    np.testing.assert_allclose(found[: len(inner)], inner[: len(found)], atol=2e-6)


def test_spectrum_of_a_padded_batch_equals_alone() -> None:
    samples = torch.randn(2, 4000)
    samples[1, 2500:] = 0
    batch = magnitude_spectrum(samples)
    lengths = num_spectra(torch.tensor([4000, 2500]))
    assert lengths.tolist() == [26, 16]
    torch.testing.assert_close(batch[1, : lengths[1]], magnitude_spectrum(samples[1:, :2500])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_bilstm_equals_packed_sequences(num_layers: int) -> None:
    torch.manual_seed(0)
    reference = nn.LSTM(6, 5, num_layers, batch_first=True, bidirectional=True)
    ours = BiLSTM(6, 5, num_layers)
    for layer in range(num_layers):
        for module, suffix in ((ours.ahead[layer], ""), (ours.back[layer], "_reverse")):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(module, f"{name}_l0").data.copy_(getattr(reference, f"{name}_l{layer}{suffix}"))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in reference.parameters())
    lengths = torch.tensor([4, 9, 1])
    x = torch.randn(3, 9, 6)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(reference(packed)[0], batch_first=True)
    found, valid = ours(x, lengths), valid_frames(lengths, 9)
    torch.testing.assert_close(found[valid], expected[valid], rtol=0, atol=1e-6)
    plain = reference(x)[0]
    assert (plain[valid] - expected[valid]).abs().max() > 1e-3, "padding does not matter in this test"


def test_mask_loss_equals_numpy() -> None:
    torch.manual_seed(0)
    head = EnhancementHead(4, hidden_size=3, num_layers=1).eval()
    lengths = torch.tensor([3200, 2000])
    noisy, clean = torch.randn(2, 3200), torch.randn(2, 3200)
    for waveforms in (noisy, clean):
        waveforms[1, 2000:] = 0
    features, frame_lengths = torch.randn(2, 9, 4), torch.tensor([9, 5])
    spectra = num_spectra(lengths)
    estimate = head(features, frame_lengths, magnitude_spectrum(noisy), spectra)
    loss = spectral_distance(estimate, magnitude_spectrum(clean), valid_frames(spectra, estimate.shape[1]))

    differences = []
    for row, (length, frames) in enumerate(zip(lengths.tolist(), frame_lengths.tolist())):
        spectrum = numpy_magnitudes(noisy[row, :length].numpy())
        repeated = np.repeat(features[row, :frames].numpy(), 2, axis=0)
        repeated = np.pad(repeated, ((0, len(spectrum) - len(repeated)), (0, 0)))
        with torch.no_grad():
            hidden = head.lstm(torch.from_numpy(repeated)[None], torch.tensor([len(repeated)]))[0].numpy()
        logits = hidden @ head.linear.weight.detach().numpy().T + head.linear.bias.detach().numpy()
        masked = spectrum / (1 + np.exp(-logits))
        differences.append(np.abs(masked - numpy_magnitudes(clean[row, :length].numpy())).ravel())
    assert loss.item() == pytest.approx(np.concatenate(differences).mean(), rel=1e-5)


def test_mask_lies_between_nothing_and_all() -> None:
    head = EnhancementHead(4, hidden_size=3, num_layers=1)
    noisy = torch.rand(1, 21, 257)
    estimate = head(torch.randn(1, 9, 4) * 50, torch.tensor([9]), noisy, torch.tensor([21]))
    assert torch.all(estimate >= 0) and torch.all(estimate <= noisy)


def test_odd_frame_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 160 samples, found 240"):
        EnhancementHead(4, samples_per_frame=240)
