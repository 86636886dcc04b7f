"""Corruption as the released RobustDistiller does it, from a reading of its source, for comparison.

Files are listed once. For each utterance, in the training process: a file is chosen, read whole, mixed to mono (noise)
or one channel of it taken (responses), resampled with torchaudio's Kaiser-windowed kernel; noise is tiled or cropped;
a response is applied with SciPy's convolution of full length, of which the beginning is kept, as it is in its file; in
`noise+reverb` the noise is added first. Where torchaudio read a file with libsndfile, soundfile does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.signal
import soundfile
import torch
from torch import Tensor

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.upstream.s3prl.bridge import load_torchaudio

_RESAMPLING = "sinc_interp_kaiser"


class ReleasedCorruption:
    """Corrupts one utterance after the other.

    Args:
        noise: files.
        rir: files of impulse responses.
        seed: of what is chosen.
        sample_rate_hz: of the waveforms.

    >>> released = ReleasedCorruption([], [], seed=0)
    >>> released.corrupt(torch.ones(8), "noise", snr_db=0.0, white=True).shape
    torch.Size([8])
    """

    def __init__(self, noise: Sequence[Path], rir: Sequence[Path], seed: int, sample_rate_hz: int = SAMPLE_RATE_HZ):
        self.noise, self.rir, self.sample_rate_hz = list(noise), list(rir), sample_rate_hz
        self.generator = torch.Generator().manual_seed(seed)

    def corrupt(self, waveform: Tensor, operation: str, snr_db: float | None = None, white: bool = False) -> Tensor:
        """One utterance, (samples,), with a file chosen at random."""
        if "noise" in operation:
            if white:
                noise = torch.randn(waveform.shape, generator=self.generator)
            else:
                noise = self.read(self._choice(self.noise), None)
            start = self._below(max(len(noise) - len(waveform) + 1, 1))
            waveform = self.add_noise(waveform, noise, start, snr_db)
        if "reverb" in operation:
            path = self._choice(self.rir)
            channel = self._below(soundfile.info(path).channels)
            waveform = self.reverberate(waveform, self.read(path, channel))
        return waveform

    def read(self, path: Path, channel: int | None) -> Tensor:
        """A whole file at the working rate, (samples,): one channel, or the mean of all."""
        frames, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        samples = torch.from_numpy(frames.T)
        samples = samples.mean(0) if channel is None else samples[channel]
        if rate_hz == self.sample_rate_hz:
            return samples
        resample = load_torchaudio().functional.resample
        return resample(samples, rate_hz, self.sample_rate_hz, resampling_method=_RESAMPLING)

    @staticmethod
    def add_noise(waveform: Tensor, noise: Tensor, start: int, snr_db: float) -> Tensor:
        """Noise cropped from `start`, or repeated from its beginning, at a ratio of the powers of the whole row."""
        length = len(waveform)
        if len(noise) <= length:
            noise = noise.repeat(math.ceil(length / len(noise)))[:length]
        else:
            noise = noise[start : start + length]
        ratio = waveform.dot(waveform) / (noise.dot(noise) + length * 1e-8)
        return waveform + torch.sqrt(ratio * 10 ** (-snr_db / 10)) * noise.to(waveform.device)

    @staticmethod
    def reverberate(waveform: Tensor, response: Tensor) -> Tensor:
        """The beginning of the full convolution, computed on the CPU."""
        full = scipy.signal.convolve(waveform.cpu().numpy(), response.numpy(), mode="full")
        return torch.from_numpy(np.ascontiguousarray(full[: len(waveform)])).to(waveform.device)

    def _below(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self.generator))

    def _choice(self, files: Sequence[Path]) -> Path:
        return files[self._below(len(files))]
