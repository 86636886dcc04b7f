"""Distances between magnitude spectra and between waveforms, over the valid part of each utterance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from robustdistiller.pretrain.objectives.ops import at_least_float32, full_precision, masked_mean, valid_frames

#: (FFT size, hop, window) in samples, as in Parallel WaveGAN (arXiv 1910.11480) at 24 kHz.
MRSTFT_RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))


def spectrum(waveforms: Tensor, n_fft: int, hop: int, window_samples: int) -> Tensor:
    """Centred short-time Fourier transform with a Hann window: (B, samples // hop + 1, n_fft // 2 + 1) complex.

    Both ends are padded with zeros, which, unlike reflections of the signal, give an utterance the same spectrum alone
    and in a padded batch. Sizes are in samples; waveforms (B, samples) are zero past each utterance's end.
    """
    waveforms = at_least_float32(waveforms)
    window = torch.hann_window(window_samples, dtype=waveforms.dtype, device=waveforms.device)
    with full_precision(waveforms):
        result = torch.stft(waveforms, n_fft, hop, window_samples, window, pad_mode="constant", return_complex=True)
    return result.transpose(1, 2)


def inverse_spectrum(spectra: Tensor, valid: Tensor, hop: int, window_samples: int, num_samples: int) -> Tensor:
    """Waveforms (B, num_samples) whose spectra are nearest to the given ones, each utterance as if it were alone.

    `torch.istft`, which is the same for an utterance without padding, would let the padded frames take part in the last
    samples of shorter utterances. `spectra` are (B, S, n_fft // 2 + 1) complex, of `spectrum` or changed, `valid` is
    (B, S) bool; the result is zero where no valid spectrum reaches.
    """
    n_fft = 2 * (spectra.shape[2] - 1)
    window = torch.hann_window(window_samples, dtype=spectra.real.dtype, device=spectra.device)
    left = (n_fft - window_samples) // 2
    window = torch.nn.functional.pad(window, (left, n_fft - window_samples - left))
    mask = valid.unsqueeze(-1).to(window.dtype)
    size = (1, hop * (spectra.shape[1] - 1) + n_fft)

    def overlap_add(pieces: Tensor) -> Tensor:
        summed = torch.nn.functional.fold(pieces.transpose(1, 2), size, (1, n_fft), stride=(1, hop))
        return summed.reshape(len(pieces), -1)[:, n_fft // 2 :][:, :num_samples]

    with full_precision(window):
        waveforms = overlap_add(torch.fft.irfft(spectra, n_fft, dim=-1) * (window * mask))
        envelope = overlap_add(window.square() * mask)
    covered = envelope > 1e-8
    waveforms = torch.where(covered, waveforms / envelope.where(covered, 1.0), 0.0)
    return torch.nn.functional.pad(waveforms, (0, num_samples - waveforms.shape[1]))


def spectral_distance(estimate: Tensor, target: Tensor, valid: Tensor, kind: Literal["l1", "l2"] = "l1") -> Tensor:
    """Mean distance of magnitude spectra: (1 / (V K)) sum |e_bsk - y_bsk| (`l1`) or its square (`l2`).

    Estimate and target are (B, S, K) magnitudes, `valid` is (B, S) bool. It is the enhancement term of
    RobustDistiller: e is mask x noisy magnitude, y the magnitude of the clean utterance.
    """
    difference = at_least_float32(estimate) - at_least_float32(target)
    return masked_mean((difference.abs() if kind == "l1" else difference.square()).mean(-1), valid)


def si_snr_db(estimate: Tensor, target: Tensor, lengths: Tensor) -> Tensor:
    """Scale-invariant signal-to-noise ratio of each utterance over its valid samples, in dB: (B,) float32.

    With both signals made zero-mean, s = (<e, y> / ||y||^2) y is the part of the estimate e along the target y, and

        SI-SNR = 10 log10(||s||^2 / ||e - s||^2)

    (Le Roux et al., arXiv 1811.02508, called SI-SDR there). 1e-8 ||e||^2 is added to both powers: the range is -80 to
    80 dB, whatever the level, and a perfect estimate keeps a finite gradient. It is 0 where one of the two signals is
    silent. Estimate and target are (B, samples), `lengths` (B,) valid samples.

    >>> target = torch.tensor([[1.0, -1.0, 1.0, -1.0, 9.0]])
    >>> noise = torch.tensor([[0.1, 0.1, -0.1, -0.1, 9.0]])
    >>> round(si_snr_db(3 * (target + noise), target, torch.tensor([4])).item(), 3)  # noise of a tenth of the amplitude
    20.0
    """
    valid = valid_frames(lengths.to(target.device), target.shape[1])
    count = valid.sum(1, keepdim=True).clamp(min=1)

    def centred(x: Tensor) -> Tensor:
        x = at_least_float32(x).masked_fill(~valid, 0.0)
        return (x - x.sum(1, keepdim=True) / count).masked_fill(~valid, 0.0)

    e, y = centred(estimate), centred(target)
    tiny = 1e-30  # far below the power of the quietest recording; its inverse is still a float32
    y = y / y.square().sum(1, keepdim=True).clamp(min=tiny).sqrt()
    along = (e * y).sum(1, keepdim=True) * y
    floor = 1e-8 * e.square().sum(1) + tiny
    signal, noise = along.square().sum(1) + floor, (e - along).square().sum(1) + floor
    heard = y.square().sum(1) > 0
    return torch.where(heard, 10 * (torch.log10(signal) - torch.log10(noise)), 0.0)


def mrstft_distance(
    estimate: Tensor,
    target: Tensor,
    lengths: Tensor,
    over: Literal["batch", "utterance"] = "batch",
    resolutions: Sequence[tuple[int, int, int]] = MRSTFT_RESOLUTIONS,
) -> Tensor:
    """Multi-resolution STFT distance of waveforms (arXiv 1910.11480, eq. 3-6), over each utterance's valid part.

    With magnitudes E and Y = sqrt(max(re^2 + im^2, 1e-7)), the mean over resolutions of

        0.5 ||Y - E||_F / ||Y||_F + 0.5 mean |log Y - log E|

    a scalar, 0 at a perfect match. Norms and mean are those of all valid spectra of the `batch`, as in the released
    code, so that loud utterances rule the ratio; or of each `utterance`, and the value is the mean over utterances.
    Estimate and target are (B, samples), `lengths` (B,) valid samples.
    """
    lengths = lengths.to(target.device)
    samples = valid_frames(lengths, target.shape[1])
    total = 0.0
    for n_fft, hop, window in resolutions:
        e, y = (
            _floored_magnitudes(spectrum(x.masked_fill(~samples, 0.0), n_fft, hop, window)) for x in (estimate, target)
        )
        valid = valid_frames(lengths // hop + 1, y.shape[1])
        parts = (
            (y - e).square().sum(-1),
            y.square().sum(-1),
            (y.log() - e.log()).abs().mean(-1),
            torch.ones_like(y[..., 0]),
        )
        sums = [part.masked_fill(~valid, 0.0).sum(1) for part in parts]
        squared_error, power, log_difference, count = [one.sum() for one in sums] if over == "batch" else sums
        differs = squared_error > 0  # at a perfect match the slope of the root is infinite
        convergence = (squared_error / power).where(differs, 1.0).sqrt() * differs
        total = total + (0.5 * convergence + 0.5 * log_difference / count).mean()
    return total / len(resolutions)


def _floored_magnitudes(spectra: Tensor) -> Tensor:
    return (spectra.real.square() + spectra.imag.square()).clamp(min=1e-7).sqrt()
