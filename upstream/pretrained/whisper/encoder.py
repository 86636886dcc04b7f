"""Whisper's encoder (https://arxiv.org/abs/2212.04356): log-mel frames, two convolutions, pre-norm layers."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.model.config import MEL_HOP_SAMPLES
from robustdistiller.upstream.model.log_mel import Count
from robustdistiller.upstream.model.module_list import ModuleList
from robustdistiller.upstream.model.transformer import TransformerLayer
from robustdistiller.upstream.pretrained.whisper.config import WhisperConfig
from robustdistiller.upstream.pretrained.whisper.log_mel import LogMel


class WhisperOutput(NamedTuple):
    """What :class:`WhisperEncoder` returns. Frames at or past ``frame_lengths`` are padding: finite, without meaning.

    Attributes:
        projected: ``(batch, frames, dim)``, after the convolutions, before the positions.
        hidden_states: ``[0]`` is the input of the first layer, ``[i]`` the output of layer ``i``, each
            ``(batch, frames, dim)``, or None where it was not asked for. The last layer's is given after the
            encoder's final layer norm, as in transformers.
        frame_lengths: ``(batch,)`` int64, valid frames of each utterance.
    """

    projected: Tensor
    hidden_states: list[Tensor | None]
    frame_lengths: Tensor

    def upstream_states(self, config: WhisperConfig) -> list[Tensor | None]:
        """The hidden states as an upstream gives them."""
        return self.hidden_states


def num_frames(num_samples: Count) -> Count:
    """Frames made from ``num_samples`` samples, an integer or an integer tensor.

    >>> num_frames(16000), num_frames(torch.tensor([8000, 8159, 8160]))
    (50, tensor([25, 25, 26]))
    """
    return (num_samples // MEL_HOP_SAMPLES + 1) // 2


class WhisperEncoder(nn.Module):
    """Waveform to hidden states, one frame per 20 ms, the first around sample 0.

    An utterance's features do not depend on what it is batched with. One that is longer than the positions reach (30 s)
    is heard in pieces of that length, each by itself.

    Args:
        config: the shape of the network. Its weights are random, its positions Whisper's sinusoids.

    >>> encoder = WhisperEncoder(WhisperConfig(embed_dim=16, num_layers=2, num_heads=2, ffn_dim=32)).eval()
    >>> output = encoder(torch.randn(2, 16000), lengths=torch.tensor([16000, 8000]))
    >>> output.hidden_states[2].shape, output.frame_lengths
    (torch.Size([2, 50, 16]), tensor([50, 25]))
    """

    num_frames = staticmethod(num_frames)
    first_centre_sample = 0.0
    positions: Tensor

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.config, dim = config, config.embed_dim
        self.log_mel = LogMel(config.num_mel_bins)
        self.conv1 = nn.Conv1d(config.num_mel_bins, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(config.max_frames, dim))
        self.layers = ModuleList(TransformerLayer(config.layers, layer) for layer in range(config.num_layers))
        for layer in self.layers:
            if layer.attention is not None:
                layer.attention.k_proj = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)

    @property
    def downsample_rate(self) -> int:
        """Samples per frame, 320."""
        return self.config.downsample_rate

    @property
    def num_layers(self) -> int:
        """Transformer layers."""
        return self.config.num_layers

    @property
    def width(self) -> int:
        """Width of a hidden state."""
        return self.config.embed_dim

    def state_names(self) -> tuple[str, ...]:
        """Names of the hidden states.

        >>> WhisperEncoder(WhisperConfig(embed_dim=16, num_layers=2, num_heads=2, ffn_dim=32)).state_names()
        ('layer_input', 'layer_1', 'layer_2')
        """
        return ("layer_input", *(f"layer_{number}" for number in range(1, self.num_layers + 1)))

    def count_parameters(self, heads: bool = True) -> int:
        """Parameters, without the positions, which are constants; there are no prediction ``heads`` to leave out."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        layers: Collection[int] | None = None,
        predict: bool = False,
    ) -> WhisperOutput:
        """Encode a batch.

        Args:
            waveforms: ``(batch, samples)`` float32 at 16 kHz.
            lengths: ``(batch,)`` int64, valid samples; ``None`` means that all are. On the CPU it costs no
                synchronisation.
            layers: numbers of the hidden states to keep, others are None in the output; what lies behind the last of
                them is not run. ``None`` keeps all.
            predict: as a SpeechEncoder takes it; there is nothing to predict here.

        Raises:
            ValueError: an utterance is shorter than 400 samples, a layer does not exist, or the shapes do not fit.
        """
        wanted = set(range(self.num_layers + 1) if layers is None else layers)
        if not wanted or not wanted <= set(range(self.num_layers + 1)):
            raise ValueError(f"layers are {sorted(wanted)}; expected numbers from 0 to {self.num_layers}, the last's")
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[-1])
        longest = self._check_input(waveforms, lengths)
        if longest > self.config.max_samples:
            return self._in_pieces(waveforms[:, :longest], lengths, wanted)
        return self._encode(waveforms[:, :longest], lengths.to(waveforms.device, non_blocking=True), wanted)

    def _encode(self, waveforms: Tensor, lengths: Tensor, wanted: Collection[int]) -> WhisperOutput:
        frames, frame_lengths = num_frames(waveforms.shape[1]), num_frames(lengths)
        if self.config.pad_to_30_s:
            outside = torch.arange(waveforms.shape[1], device=waveforms.device) >= lengths[:, None]
            silence = self.config.max_samples - waveforms.shape[1]
            waveforms = F.pad(waveforms.masked_fill(outside, 0.0), (0, silence))
            lengths = torch.full_like(lengths, self.config.max_samples)
        mels = self.log_mel(waveforms, lengths)
        # What follows an utterance is as the zeros that its convolutions would be padded with, were it alone.
        inside = torch.arange(mels.shape[2], device=mels.device) < (lengths // MEL_HOP_SAMPLES)[:, None]
        x = F.gelu(self.conv1(mels.to(self.conv1.weight.dtype))).masked_fill(~inside.unsqueeze(1), 0.0)
        projected = F.gelu(self.conv2(x)).transpose(1, 2)
        x = projected + self.positions[: projected.shape[1]]
        heard = torch.arange(x.shape[1], device=x.device) < num_frames(lengths)[:, None]
        states: list[Tensor | None] = [x if 0 in wanted else None]
        for number, layer in enumerate(self.layers[: max(wanted)], start=1):
            x, _ = layer(x, heard[:, None, None, :], None)
            x = self.norm(x) if number == self.num_layers else x
            states.append(x if number in wanted else None)
        states = [None if state is None else state[:, :frames] for state in states]
        return WhisperOutput(projected[:, :frames], states, frame_lengths)

    def _in_pieces(self, waveforms: Tensor, lengths: Tensor, wanted: Collection[int]) -> WhisperOutput:
        size, least, projected, pieces = self.config.max_samples, self.config.receptive_field, [], []
        for start in range(0, waveforms.shape[1], size):
            left = (lengths - start).clamp(0, size)
            if num_frames(int(left.max())) == 0:
                break
            piece = waveforms[:, start : start + size]
            outside = torch.arange(piece.shape[1], device=piece.device) >= left.to(piece.device)[:, None]
            piece = F.pad(piece.masked_fill(outside, 0.0), (0, max(0, least - piece.shape[1])))
            output, frames = self(piece, left.clamp(min=least), wanted), num_frames(int(left.max()))
            projected.append(output.projected[:, :frames])
            pieces.append([None if x is None else x[:, :frames] for x in output.hidden_states])
        states = [None if parts[0] is None else torch.cat(parts, dim=1) for parts in zip(*pieces)]
        frame_lengths = num_frames(lengths).to(waveforms.device, non_blocking=True)
        return WhisperOutput(torch.cat(projected, dim=1), states, frame_lengths)

    def _check_input(self, waveforms: Tensor, lengths: Tensor) -> int:
        """The longest utterance's samples."""
        if waveforms.dim() != 2 or 0 in waveforms.shape:
            raise ValueError(f"waveforms have shape {tuple(waveforms.shape)}; expected a non-empty (batch, samples)")
        if not waveforms.is_floating_point():
            raise ValueError(f"waveforms are {waveforms.dtype}; expected float32 in [-1, 1], for int16 divide by 32768")
        if lengths.shape != waveforms.shape[:1]:
            raise ValueError(f"lengths have shape {tuple(lengths.shape)}; expected ({len(waveforms)},)")
        samples, needed = lengths.tolist(), self.config.receptive_field
        if min(samples) < needed:
            raise ValueError(
                f"utterance {samples.index(min(samples))} of the batch has {min(samples)} samples; one frame needs at "
                f"least {needed}: drop it or pad it with zeros"
            )
        if max(samples) > waveforms.shape[1]:
            raise ValueError(f"lengths reach {max(samples)}, but the waveforms have {waveforms.shape[1]} samples")
        return max(samples)


def sinusoids(length: int, dim: int) -> Tensor:
    """Whisper's positions ``(length, dim)``: sines, then cosines, of periods from 2 pi to 20,000 pi frames.

    >>> sinusoids(1, 4)
    tensor([[0., 0., 1., 1.]])
    """
    rates = torch.exp(torch.arange(dim // 2) * (-math.log(10_000) / max(dim // 2 - 1, 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)
