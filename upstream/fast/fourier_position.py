"""The convolution that encodes position, by Fourier transforms: it is wide."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FourierPosition(nn.Module):
    """A plain :class:`~robustdistiller.upstream.model.position.PositionalConv`, frozen, by overlap-save.

    Args:
        conv: stride 1, dilation 1, padded with half its kernel.

    >>> conv = nn.Conv1d(8, 8, 16, padding=8, groups=2)
    >>> x = torch.randn(3, 50, 8)
    >>> expected = F.gelu(conv(x.transpose(1, 2))[..., :50]).transpose(1, 2)
    >>> torch.allclose(FourierPosition(conv)(x), expected, atol=1e-5)
    True
    """

    def __init__(self, conv: nn.Conv1d):
        super().__init__()
        (self.kernel,), (self.padding,), self.groups = conv.kernel_size, conv.padding, conv.groups
        self.size = 1 << (2 * self.kernel - 1).bit_length()  # of a transform: half of it gives new frames
        self.hop = self.size - self.kernel + 1
        spectra = torch.fft.rfft(conv.weight.detach().unflatten(0, (self.groups, -1)), self.size).conj()
        spectra = spectra.permute(3, 0, 2, 1).resolve_conj().flatten(0, 1)
        self.register_buffer("spectra", spectra.contiguous())  # (bins * groups, inputs, outputs)
        self.register_buffer("bias", conv.bias.detach().clone())

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map ``(batch, frames, dim)``, zero past each utterance's end, to the same shape."""
        batch, frames, _ = x.shape
        blocks = -(-frames // self.hop)
        x = F.pad(
            x.float().transpose(1, 2), (self.padding, blocks * self.hop + self.kernel - 1 - self.padding - frames)
        )
        spectra = torch.fft.rfft(x.unfold(2, self.size, self.hop))  # (batch, channels, blocks, bins)
        spectra = spectra.unflatten(1, (self.groups, -1)).permute(4, 1, 0, 3, 2)
        bins = spectra.shape[0]
        y = spectra.reshape(bins * self.groups, batch * blocks, -1) @ self.spectra
        y = y.view(bins, self.groups, batch, blocks, -1).permute(2, 1, 4, 3, 0)
        y = torch.fft.irfft(y, self.size)[..., : self.hop].reshape(batch, -1, blocks * self.hop)[..., :frames]
        return F.gelu(y + self.bias.unsqueeze(1)).transpose(1, 2)
