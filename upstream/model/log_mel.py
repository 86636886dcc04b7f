"""Log-mel spectra as a front end: fixed, without state, and as products of matrices that every exporter knows.

Levels count from digital silence, which is 0, and are scaled by one fixed deviation, not by an utterance's own, so that
a frame depends on its 25 ms alone: batches and streams need nothing. A gain is added to the logarithms. What makes a
student deaf to the loudness of a recording stands behind: a norm over time takes it out (``conv_norm="group"``, as in
wav2vec 2.0; in streams by what has been heard so far), and so do filters that sum to zero, which leave the mean
spectrum in (``"half_group"``).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.upstream.model.config import MEL_HOP_SAMPLES, MEL_WINDOW_SAMPLES

#: A number of samples or frames: an integer, or an integer tensor of one for each utterance.
Count = TypeVar("Count", int, Tensor)

#: Added to the power of each band: a little more than rounding to 16 bits adds.
_SMALLEST_POWER = 1e-9
#: Of the logarithms, over read speech of usual loudness.
_DEVIATION = 4.5


class LogMel(nn.Module):
    """Waveforms to log-mel spectra: 25 ms every 10 ms, the first from the first sample on, none beyond the last.

    Args:
        num_bands: bands from 0 to 8 kHz.

    >>> LogMel(80)(torch.zeros(2, 16000)).shape
    torch.Size([2, 80, 98])
    """

    waves: Tensor
    filters: Tensor

    def __init__(self, num_bands: int):
        super().__init__()
        self.num_bands = num_bands
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Compute what is constant; to be called again where this was built without values, on the device ``meta``."""
        phase = 2 * math.pi / MEL_WINDOW_SAMPLES * torch.arange(MEL_WINDOW_SAMPLES, dtype=torch.float64)
        phases = phase * torch.arange(MEL_WINDOW_SAMPLES // 2 + 1).unsqueeze(1)
        window = torch.hann_window(MEL_WINDOW_SAMPLES, dtype=torch.float64)
        waves = torch.cat([phases.cos() * window, phases.sin() * window])
        self.register_buffer("waves", waves.float().unsqueeze(1), persistent=False)
        self.register_buffer("filters", mel_filters(self.num_bands), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Map ``(batch, samples)`` to ``(batch, bands, frames)``, in float32 also under autocast.

        Powers span more than half precision does.
        """
        device = "cpu" if waveforms.is_meta else waveforms.device.type  # where only shapes are, there is no autocast
        with torch.autocast(device, enabled=False):
            waves = F.conv1d(waveforms.float().unsqueeze(1), self.waves.float(), stride=MEL_HOP_SAMPLES)
            cosine, sine = waves.chunk(2, dim=1)
            power = self.filters.float() @ (cosine.square() + sine.square())
            # Not less their mean, which a norm over time takes out anyway: where all is silence, it would enlarge what
            # rounding leaves of a mean, and no two runtimes round alike.
            levels = (power / _SMALLEST_POWER).log1p() / _DEVIATION
        return levels.to(self.filters.dtype)

    def num_frames(self, num_samples: Count) -> Count:
        """Spectra of ``num_samples`` samples, an integer or an integer tensor."""
        return num_windows(num_samples, MEL_WINDOW_SAMPLES, MEL_HOP_SAMPLES)


def num_windows(length: Count, window: int, hop: int) -> Count:
    """Windows that lie within ``length``, an integer or an integer tensor.

    >>> num_windows(16000, 400, 160), num_windows(399, 400, 160)
    (98, 0)
    """
    windows = (length - window) // hop + 1
    return windows.clamp(min=0) if isinstance(windows, Tensor) else max(windows, 0)


def mel_filters(num_mel_bins: int) -> Tensor:
    """Triangles of equal area over 0 to 8 kHz, on the mel scale of Slaney's Auditory Toolbox (1998).

    The scale is linear below 1 kHz, with 200/3 Hz a mel, and logarithmic above, with 27 mels from 1 to 6.4 kHz.

    Args:
        num_mel_bins: how many, 80 or 128 in Whisper's models.

    Returns:
        (num_mel_bins, 201) float32, weights of the bins of a spectrum of 400 samples.

    >>> filters = mel_filters(80)
    >>> filters.shape, round(filters[0, 1].item(), 6)
    (torch.Size([80, 201]), 0.024863)
    """
    mels = torch.linspace(0, 15 + 27 * math.log(8) / math.log(6.4), num_mel_bins + 2, dtype=torch.float64)
    above = 1000 * torch.exp((mels - 15) * math.log(6.4) / 27)
    edges_hz = torch.where(mels < 15, mels * 200 / 3, above)
    bins_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, MEL_WINDOW_SAMPLES // 2 + 1, dtype=torch.float64)
    low, centre, high = (edges_hz[start : start + num_mel_bins, None] for start in range(3))
    triangles = torch.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()
