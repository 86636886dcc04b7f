"""One utterance as it arrives, pushed in pieces of any length: the steps of a :class:`ChunkedEncoder`, one by one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistiller.upstream.model.encoder import EncoderOutput, SpeechEncoder
from robustdistiller.upstream.model.streaming import ChunkedEncoder, ChunkOptions, cut, join


class Stream:
    """One utterance, pushed in pieces of any length.

    Memory is bounded: kept are the samples that the next chunk overlaps and a :class:`StreamState`.

    Args:
        encoder: in eval mode; give ``fast.accelerate(encoder)`` on a CPU.
        options: chunk, left context, look-ahead.

    Raises:
        ValueError: the encoder has a part that cannot be computed in chunks, or it is in training mode.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> stream = Stream(SpeechEncoder(EncoderConfig.tiny()).eval(), ChunkOptions(chunk_frames=8, look_ahead_frames=2))
    >>> for _ in range(3):
    ...     output = stream.push(torch.randn(2000))
    ...     print(0 if output is None else output.hidden_states[1].shape[1])
    0
    8
    8
    >>> stream.finish().hidden_states[1].shape
    torch.Size([1, 2, 16])
    """

    def __init__(self, encoder: SpeechEncoder, options: ChunkOptions):
        self.chunked = ChunkedEncoder(encoder, options)
        self.state = self.chunked.initial_state()
        # From the first sample of the next chunk on.
        self.samples = self.state["left"].new_zeros(encoder.config.front_padding)
        self.hop, self.size = options.chunk_frames * encoder.downsample_rate, options.block_samples(encoder.config)
        self.ended = False

    def push(self, samples: Tensor, predict: bool = True) -> EncoderOutput | None:
        """Take more audio and give the frames that have become complete, if there are any.

        Args:
            samples: ``(samples,)`` at 16 kHz: floating point in [-1, 1], or int16, as microphones give it.
            predict: whether to run the prediction heads.

        Raises:
            ValueError: the stream has ended, or shape or type are others.
        """
        if self.ended or samples.dim() != 1:
            state = "the stream has ended" if self.ended else f"samples have shape {tuple(samples.shape)}"
            raise ValueError(f"{state}; expected (samples,) pushed before finish()")
        if samples.dtype != torch.int16 and not samples.is_floating_point():
            raise ValueError(f"samples are {samples.dtype}; expected int16, or floating point in [-1, 1]")
        scale = 1 / 32768 if samples.dtype == torch.int16 else 1.0
        self.samples = torch.cat([self.samples, samples.to(self.samples) * scale])
        outputs = []
        while len(self.samples) >= self.size:
            outputs.append(self._step(predict))
        return join(outputs) if outputs else None

    def finish(self, predict: bool = True) -> EncoderOutput | None:
        """End the utterance and give the frames that are left, if there are any."""
        if self.ended:
            raise ValueError("the stream has ended; expected one call of finish()")
        self.ended, outputs, encoder = True, [], self.chunked.encoder
        self.samples = F.pad(self.samples, (0, encoder.config.front_padding))
        while encoder.extractor.num_frames(len(self.samples)) > 0:
            outputs.append(self._step(predict))
        return join(outputs) if outputs else None

    @torch.no_grad()
    def _step(self, predict: bool) -> EncoderOutput:
        heard = min(len(self.samples), self.size)
        block = F.pad(self.samples[:heard], (0, self.size - heard)).unsqueeze(0)
        lengths = torch.tensor([heard], device=block.device)
        output, self.state = self.chunked.step(block, lengths, self.state, predict)
        self.samples = self.samples[self.hop :].clone()
        return cut(output, int(output.frame_lengths))
