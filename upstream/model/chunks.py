"""An encoder that hears an utterance in chunks, with bounded look-ahead: the whole utterance at once, under a mask.

`Stream` computes the same while the audio arrives. What is not causal in the
encoder is treated like this, for a chunk of frames and the frames of its look-ahead:

- Group norm over time, and the normalisation of waveforms: by the statistics of all samples heard up to the end of the
  look-ahead, from the start of the utterance. Norms over channels need nothing.
- The convolution that encodes position reaches half a kernel to both sides (64 frames). Left of the chunk it sees the
  frames as their own chunk had them; behind the look-ahead it sees zeros, as behind the end of an utterance.
- Attention: to the chunk, its look-ahead and a number of frames before the chunk. The states of the look-ahead are
  computed for this chunk alone and again for the next, so that the look-ahead does not grow with the layers
  (Emformer, https://arxiv.org/abs/2010.10759).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.upstream.fast.segments import SegmentExtractor
from robustdistiller.upstream.fast.window_statistics import WindowStatistics
from robustdistiller.upstream.model.config import EncoderConfig
from robustdistiller.upstream.model.encoder import EncoderOutput, SpeechEncoder


@dataclass(frozen=True)
class ChunkOptions:
    """What a frame may see.

    Args:
        chunk_frames: frames that are computed together, of 20 ms each.
        left_frames: before the chunk, for attention.
        look_ahead_frames: after the chunk.

    Raises:
        ValueError: a number is out of range.

    >>> ChunkOptions(chunk_frames=16, look_ahead_frames=4).latency_ms(EncoderConfig())
    405.0
    """

    chunk_frames: int
    left_frames: int = 256
    look_ahead_frames: int = 0

    def __post_init__(self):
        for name, least in (("chunk_frames", 1), ("left_frames", 0), ("look_ahead_frames", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; expected a whole number, {least} or more")

    def latency_ms(self, config: EncoderConfig, sample_rate_hz: int = 16_000) -> float:
        """Audio that has to be there before the first frame of a chunk can be computed: no frame waits longer."""
        frames = self.chunk_frames + self.look_ahead_frames
        return 1000 * ((frames - 1) * config.downsample_rate + config.receptive_field) / sample_rate_hz


class ChunkedEncoder(nn.Module):
    """An encoder under a chunk mask, for inference.

    Args:
        encoder: its weights must not change any more. Stacks of position convolutions and layers that reuse attention
            are refused.
        options: what a frame may see.

    Raises:
        ValueError: the encoder has a part that cannot be computed in chunks.

    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> chunked = ChunkedEncoder(SpeechEncoder(config).eval(), ChunkOptions(chunk_frames=8, look_ahead_frames=2))
    >>> chunked(torch.randn(1, 8000)).hidden_states[1].shape
    torch.Size([1, 24, 16])
    """

    def __init__(self, encoder: SpeechEncoder, options: ChunkOptions):
        super().__init__()
        require_chunkable(encoder.config)
        self.encoder, self.options = encoder, options

    @torch.no_grad()
    def forward(self, waveforms: Tensor, lengths: Tensor | None = None, predict: bool = True) -> EncoderOutput:
        """Encode a batch; an utterance does not depend on what it is batched with.

        Args:
            waveforms: ``(batch, samples)`` float32 at 16 kHz, on the CPU or not.
            lengths: ``(batch,)`` int64 valid samples; ``None`` means that all are.
            predict: whether to run the prediction heads.

        Raises:
            ValueError: as of :class:`SpeechEncoder`.
        """
        encoder, chunk, ahead = self.encoder, self.options.chunk_frames, self.options.look_ahead_frames
        num_samples = encoder._check_input(waveforms, lengths)
        counts = torch.tensor([encoder.num_frames(samples) for samples in num_samples])
        chunks = -(-int(counts.max()) // chunk)
        rows = [self._rows(row[:samples], chunks) for row, samples in zip(waveforms, num_samples)]
        blocks = torch.stack(rows)  # (batch, chunks, chunk + look-ahead, channels)
        start = chunk * torch.arange(chunks).unsqueeze(1)
        inside = (start + torch.arange(chunk + ahead)).expand(len(counts), -1, -1) < counts[:, None, None]
        projected = encoder.projection(encoder.feature_norm(blocks)) * inside.unsqueeze(-1).to(waveforms.device)
        x = projected + self._position(projected)
        hidden_states = self._layers(x, counts.to(waveforms.device))
        frames = int(counts.max())
        hidden_states = [state[:, :frames] for state in hidden_states]
        predictions = encoder.heads(hidden_states[-1]) if predict and encoder.heads is not None else []
        main = [block[:, :, :chunk].flatten(1, 2)[:, :frames] for block in (blocks, projected)]
        return EncoderOutput(*main, hidden_states, counts.to(waveforms.device), predictions)

    def _rows(self, waveform: Tensor, chunks: int) -> Tensor:
        """Features ``(chunks, chunk + look-ahead, channels)`` of an utterance, zero past its end."""
        prefix, options = PrefixExtractor(self.encoder), self.options
        prefix.push(waveform)
        blocks, size = [], options.chunk_frames + options.look_ahead_frames
        for start in range(0, prefix.num_frames, options.chunk_frames):
            block = prefix.block(start, start + size)
            blocks.append(F.pad(block, (0, 0, 0, size - len(block))))
        blocks += [torch.zeros_like(blocks[0])] * (chunks - len(blocks))
        return torch.stack(blocks)

    def _position(self, blocks: Tensor) -> Tensor:
        """The position encoding of each block, for blocks ``(batch, chunks, frames, dim)``."""
        chunk, left = self.options.chunk_frames, self.encoder.config.position_kernel // 2
        main = F.pad(blocks[:, :, :chunk].flatten(1, 2), (0, 0, left, 0))
        windows = main.unfold(1, left + chunk, chunk).transpose(2, 3)
        rows = torch.cat([windows, blocks[:, :, chunk:]], dim=2).flatten(0, 1)
        return self.encoder.transformer.position(rows)[:, left:].unflatten(0, blocks.shape[:2])

    def _layers(self, blocks: Tensor, counts: Tensor) -> list[Tensor]:
        """Hidden states ``(batch, frames, dim)``: attention over all frames and, after them, each look-ahead."""
        transformer, chunk, device = self.encoder.transformer, self.options.chunk_frames, blocks.device
        chunks, ahead, frames = blocks.shape[1], self.options.look_ahead_frames, blocks.shape[1] * chunk
        x = torch.cat([blocks[:, :, :chunk].flatten(1, 2), blocks[:, :, chunk:].flatten(1, 2)], dim=1)
        number = torch.arange(chunks, device=device)
        main = torch.arange(frames, device=device)
        later = (chunk * (number + 1)).unsqueeze(1) + torch.arange(ahead, device=device)
        positions = torch.cat([main, later.flatten()])
        of_chunk = torch.cat([main // chunk, number.repeat_interleave(ahead)])
        is_main = torch.arange(len(positions), device=device) < frames
        first = of_chunk.unsqueeze(1) * chunk - self.options.left_frames  # the first frame that each query sees
        same = of_chunk.unsqueeze(1) == of_chunk
        before = is_main & (positions >= first) & (of_chunk < of_chunk.unsqueeze(1))
        seen = (same | before) & (positions < counts[:, None, None])
        seen = seen | torch.eye(len(positions), dtype=torch.bool, device=device)  # padding sees itself: no NaN
        bias = None
        if transformer.position_bias is not None and len(transformer.layers):
            bias = transformer.position_bias(frames + ahead)[:, positions][:, :, positions]
        states = [x if transformer.norm_first else transformer.norm(x)]
        for layer in transformer.layers:
            states.append(layer(states[-1], seen.unsqueeze(1), bias)[0])
        if transformer.norm_first:
            states[-1] = transformer.norm(states[-1])
        return [state[:, :frames] for state in states]


class PrefixExtractor:
    """Features of an utterance so far: its samples, as far as they are still needed, and its statistics.

    Args:
        encoder: with an extractor of the wav2vec 2.0 kind.

    >>> encoder = SpeechEncoder(EncoderConfig(num_layers=0)).eval()
    >>> prefix = PrefixExtractor(encoder)
    >>> waveform = torch.randn(8000)
    >>> with torch.no_grad():
    ...     prefix.push(waveform)
    ...     torch.allclose(prefix.block(0, 99), encoder.extractor(waveform[None])[0], atol=1e-4)
    True
    """

    def __init__(self, encoder: SpeechEncoder):
        self.encoder, self.config = encoder, encoder.config
        extractor = encoder.extractor
        self.segments = extractor._segments.get(extractor.parameters(), lambda: SegmentExtractor(extractor))
        self.samples, self.dropped = torch.empty(0), 0
        self.windows: WindowStatistics | None = None
        self.level = (0, 0.0, 0.0)  # samples, their sum, the sum of their squares

    @property
    def num_samples(self) -> int:
        """Samples heard."""
        return self.dropped + len(self.samples)

    @property
    def num_frames(self) -> int:
        """Frames that can be made from them."""
        return self.encoder.num_frames(self.num_samples)

    def push(self, samples: Tensor) -> None:
        """Append ``(samples,)``."""
        self.samples = torch.cat([self.samples.to(samples.device), samples])

    def block(self, start: int, stop: int) -> Tensor:
        """Features ``(frames, channels)`` of these frames, or of those that are there, by the statistics up to them.

        Blocks have to come in order. Where fewer frames are there than asked for the utterance is over, and all its
        samples count.
        """
        rate, field = self.config.downsample_rate, self.config.receptive_field
        frames = min(stop, self.num_frames)
        until = (stop - 1) * rate + field if frames == stop else self.num_samples
        piece = self._part(start * rate, (frames - 1) * rate + field)
        if self.config.normalize_waveform:
            mean, variance = self._level_until(until)
            piece = (piece - mean) * (variance + 1e-5) ** -0.5
        windows = self._windows_until(until) if self.segments.normalises else None
        return self.segments.segment(piece, self.segments.first_layer(windows))

    def forget(self, frame: int) -> None:
        """Drop the samples that neither this frame and later ones nor the statistics need."""
        needed = [frame * self.config.downsample_rate]
        if self.segments.normalises:
            needed.append(self._counted * self.segments.stride)
        if self.config.normalize_waveform:
            needed.append(self.level[0])
        surplus = min(needed) - self.dropped
        if surplus > 0:
            self.samples, self.dropped = self.samples[surplus:].clone(), self.dropped + surplus

    @property
    def _counted(self) -> int:
        return 0 if self.windows is None else int(self.windows.count)

    def _part(self, start: int, stop: int) -> Tensor:
        return self.samples[start - self.dropped : stop - self.dropped]

    def _windows_until(self, sample: int) -> WindowStatistics:
        kernel, stride = self.segments.kernel, self.segments.stride
        counted, count = self._counted, (sample - kernel) // stride + 1
        if count > counted:
            new = self.segments.statistics(self._part(counted * stride, (count - 1) * stride + kernel))
            self.windows = new if self.windows is None else self.windows + new
        return self.windows

    def _level_until(self, sample: int) -> tuple[float, float]:
        count, total, squares = self.level
        if sample > count:
            new = self._part(count, sample).double()
            count, total = sample, total + new.sum().item()
            squares += new.square().sum().item()
            self.level = (count, total, squares)
        mean = total / count
        return mean, max(squares / count - mean * mean, 0.0)


def require_chunkable(config: EncoderConfig) -> None:
    """Refuse encoders that cannot be computed in chunks.

    Raises:
        ValueError: naming the part.

    >>> require_chunkable(EncoderConfig(position_depth=5))
    Traceback (most recent call last):
    ValueError: position_depth is 5; only encoders with one position convolution can be computed in chunks
    """
    if config.position_depth > 1:
        raise ValueError(
            f"position_depth is {config.position_depth}; only encoders with one position convolution can be computed "
            "in chunks"
        )
    if config.attention_reuse:
        raise ValueError(f"layers {config.attention_reuse} reuse attention, which cannot be computed in chunks")
    if config.normalize_waveform and config.conv_norm == "group":
        raise ValueError("waveforms are normalised before group norm, which cannot be computed in chunks")
