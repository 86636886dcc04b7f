"""What Whisper hears: the log-mel spectrogram of https://arxiv.org/abs/2212.04356, as released code makes it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustdistiller.upstream.model.config import MEL_HOP_SAMPLES, MEL_WINDOW_SAMPLES
from robustdistiller.upstream.model.log_mel import mel_filters

_SMALLEST_POWER = 1e-10
_RANGE = 8.0  # in powers of ten below an utterance's loudest bin


class LogMel(nn.Module):
    """Waveforms to log-mel frames, one per 10 ms, each around the sample that is 160 times its number.

    Each utterance is mirrored at its own ends and limited to 80 dB below its own loudest bin, so that it does not
    matter what it is batched with.

    Args:
        num_mel_bins: 80, or 128 in the Large models since version 3.

    >>> LogMel(80)(torch.zeros(2, 16000), torch.tensor([16000, 8000])).shape
    torch.Size([2, 80, 100])
    """

    filters: Tensor
    window: Tensor

    def __init__(self, num_mel_bins: int):
        super().__init__()
        self.num_mel_bins = num_mel_bins
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Compute what is constant; to be called again where this was built without values, on the device ``meta``."""
        self.register_buffer("filters", mel_filters(self.num_mel_bins), persistent=False)
        self.register_buffer("window", torch.hann_window(MEL_WINDOW_SAMPLES), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Compute the spectrograms, in float32 also under autocast: the logarithm needs it.

        Args:
            waveforms: (batch, samples) at 16 kHz.
            lengths: (batch,) int64, valid samples, more than 200 each, on the waveforms' device.

        Returns:
            (batch, num_mel_bins, samples // 160), zero past the ``length // 160`` frames of each utterance.
        """
        frames = waveforms.shape[1] // MEL_HOP_SAMPLES
        device = "cpu" if waveforms.is_meta else waveforms.device.type  # where only shapes are, there is no autocast
        with torch.autocast(device, enabled=False):
            heard = _mirrored(waveforms.float(), lengths)
            window = self.window.float()
            spectrum = torch.stft(
                heard, MEL_WINDOW_SAMPLES, MEL_HOP_SAMPLES, window=window, center=False, return_complex=True
            )
            mels = self.filters.float() @ spectrum[..., :frames].abs().square()
            levels = mels.clamp(min=_SMALLEST_POWER).log10()
            valid = torch.arange(frames, device=levels.device) < (lengths // MEL_HOP_SAMPLES)[:, None]
            valid = valid.unsqueeze(1)
            loudest = levels.masked_fill(~valid, -torch.inf).amax((1, 2), keepdim=True)
            return ((torch.maximum(levels, loudest - _RANGE) + 4) / 4).masked_fill(~valid, 0.0)


def _mirrored(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """(batch, 200 + samples + 200): each row with 200 samples of itself, mirrored, before and after its valid part."""
    reach = MEL_WINDOW_SAMPLES // 2
    places = torch.arange(-reach, waveforms.shape[1] + reach, device=waveforms.device).abs()
    last = (lengths - 1)[:, None]
    return waveforms.gather(1, torch.where(places <= last, places, 2 * last - places).clamp(min=0))
