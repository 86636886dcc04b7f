"""The position convolution of an encoder as products of spectra, stretch after stretch of an utterance.

A kernel of 128 frames is long enough for it: a stretch of 256 frames, transformed, multiplied and transformed back,
gives 129 frames of the result (overlap-save; Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7). For
every frequency and group of channels the product is one of small matrices.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.model.position import PositionalConv

#: Taps of a kernel, and frames, from which on it pays; in training, where the kernel is transformed in each step,
#: frames of a batch.
LEAST_TAPS, LEAST_FRAMES, LEAST_FRAMES_IN_TRAINING = 64, 40, 1500


class SpectralPosition(PositionalConv):
    """A :class:`~robustdistiller.upstream.model.position.PositionalConv` with the same parameters under the same names.

    It is equal to it within rounding. Where the sum itself is quicker, and in another precision than float32, it
    computes that.

    Args:
        position: with one convolution; its modules become those of this one.
        frozen: whether its weights will not change any more.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> position, x = PositionalConv(EncoderConfig()), torch.randn(1, 100, 768)
    >>> with torch.no_grad():
    ...     torch.allclose(SpectralPosition(position, frozen=True)(x), position(x), atol=1e-5)
    True
    """

    def __init__(self, position: PositionalConv, frozen: bool):
        nn.Module.__init__(self)
        self.leaks, self.convs, self.conv, self.batch_norm = position.leaks, None, position.conv, position.batch_norm
        self.frozen = frozen
        spectra = _spectra_of(position.conv).detach().contiguous() if frozen else None
        self.register_buffer("spectra", spectra, persistent=False)

    def _around(self, conv: nn.Conv1d, x: Tensor) -> Tensor:
        (stride,), frames = conv.stride, x.shape[2]
        enough = frames >= LEAST_FRAMES if self.frozen else len(x) * frames >= LEAST_FRAMES_IN_TRAINING
        if not enough or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return super()._around(conv, x)
        spectra = _spectra_of(conv) if self.spectra is None else cast(Tensor, self.spectra)
        y = _correlate(x, spectra, conv.kernel_size[0])[..., ::stride]
        return y if conv.bias is None else y + conv.bias.unsqueeze(1)


def _spectra_of(conv: nn.Conv1d) -> Tensor:
    """Of a kernel, ``(frequencies, groups, inputs, outputs)``."""
    spectra = torch.fft.rfft(conv.weight, 2 * conv.kernel_size[0]).conj()  # for a correlation
    return spectra.resolve_conj().unflatten(0, (conv.groups, -1)).permute(3, 0, 2, 1)


def _correlate(x: Tensor, spectra: Tensor, kernel: int) -> Tensor:
    """``(batch, channels, frames)`` around each frame, zero outside, at every frame."""
    batch, _, frames = x.shape
    size, step, groups = 2 * kernel, kernel + 1, spectra.shape[1]
    stretches = -(-frames // step)
    x = F.pad(x, (kernel // 2, (kernel - 1) // 2 + stretches * step - frames)).unfold(2, size, step)
    x = torch.fft.rfft(x).unflatten(1, (groups, -1))  # (batch, groups, channels, stretches, frequencies)
    y = (x.permute(4, 1, 0, 3, 2).flatten(2, 3) @ spectra).unflatten(2, (batch, stretches))
    y = torch.fft.irfft(y.permute(2, 1, 4, 3, 0), size)[..., :step]
    return y.flatten(3).flatten(1, 2)[..., :frames]
