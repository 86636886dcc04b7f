"""Pitch shift that keeps length and timing: a phase vocoder, then resampling, each row by its own amount."""

import math
from collections.abc import Sequence

import numpy as np
import scipy
import torch

from .synthesis import rms

WINDOW = 640
"""Samples of the analysis window: 40 ms at 16 kHz, so that the harmonics of a low voice are kept apart."""
HOP = WINDOW // 4

MAX_CENTS = 1200

_STEPS = 4096
"""Pitch ratios are multiples of one in so many: every ratio is met within 0.6 cents (0.3 cents at and above unison)."""
_LOCKED_BINS = 2
"""The main lobe of the window reaches so many bins to each side."""
_ZERO_CROSSINGS = 16
"""Of the resampling kernel, on each side."""
_ROLL_OFF = 0.95
"""Pass band of the resampling kernel, as a share of the lower of the two Nyquist frequencies."""


def pitch_shift(waveforms: torch.Tensor, lengths: torch.Tensor | None, cents: Sequence[float]) -> torch.Tensor:
    """Shifts the pitch of each row; length, timing and root mean square stay.

    The waveform is stretched in time by a phase vocoder (Flanagan & Golden 1966) and resampled back to its length with
    a Hann-windowed sinc. The vocoder interpolates magnitudes between frames, advances phases by the measured phase
    difference, and turns the bins of a lobe together, so that onsets stay sharp (the phase locking of Laroche & Dolson
    1999, without picking peaks). Formants move with the pitch, as they do in SoX's ``pitch``. In a shift up, what would
    land above half the sampling rate is lost; a shift down leaves the top of the spectrum empty.

    A 15 s row takes about 0.1 s on one CPU core. (``torchaudio.functional.pitch_shift`` was no choice: its resampler
    builds a kernel per ratio, measured at 20 s and 5 GB for one row shifted by a semitone, and it takes one ratio
    for the whole batch.)

    Args:
        waveforms: (batch, samples) floating point, any device. Not changed.
        lengths: (batch,) valid samples; None means that all are valid. What lies beyond takes no part and is zero in
            the result.
        cents: of each row, -1200 to 1200; 100 are a semitone. Met within 0.6.

    Returns:
        (batch, samples), type and device of ``waveforms``. On the CPU a row's bytes do not depend on other rows.

    Raises:
        ValueError: not one number of cents for each row, or one out of range.

    >>> tone = torch.sin(torch.arange(16000) * (2 * math.pi * 220 / 16000))[None]
    >>> octave_up = pitch_shift(tone, None, [1200])
    >>> octave_up.shape, int(torch.fft.rfft(octave_up[0]).abs().argmax())
    (torch.Size([1, 16000]), 440)
    """
    num_samples = [waveforms.shape[1]] * len(waveforms) if lengths is None else [int(one) for one in lengths.tolist()]
    if len(cents) != len(waveforms) or len(num_samples) != len(waveforms):
        raise ValueError(
            f"{len(waveforms)} rows need as many cents and lengths, found {len(cents)} and {len(num_samples)}"
        )
    for value in cents:
        if not -MAX_CENTS <= value <= MAX_CENTS:
            raise ValueError(f"a pitch shift must be between -{MAX_CENTS} and {MAX_CENTS} cents, found {value!r}")
    shifted = torch.zeros_like(waveforms)
    if waveforms.device.type != "cpu":
        return shift_together(waveforms.detach().float(), num_samples, cents).to(waveforms.dtype)
    for row, (length, value) in enumerate(zip(num_samples, cents)):
        signal = shift_row(waveforms[row, :length].detach().float().numpy(), value)
        shifted[row, :length] = torch.from_numpy(signal).to(waveforms.dtype)
    return shifted


def shift_row(signal: np.ndarray, cents: float) -> np.ndarray:
    """:func:`pitch_shift` of one row: (samples,) float32 to the same, in NumPy, whose bytes threads do not change.

    >>> shift_row(np.zeros(5, np.float32), 100)
    array([0., 0., 0., 0., 0.], dtype=float32)
    """
    up, down = _ratio(cents)
    length = len(signal)
    if up == down or not length:
        return signal.copy()
    stretched_length = -(-length * up // down)
    # Frame t is centred at t * HOP; frame t of the result is looked up at t * down / up.
    position = np.arange(-(-stretched_length // HOP) + 2) * down
    first, fraction = position // up, ((position % up) / up)[:, None]
    padded = np.zeros((first[-1] + 1) * HOP + WINDOW)
    padded[WINDOW // 2 :][:length] = signal
    window = _hann()
    spectra = scipy.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * window)
    magnitude = np.sqrt(np.square(spectra.real) + np.square(spectra.imag))
    phasor = np.where(magnitude > 0, spectra / np.where(magnitude > 0, magnitude, 1.0), 1.0)
    # The hop is the same before and after, so that no phase has to be unwrapped: what a frame of the result is turned
    # by, against the frame it is looked up at, is a product of phasors.
    turn = np.ones((len(first), spectra.shape[1]), spectra.dtype)
    turn[1:] = phasor[first[:-1] + 1] * phasor[first[1:]].conj()
    turn = _locked(np.cumprod(turn, axis=0) * np.square(magnitude[first]), np)
    magnitude = (1 - fraction) * magnitude[first] + fraction * magnitude[first + 1]
    frames = scipy.fft.irfft(magnitude * phasor[first] * turn, WINDOW) * window
    blocks = (len(frames) + WINDOW // HOP - 1, HOP)
    stretched = _overlap_add(frames, np.zeros(blocks))[WINDOW // 2 :][:stretched_length]
    stretched /= _overlap_add(np.tile(np.square(window), (len(frames), 1)), np.zeros(blocks))[WINDOW // 2 :][
        :stretched_length
    ]
    bandwidth, half_width = _kernel_shape(up, down)
    taps = math.ceil(half_width * down)
    kernel = _windowed_sinc(np.arange(-taps, taps + 1) / down, bandwidth, half_width)
    shifted = scipy.signal.resample_poly(stretched, down, up, window=kernel / down)[:length]
    return (shifted * (rms(signal) / (rms(shifted) or 1.0))).astype(np.float32)


def shift_together(waveforms: torch.Tensor, num_samples: Sequence[int], cents: Sequence[float]) -> torch.Tensor:
    """:func:`pitch_shift` of all rows at once, on the device of ``waveforms`` (batch, samples) float32.

    >>> shift_together(torch.zeros(2, 5), [5, 3], [100, -100]).shape
    torch.Size([2, 5])
    """
    device, width = waveforms.device, waveforms.shape[1]
    # Single precision would let the phases of weak bins wander; some devices have nothing else.
    precision = torch.float32 if device.type == "mps" else torch.float64
    ratios = [_ratio(value) for value in cents]
    stretched_lengths = [-(-length * up // down) for length, (up, down) in zip(num_samples, ratios)]
    longest = max(num_samples, default=0)
    if not longest:
        return torch.zeros_like(waveforms)
    up, down = (torch.tensor(part, device=device)[:, None] for part in zip(*ratios))
    lengths = torch.tensor(num_samples, device=device)[:, None]
    position = torch.arange(-(-max(stretched_lengths) // HOP) + 2, device=device) * down
    # The last frame that is looked at lies beyond the end of every row, where everything is zero.
    last = -(-longest // HOP) + 2
    first, fraction = (position // up).clamp_max(last), ((position % up).to(precision) / up)[..., None]
    padded = waveforms.new_zeros(len(waveforms), (last + 1) * HOP + WINDOW, dtype=precision)
    valid = torch.arange(longest, device=device) < lengths
    padded[:, WINDOW // 2 :][:, :longest] = torch.where(valid, waveforms[:, :longest], 0.0)
    window = torch.from_numpy(_hann()).to(device, precision)
    frames = padded.unfold(1, WINDOW, HOP)
    spectra = torch.fft.rfft(frames * window)
    magnitude = spectra.abs()
    phasor = torch.where(magnitude > 0, spectra / torch.where(magnitude > 0, magnitude, 1.0), 1.0)
    rows = torch.arange(len(waveforms), device=device)[:, None]
    turn = torch.ones(first.shape + spectra.shape[-1:], dtype=spectra.dtype, device=device)
    turn[:, 1:] = phasor[rows, first[:, :-1] + 1] * phasor[rows, first[:, 1:]].conj()
    turn = _locked(torch.cumprod(turn, dim=1) * magnitude[rows, first].square(), torch)
    magnitude = (1 - fraction) * magnitude[rows, first] + fraction * magnitude[rows, first + 1]
    frames = torch.fft.irfft(magnitude * phasor[rows, first] * turn, WINDOW) * window
    blocks = (frames.shape[1] + WINDOW // HOP - 1, HOP)
    stretched = _overlap_add(frames, frames.new_zeros(len(frames), *blocks))[:, WINDOW // 2 :]
    weights = _overlap_add(window.square().expand(frames.shape[1:]), window.new_zeros(blocks))[WINDOW // 2 :]
    ends = torch.tensor(stretched_lengths, device=device)[:, None]
    stretched = torch.where(torch.arange(stretched.shape[1], device=device) < ends, stretched / weights, 0.0)
    shifted = _resample_together(stretched, ratios, up, down, longest)
    dry = padded[:, WINDOW // 2 :][:, :longest]
    shifted = torch.where(up == down, dry, torch.where(valid, shifted, 0.0))
    level = torch.linalg.vector_norm(dry, dim=1, keepdim=True)
    shifted_level = torch.linalg.vector_norm(shifted, dim=1, keepdim=True)
    gain = torch.where(shifted_level > 0, level / shifted_level.clamp_min(1e-30), 1.0)
    return torch.nn.functional.pad((shifted * gain).float(), (0, width - longest))


def _resample_together(
    stretched: torch.Tensor, ratios: Sequence[tuple[int, int]], up: torch.Tensor, down: torch.Tensor, width: int
) -> torch.Tensor:
    """Sample j of the result is the kernel-weighted sum around sample j * up / down of ``stretched``."""
    shapes = [_kernel_shape(*ratio) for ratio in ratios]
    bandwidth, half_width = (
        torch.tensor(part, device=stretched.device, dtype=stretched.dtype)[:, None] for part in zip(*shapes)
    )
    margin = math.ceil(max(half for _, half in shapes)) + 1
    padded = torch.nn.functional.pad(stretched, (margin, margin + width))
    position = torch.arange(width, device=stretched.device) * up
    base, fraction = position // down, (position % down).to(stretched.dtype) / down
    base = base.clamp_max(stretched.shape[1])
    resampled = torch.zeros_like(fraction)
    # A loop over taps: one (batch, samples) tensor at a time, and no FFT plan for every length and ratio.
    for tap in range(-margin, margin + 1):
        distance = fraction - tap
        weight = bandwidth * torch.sinc(bandwidth * distance) * torch.cos(math.pi / 2 * distance / half_width) ** 2
        weight = torch.where(distance.abs() <= half_width, weight, 0.0)
        resampled += weight * padded.gather(1, base + (margin + tap))
    return resampled


def _ratio(cents: float) -> tuple[int, int]:
    up = round(_STEPS * 2 ** (cents / 1200))
    divisor = math.gcd(up, _STEPS)
    return up // divisor, _STEPS // divisor


def _kernel_shape(up: int, down: int) -> tuple[float, float]:
    """Bandwidth (1 is the Nyquist frequency before resampling) and half width in samples of the kernel."""
    bandwidth = _ROLL_OFF * min(1.0, down / up)
    return bandwidth, _ZERO_CROSSINGS / bandwidth


def _windowed_sinc(distance: np.ndarray, bandwidth: float, half_width: float) -> np.ndarray:
    weight = bandwidth * np.sinc(bandwidth * distance) * np.cos(np.pi / 2 * distance / half_width) ** 2
    return np.where(np.abs(distance) <= half_width, weight, 0.0)


def _hann() -> np.ndarray:
    return scipy.signal.get_window("hann", WINDOW)


def _locked(turn, library):
    """Unit phasors (..., frames, bins), each the direction of the sum of ``turn`` over ``_LOCKED_BINS`` on each side.

    The phases of neighbouring bins drift apart where there is little energy. Bins around a strong one have to be turned
    as it is, or else they cancel it when a sound sets in.
    """
    total, bins = turn + 0, turn.shape[-1]
    for shift in range(1, _LOCKED_BINS + 1):
        total[..., shift:] += turn[..., : bins - shift]
        total[..., : bins - shift] += turn[..., shift:]
    size = library.sqrt(library.square(total.real) + library.square(total.imag))
    return library.where(size > 0, total / library.where(size > 0, size, 1.0), 1.0)


def _overlap_add(frames, blocks):
    """Adds (..., frames, WINDOW) into (..., blocks, HOP) zeros and returns (..., samples); NumPy or PyTorch."""
    count = frames.shape[-2]
    for part in range(WINDOW // HOP):
        blocks[..., part : part + count, :] += frames[..., part * HOP : (part + 1) * HOP]
    return blocks.reshape(*blocks.shape[:-2], -1)
