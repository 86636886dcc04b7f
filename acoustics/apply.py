"""Applies prepared corruption to a batch of waveforms: pure, vectorised, on any device."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.signal
import torch

from .parameters import CorruptionParameters
from .synthesis import rms


@dataclass(frozen=True)
class CorruptionBatch:
    """What ``corrupt`` needs for the rows of one batch.

    Attributes:
        parameters: of each row.
        num_samples: valid samples of each row.
        noise_rows: rows that get noise.
        noise: (noise rows, samples) float32, root mean square 1 over the row's valid samples (or all zero), zero after.
        rir_rows: rows that are reverberated.
        responses: (reverberated rows, lead + taps) float32, direct path at index ``lead``, zero after the last tap.
        num_taps: length of each response, ``lead`` included.
        lead: samples of a response before its direct path.

    >>> from robustdistiller.acoustics import Corruptor
    >>> corruptor = Corruptor("noise:snr_db=0,noise=white")
    >>> batch = corruptor.prepare([corruptor.draw("a", 4), corruptor.draw("b", 9)], [4, 9])
    >>> batch.noise.shape, batch.noise_rows, batch.rir_rows
    (torch.Size([2, 9]), (0, 1), ())
    """

    parameters: tuple[CorruptionParameters, ...]
    num_samples: tuple[int, ...]
    noise_rows: tuple[int, ...]
    noise: torch.Tensor
    rir_rows: tuple[int, ...]
    responses: torch.Tensor
    num_taps: tuple[int, ...]
    lead: int

    @classmethod
    def from_rows(
        cls,
        parameters: Sequence[CorruptionParameters],
        num_samples: Sequence[int],
        noises: Sequence[np.ndarray | None],
        responses: Sequence[np.ndarray | None],
        lead: int,
    ) -> "CorruptionBatch":
        """Stacks the rows' noises and responses (None where a row has none)."""
        noise_rows = tuple(row for row, noise in enumerate(noises) if noise is not None)
        rir_rows = tuple(row for row, response in enumerate(responses) if response is not None)
        return cls(
            parameters=tuple(parameters),
            num_samples=tuple(int(length) for length in num_samples),
            noise_rows=noise_rows,
            noise=_stack([noises[row] for row in noise_rows]),
            rir_rows=rir_rows,
            responses=_stack([responses[row] for row in rir_rows]),
            num_taps=tuple(len(responses[row]) for row in rir_rows),
            lead=lead,
        )

    def __len__(self) -> int:
        return len(self.num_samples)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "CorruptionBatch":
        """The batch with its tensors on ``device``."""
        return replace(
            self,
            noise=self.noise.to(device, non_blocking=non_blocking),
            responses=self.responses.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "CorruptionBatch":
        """The batch with its tensors in pinned memory."""
        return replace(self, noise=self.noise.pin_memory(), responses=self.responses.pin_memory())


def corrupt(waveforms: torch.Tensor, lengths: torch.Tensor | None, batch: CorruptionBatch) -> torch.Tensor:
    """Reverberates and adds noise.

    Reverberation first: the waveform is convolved with the response, whose direct path acts at lag 0, and cut to its
    own length. The level of the result depends on ``RIRParameters.level``:

    - ``rms`` (default): scaled to the root mean square of the dry waveform, so that loudness tells nothing;
    - ``direct``: the direct sound keeps the level of the dry waveform, reflections come on top;
    - ``file``: the response is used at the level it has in its file.

    Then noise, scaled so that the ratio of the energy of the (reverberated) waveform to that of the noise is
    ``snr_db``. Every energy is summed over the valid samples of a row, pauses included; padding takes no part and is
    zero in the result. Nothing is clipped or renormalised: samples may leave -1..1. A silent waveform stays silent.

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
    # SciPy's FFT, unlike that of PyTorch, gives a row the same bytes alone, in a batch, and on any number of threads;
    # it is also the faster one here.
    corrupted = torch.zeros_like(waveforms)
    noise_index = {row: index for index, row in enumerate(batch.noise_rows)}
    rir_index = {row: index for index, row in enumerate(batch.rir_rows)}
    noise, responses = batch.noise.numpy(), batch.responses.numpy()
    for row, (length, parameters) in enumerate(zip(batch.num_samples, batch.parameters)):
        signal = waveforms[row, :length].numpy()
        if row in rir_index:
            index = rir_index[row]
            wet = scipy.signal.oaconvolve(signal, responses[index, : batch.num_taps[index]])
            wet = wet[batch.lead : batch.lead + length]
            if parameters.rir.level == "rms":
                wet = wet * np.float32(rms(signal) / (rms(wet) or 1.0))
            signal = wet
        if row in noise_index:
            gain = rms(signal) * 10 ** (-parameters.snr_db / 20)
            signal = signal + np.float32(gain) * noise[noise_index[row], :length]
        corrupted[row, :length] = torch.from_numpy(np.ascontiguousarray(signal))
    return corrupted


def _corrupt_together(waveforms: torch.Tensor, batch: CorruptionBatch) -> torch.Tensor:
    device, width = waveforms.device, waveforms.shape[1]
    lengths = torch.tensor(batch.num_samples, device=device)
    valid = torch.arange(width, device=device) < lengths[:, None]
    corrupted = torch.where(valid, waveforms, 0.0)
    for group in _groups_by_fft_size(batch):
        _reverberate(corrupted, batch, *group)
    if batch.noise_rows:
        rows = torch.tensor(batch.noise_rows, device=device)
        snr_db = torch.tensor([batch.parameters[row].snr_db for row in batch.noise_rows], device=device)
        gain = _rms(corrupted[rows], lengths[rows]) * 10 ** (-snr_db / 20)
        samples = batch.noise.shape[1]
        corrupted[rows, :samples] += gain[:, None] * batch.noise
    return corrupted


def _reverberate(dry: torch.Tensor, batch: CorruptionBatch, fft_size: int, indices: list[int]) -> None:
    """Reverberates, in place, the rows whose responses are ``indices``."""
    device = dry.device
    rows = [batch.rir_rows[index] for index in indices]
    lengths = torch.tensor([batch.num_samples[row] for row in rows], device=device)
    longest = max(batch.num_samples[row] for row in rows)
    signal = dry[torch.tensor(rows, device=device), :longest]
    response = batch.responses[torch.tensor(indices, device=device)]
    spectrum = torch.fft.rfft(signal, fft_size) * torch.fft.rfft(response, fft_size)
    wet = torch.fft.irfft(spectrum, fft_size)[:, batch.lead : batch.lead + longest]
    wet = wet * (torch.arange(longest, device=device) < lengths[:, None])
    by_rms = torch.tensor([batch.parameters[row].rir.level == "rms" for row in rows], device=device)
    wet_rms = _rms(wet, lengths)
    gain = torch.where(by_rms & (wet_rms > 0), _rms(signal, lengths) / wet_rms.clamp_min(1e-30), 1.0)
    dry[torch.tensor(rows, device=device), :longest] = wet * gain[:, None]


def _groups_by_fft_size(batch: CorruptionBatch) -> list[tuple[int, list[int]]]:
    groups = defaultdict(list)
    for index, row in enumerate(batch.rir_rows):
        groups[_fft_size(batch.num_samples[row] + batch.num_taps[index])].append(index)
    return list(groups.items())


def _fft_size(minimum: int) -> int:
    """The next of 4, 5, 6 or 7 times a power of two: fast, at most a quarter too long, and few different ones."""
    power = max((minimum - 1).bit_length() - 3, 0)
    return next(factor << power for factor in (4, 5, 6, 7, 8) if factor << power >= minimum)


def _rms(signal: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Root mean square over valid samples; signal (rows, samples) must be zero after them."""
    return torch.linalg.vector_norm(signal, dim=1) / lengths.sqrt()


def _stack(rows: list[np.ndarray]) -> torch.Tensor:
    stacked = torch.zeros(len(rows), max(map(len, rows), default=0))
    for target, row in zip(stacked, rows):
        target[: len(row)] = torch.from_numpy(row)
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
