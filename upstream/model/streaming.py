"""Features while the audio arrives: equal to those of `ChunkedEncoder`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdistiller.upstream.model.chunks import ChunkedEncoder, ChunkOptions, PrefixExtractor
from robustdistiller.upstream.model.encoder import EncoderOutput, SpeechEncoder
from robustdistiller.upstream.model.transformer import SelfAttention, TransformerLayer


class Stream:
    """One utterance, pushed in pieces of any length.

    Memory is bounded: kept are the samples that the next chunk overlaps, sums for the norms over time, the frames that
    the position convolution sees, and keys and values of the left context of each layer.

    Args:
        encoder: in eval mode.
        options: chunk, left context, look-ahead.

    Raises:
        ValueError: the encoder has a part that cannot be computed in chunks.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> config = EncoderConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    >>> stream = Stream(SpeechEncoder(config).eval(), ChunkOptions(chunk_frames=8, look_ahead_frames=2))
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
        self.encoder, self.options = encoder, options
        self.prefix = PrefixExtractor(encoder)
        self.frames, self.ended = 0, False
        width, config = encoder.config.embed_dim, encoder.config
        self.left = torch.zeros(config.position_kernel // 2, width)  # what the position convolution sees before a chunk
        self.keys: list[Tensor | None] = [None] * config.num_layers
        self.values: list[Tensor | None] = [None] * config.num_layers

    @torch.no_grad()
    def push(self, samples: Tensor, predict: bool = True) -> EncoderOutput | None:
        """Take more audio and give the frames that have become complete, if there are any.

        Args:
            samples: ``(samples,)`` float32 at 16 kHz.
            predict: whether to run the prediction heads.

        Raises:
            ValueError: the stream has ended, or the shape is another.
        """
        if self.ended or samples.dim() != 1:
            state = "the stream has ended" if self.ended else f"samples have shape {tuple(samples.shape)}"
            raise ValueError(f"{state}; expected (samples,) pushed before finish()")
        self.prefix.push(samples)
        size = self.options.chunk_frames + self.options.look_ahead_frames
        outputs = []
        while self.prefix.num_frames >= self.frames + size:
            outputs.append(self._chunk(self.frames + size, predict))
        return _join(outputs)

    @torch.no_grad()
    def finish(self, predict: bool = True) -> EncoderOutput | None:
        """End the utterance and give the frames that are left, if there are any."""
        if self.ended:
            raise ValueError("the stream has ended; expected one call of finish()")
        self.ended = True
        size, outputs = self.options.chunk_frames + self.options.look_ahead_frames, []
        while self.prefix.num_frames > self.frames:
            outputs.append(self._chunk(self.frames + size, predict))
        return _join(outputs)

    def _chunk(self, stop: int, predict: bool) -> EncoderOutput:
        encoder, transformer = self.encoder, self.encoder.transformer
        features = self.prefix.block(self.frames, stop)
        projected = encoder.projection(encoder.feature_norm(features))
        main = min(self.options.chunk_frames, len(projected))
        block = torch.cat([self.left.to(projected), projected])
        x = projected[None] + transformer.position(block[None])[:, len(self.left) :]
        self.left = block[: len(self.left) + main][main:]
        states = [x if transformer.norm_first else transformer.norm(x)]
        for number, layer in enumerate(transformer.layers):
            states.append(self._layer(number, layer, states[-1], main))
        if transformer.norm_first:
            states[-1] = transformer.norm(states[-1])
        states = [state[:, :main] for state in states]
        predictions = encoder.heads(states[-1]) if predict and encoder.heads is not None else []
        self.frames += main
        self.prefix.forget(self.frames)
        parts = features[None, :main], projected[None, :main]
        return EncoderOutput(*parts, states, torch.tensor([main]), predictions)

    def _layer(self, number: int, layer: TransformerLayer, x: Tensor, main: int) -> Tensor:
        if layer.attention is not None:
            attended = self._attend(number, layer.attention, layer.attention_norm(x) if layer.norm_first else x, main)
            x = x + attended
        if layer.norm_first:
            return x + layer._feed_forward(layer.ffn_norm(x))
        x = layer.attention_norm(x)
        return layer.ffn_norm(x + layer._feed_forward(x))

    def _attend(self, number: int, attention: SelfAttention, x: Tensor, main: int) -> Tensor:
        """Attention of a block to itself and to what is kept of the frames before it; keeps the chunk's own."""
        k, v = attention._split(attention.k_proj(x)), attention._split(attention.v_proj(x))
        if self.keys[number] is not None:
            k, v = torch.cat([self.keys[number], k], dim=2), torch.cat([self.values[number], v], dim=2)
        before = k.shape[2] - x.shape[1]
        mask, table = None, self.encoder.transformer.position_bias
        if table is not None:
            mask = attention._mask(x, None, table(k.shape[2])[:, before:])
        y = F.scaled_dot_product_attention(attention._split(attention.q_proj(x)), k, v, attn_mask=mask)
        first = max(0, before + main - self.options.left_frames)
        self.keys[number], self.values[number] = k[:, :, first : before + main], v[:, :, first : before + main]
        return attention.out_proj(y.transpose(1, 2).flatten(2))


def _join(outputs: list[EncoderOutput]) -> EncoderOutput | None:
    """The frames of successive chunks as one output."""
    if not outputs:
        return None

    def joined(name: str) -> list[Tensor]:
        return [torch.cat(parts, dim=1) for parts in zip(*(getattr(output, name) for output in outputs))]

    return EncoderOutput(
        torch.cat([output.extractor_features for output in outputs], dim=1),
        torch.cat([output.projected for output in outputs], dim=1),
        joined("hidden_states"),
        sum(output.frame_lengths for output in outputs),
        joined("predictions"),
    )
