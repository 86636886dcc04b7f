"""The convolution that encodes position, by Fourier transforms: it is wide, so that this takes a tenth of the time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OverlapSaveConv:
    """A grouped convolution along time whose weights are kept transformed (overlap-save).

    Made with gradients enabled, it has them, for one backward pass.

    Args:
        conv: stride 1, dilation 1, padded with zeros.

    >>> conv = nn.Conv1d(8, 8, 16, padding=8, groups=2)
    >>> x = torch.randn(3, 8, 50)
    >>> with torch.no_grad():
    ...     torch.allclose(OverlapSaveConv(conv)(x), conv(x), atol=1e-5)
    True
    """

    def __init__(self, conv: nn.Conv1d):
        (self.kernel,), (self.padding,) = conv.kernel_size, conv.padding
        self.groups, self.bias = conv.groups, conv.bias
        self.size = 1 << (2 * self.kernel - 1).bit_length()  # of a transform: half of it gives new frames
        self.hop = self.size - self.kernel + 1
        spectra = torch.fft.rfft(conv.weight.unflatten(0, (self.groups, -1)), self.size).conj()
        self.spectra = spectra.permute(3, 0, 2, 1).resolve_conj().flatten(0, 1).contiguous()  # (bins * groups, in, out)

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve ``x`` ``(batch, channels, frames)``, all that ``conv`` gives, an even kernel's extra frame too."""
        batch, _, frames = x.shape
        outputs = frames + 2 * self.padding - self.kernel + 1
        blocks = -(-outputs // self.hop)
        x = F.pad(x, (self.padding, blocks * self.hop + self.kernel - 1 - self.padding - frames))
        spectra = torch.fft.rfft(x.unfold(2, self.size, self.hop))  # (batch, channels, blocks, bins)
        spectra = spectra.unflatten(1, (self.groups, -1)).permute(4, 1, 0, 3, 2)
        bins = spectra.shape[0]
        y = spectra.reshape(bins * self.groups, batch * blocks, -1) @ self.spectra
        y = y.view(bins, self.groups, batch, blocks, -1).permute(2, 1, 4, 3, 0)
        y = torch.fft.irfft(y, self.size)[..., : self.hop].reshape(batch, -1, blocks * self.hop)[..., :outputs]
        return y if self.bias is None else y + self.bias.unsqueeze(1)
