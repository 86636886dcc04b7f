"""Applies prepared corruption to a batch of waveforms: pure, vectorised, on any device."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from .convolution import convolve
from .memory import empty_batch
from .parameters import CorruptionParameters
from .pitch import shift_row, shift_together
from .synthesis import rms


@dataclass(frozen=True)
class CorruptionBatch:
    """What ``corrupt`` needs for the rows of one batch.

    Attributes:
        parameters: of each row.
        num_samples: valid samples of each row.
        noise_rows: rows that get noise.
        noise: (noise rows, samples) float32, root mean square 1 over the row's valid samples (or all zero), zero after.
        snr_db: (batch,) float32, the drawn ratio; infinite where no noise is added (nor where it is silent).
        filter_rows: rows that are filtered: reverberated, or without a band.
        responses: (filtered rows, samples) float32, impulse responses, zero after the last tap.
        num_taps: length of each response.
        leads: samples of each response before its time zero: the direct path, or the middle of a linear-phase filter.

    >>> from robustdistiller.acoustics import Corruptor
    >>> corruptor = Corruptor("noise:snr_db=0,noise=white")
    >>> batch = corruptor.prepare([corruptor.draw("a", 4), corruptor.draw("b", 9)], [4, 9])
    >>> batch.noise.shape, batch.noise_rows, batch.filter_rows, batch.snr_db
    (torch.Size([2, 9]), (0, 1), (), tensor([0., 0.]))
    """

    parameters: tuple[CorruptionParameters, ...]
    num_samples: tuple[int, ...]
    noise_rows: tuple[int, ...]
    noise: torch.Tensor
    snr_db: torch.Tensor
    filter_rows: tuple[int, ...]
    responses: torch.Tensor
    num_taps: tuple[int, ...]
    leads: tuple[int, ...]

    @classmethod
    def from_rows(
        cls,
        parameters: Sequence[CorruptionParameters],
        num_samples: Sequence[int],
        noises: Sequence[tuple[np.ndarray, float] | None],
        responses: Sequence[tuple[np.ndarray, int] | None],
    ) -> "CorruptionBatch":
        """Stacks the rows' noises, each divided by its level, and their responses with the samples before time zero.

        None where there is none; a noise of level 0 is silent.
        """
        noise_rows = tuple(row for row, noise in enumerate(noises) if noise is not None)
        filter_rows = tuple(row for row, response in enumerate(responses) if response is not None)
        snr_db = [one.snr_db if noise and noise[1] else math.inf for one, noise in zip(parameters, noises)]
        return cls(
            parameters=tuple(parameters),
            num_samples=tuple(int(length) for length in num_samples),
            noise_rows=noise_rows,
            noise=_stack(*zip(*(noises[row] for row in noise_rows))),
            snr_db=torch.tensor(snr_db, dtype=torch.float32),
            filter_rows=filter_rows,
            responses=_stack([responses[row][0] for row in filter_rows]),
            num_taps=tuple(len(responses[row][0]) for row in filter_rows),
            leads=tuple(responses[row][1] for row in filter_rows),
        )

    def __len__(self) -> int:
        return len(self.num_samples)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "CorruptionBatch":
        """The batch with its tensors on ``device``."""
        return replace(
            self,
            noise=self.noise.to(device, non_blocking=non_blocking),
            snr_db=self.snr_db.to(device, non_blocking=non_blocking),
            responses=self.responses.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "CorruptionBatch":
        """The batch with its tensors in pinned memory."""
        return replace(
            self,
            noise=self.noise.pin_memory(),
            snr_db=self.snr_db.pin_memory(),
            responses=self.responses.pin_memory(),
        )


def corrupt(waveforms: torch.Tensor, lengths: torch.Tensor | None, batch: CorruptionBatch) -> torch.Tensor:
    """Distorts the speech (reverberation, pitch shift or band rejection, at most one of them), then adds noise.

    Reverberation: the waveform is convolved with the response, whose direct path acts at lag 0, and cut to its own
    length. The level of the result depends on ``RIRParameters.level``:

    - ``rms`` (default): scaled to the root mean square of the dry waveform, so that loudness tells nothing;
    - ``direct``: the direct sound keeps the level of the dry waveform, reflections come on top;
    - ``file``: the response is used at the level it has in its file.

    Pitch shift: see ``pitch_shift``. Band rejection: convolution with ``band_reject_filter``, its middle tap at lag 0.

    Then noise, scaled so that the ratio of the energy of the (distorted) waveform to that of the noise is ``snr_db``;
    the noise itself is not distorted. Every energy is summed over the valid samples of a row, pauses included; padding
    takes no part and is zero in the result. Nothing is clipped or renormalised: samples may leave -1..1. A silent
    waveform stays silent.

    On the CPU a row's bytes do not depend on the rows around it, nor on the number of threads. Other devices compute
    rows together and agree with the CPU within float32 rounding.

    Args:
        waveforms: (batch, samples) floating point; what lies beyond a row's length is ignored. Not changed.
        lengths: (batch,) valid samples; None means that all are valid. Must be those the batch was prepared for.
        batch: from ``Corruptor.prepare``, on the device of the waveforms.

    Returns:
        (batch, samples), type and device of ``waveforms``.

    Raises:
        ValueError: shapes or lengths that do not belong to the batch.

    >>> from robustdistiller.acoustics import Corruptor
    >>> corruptor = Corruptor("noise:snr_db=0,noise=white")
    >>> batch = corruptor.prepare([corruptor.draw("utt-1", 4)], [4])
    >>> corrupt(torch.ones(1, 6), torch.tensor([4]), batch)[0, 4:]
    tensor([0., 0.])
    """
    _check(waveforms, lengths, batch)
    rows = _corrupt_row_by_row if waveforms.device.type == "cpu" else _corrupt_together
    return rows(waveforms.detach().float(), batch).to(waveforms.dtype)


def _corrupt_row_by_row(waveforms: torch.Tensor, batch: CorruptionBatch) -> torch.Tensor:
    # SciPy's FFT, unlike that of PyTorch, gives a row the same bytes alone, in a batch, and on any number of threads.
    corrupted = torch.empty_like(waveforms)
    noise_index = {row: index for index, row in enumerate(batch.noise_rows)}
    filter_index = {row: index for index, row in enumerate(batch.filter_rows)}
    noise, responses = batch.noise.numpy(), batch.responses.numpy()
    for row, (length, parameters) in enumerate(zip(batch.num_samples, batch.parameters)):
        signal, out = waveforms[row, :length].numpy(), corrupted[row].numpy()
        if parameters.pitch_cents is not None:
            signal = shift_row(signal, parameters.pitch_cents)
        if row in filter_index:
            index = filter_index[row]
            wet = convolve(signal, responses[index, : batch.num_taps[index]], batch.leads[index])
            if _keeps_rms(parameters):
                wet *= np.float32(rms(signal) / (rms(wet) or 1.0))
            signal = wet
        if row in noise_index:
            gain = rms(signal) * 10 ** (-parameters.snr_db / 20)
            np.multiply(noise[noise_index[row], :length], np.float32(gain), out=out[:length])
            out[:length] += signal
        else:
            out[:length] = signal
        out[length:] = 0.0
    return corrupted


def _corrupt_together(waveforms: torch.Tensor, batch: CorruptionBatch) -> torch.Tensor:
    device, width = waveforms.device, waveforms.shape[1]
    lengths = torch.tensor(batch.num_samples, device=device)
    valid = torch.arange(width, device=device) < lengths[:, None]
    corrupted = torch.where(valid, waveforms, 0.0)
    shifted = [row for row, one in enumerate(batch.parameters) if one.pitch_cents is not None]
    if shifted:
        cents = [batch.parameters[row].pitch_cents for row in shifted]
        rows = torch.tensor(shifted, device=device)
        corrupted[rows] = shift_together(corrupted[rows], [batch.num_samples[row] for row in shifted], cents)
    for (fft_size, lead), indices in _filter_groups(batch).items():
        _filter(corrupted, batch, fft_size, lead, indices)
    if batch.noise_rows:
        rows = torch.tensor(batch.noise_rows, device=device)
        gain = _rms(corrupted[rows], lengths[rows]) * 10 ** (-batch.snr_db[rows] / 20)
        samples = batch.noise.shape[1]
        corrupted[rows, :samples] += gain[:, None] * batch.noise
    return corrupted


def _filter(dry: torch.Tensor, batch: CorruptionBatch, fft_size: int, lead: int, indices: list[int]) -> None:
    """Filters, in place, the rows whose responses are ``indices``."""
    device = dry.device
    rows = [batch.filter_rows[index] for index in indices]
    lengths = torch.tensor([batch.num_samples[row] for row in rows], device=device)
    longest = max(batch.num_samples[row] for row in rows)
    signal = dry[torch.tensor(rows, device=device), :longest]
    response = batch.responses[torch.tensor(indices, device=device)]
    spectrum = torch.fft.rfft(signal, fft_size) * torch.fft.rfft(response, fft_size)
    wet = torch.fft.irfft(spectrum, fft_size)[:, lead : lead + longest]
    wet = wet * (torch.arange(longest, device=device) < lengths[:, None])
    by_rms = torch.tensor([_keeps_rms(batch.parameters[row]) for row in rows], device=device)
    wet_rms = _rms(wet, lengths)
    gain = torch.where(by_rms & (wet_rms > 0), _rms(signal, lengths) / wet_rms.clamp_min(1e-30), 1.0)
    dry[torch.tensor(rows, device=device), :longest] = wet * gain[:, None]


def _keeps_rms(parameters: CorruptionParameters) -> bool:
    return parameters.rir is not None and parameters.rir.level == "rms"


def _filter_groups(batch: CorruptionBatch) -> dict[tuple[int, int], list[int]]:
    """Indices of the responses, by size of the FFT and lead."""
    groups = defaultdict(list)
    for index, (row, lead) in enumerate(zip(batch.filter_rows, batch.leads)):
        groups[_fft_size(batch.num_samples[row] + batch.num_taps[index]), lead].append(index)
    return groups


def _fft_size(minimum: int) -> int:
    """The next of 4, 5, 6 or 7 times a power of two: fast, at most a quarter too long, and few different ones."""
    power = max((minimum - 1).bit_length() - 3, 0)
    return next(factor << power for factor in (4, 5, 6, 7, 8) if factor << power >= minimum)


def _rms(signal: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Root mean square over valid samples; signal (rows, samples) must be zero after them."""
    return torch.linalg.vector_norm(signal, dim=1) / lengths.sqrt()


def _stack(rows: Sequence[np.ndarray] = (), levels: Sequence[float] | None = None) -> torch.Tensor:
    """(rows, samples), zero after the end of each; divided by its level, unless that is 0."""
    stacked = empty_batch(len(rows), max(map(len, rows), default=0))
    for out, row, level in zip(stacked.numpy(), rows, levels or [1.0] * len(rows)):
        np.divide(row, np.float32(level or 1.0), out=out[: len(row)])
        out[len(row) :] = 0.0
    return stacked


def _check(waveforms: torch.Tensor, lengths: torch.Tensor | None, batch: CorruptionBatch) -> None:
    if waveforms.ndim != 2 or not waveforms.is_floating_point():
        raise ValueError(
            f"waveforms must be (batch, samples) floating point, found {tuple(waveforms.shape)} {waveforms.dtype}"
        )
    if len(batch) != len(waveforms) or max(batch.num_samples, default=0) > waveforms.shape[1]:
        raise ValueError(
            f"a corruption batch of {len(batch)} rows of at most {max(batch.num_samples, default=0)} samples was given "
            f"for waveforms of shape {tuple(waveforms.shape)}"
        )
    given = [waveforms.shape[1]] * len(waveforms) if lengths is None else [int(length) for length in lengths.tolist()]
    if given != list(batch.num_samples):
        raise ValueError(
            f"lengths {given} differ from those the corruption was prepared for, {list(batch.num_samples)}"
        )
    if batch.noise.device != waveforms.device:
        raise ValueError(
            f"the corruption batch is on {batch.noise.device}, the waveforms on {waveforms.device}; use .to()"
        )
