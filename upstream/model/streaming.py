"""Features while the audio arrives: chunks of frames with bounded look-ahead and bounded state.

What is not causal in the encoder is treated like this, for a chunk of frames and the frames of its look-ahead:

- Group norm over time, and the normalisation of waveforms: by the statistics of all samples heard up to the end of the
  look-ahead, from the start of the utterance. Norms over channels need nothing.
- Convolutions on a log-mel spectrum reach a spectrum or two to both sides (20 ms in all with two kernels of 3), which
  the look-ahead has beside its frames.
- The convolution that encodes position reaches half a kernel to both sides (64 frames). Left of the chunk it sees the
  frames as their own chunk had them; behind the look-ahead it sees zeros, as behind the end of an utterance.
- Attention: to the chunk, its look-ahead and a number of frames before the chunk. The states of the look-ahead are
  computed for this chunk alone and again for the next, so that the look-ahead does not grow with the layers
  (Emformer, https://arxiv.org/abs/2010.10759).
- Encoders that join frames inside (``squeeze``) join those of one chunk or look-ahead, which have to divide.

The modules are those of the encoder. A step is a function from tensors to tensors, for any number of streams at once,
each of which may begin anew at any step: it can be compiled and exported. Convolutions on samples have no state: a
block begins with the samples that it shares with the one before (5 ms beside the look-ahead), which its caller keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdistiller.common.audio import SAMPLE_RATE_HZ
from robustdistiller.upstream.model.config import EncoderConfig, field_of
from robustdistiller.upstream.model.encoder import EncoderOutput, SpeechEncoder, pad_ends
from robustdistiller.upstream.model.extractor import TimeNorm, in_full
from robustdistiller.upstream.model.running import Running


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

    @property
    def block_frames(self) -> int:
        """Frames of a step: the chunk and its look-ahead."""
        return self.chunk_frames + self.look_ahead_frames

    def block_samples(self, config: EncoderConfig) -> int:
        """Samples of a step: what the frames of a block are made from."""
        return config.block_samples(self.block_frames)

    def latency_ms(self, config: EncoderConfig, sample_rate_hz: int = SAMPLE_RATE_HZ) -> float:
        """Audio that has to be there before the first frame of a chunk can be computed: no frame waits longer."""
        return 1000 * (self.block_samples(config) - config.front_padding) / sample_rate_hz


#: What streams keep between steps, tensors by name, with the streams in the first dimension of each. All zeros are the
#: state of streams of which nothing has been heard.
#:
#: - ``left`` ``(streams, position_kernel // 2, dim)``: frames that the position convolution sees before a chunk.
#: - ``num_left`` ``(streams,)``: frames before the chunk that attention sees, at most ``left_frames``.
#: - ``keys_I``, ``values_I`` ``(streams, heads, left_frames / squeeze, head_dim)``: those frames in layer I, if it has
#:   attention.
#: - ``windows_...``: a :class:`Running` of the first convolution's outputs, for group norm; ``level_...``: one of the
#:   samples, for encoders that normalise waveforms.
StreamState = dict[str, Tensor]


class ChunkedEncoder(nn.Module):
    """An encoder that hears chunks, for inference: step by step, or a whole batch in steps.

    Args:
        encoder: in eval mode. Stacks of position convolutions and layers that reuse attention are refused.
        options: what a frame may see.
        last_layer: number of the last layer to run; ``None`` runs all of them. Predictions need all.

    Raises:
        ValueError: the encoder has a part that cannot be computed in chunks, or not in chunks of these sizes, or it is
            in training mode.

    >>> chunked = ChunkedEncoder(SpeechEncoder(EncoderConfig.tiny()).eval(), ChunkOptions(8, look_ahead_frames=2))
    >>> chunked(torch.randn(1, 8000)).hidden_states[1].shape
    torch.Size([1, 24, 16])
    """

    def __init__(self, encoder: SpeechEncoder, options: ChunkOptions, last_layer: int | None = None):
        super().__init__()
        require_chunkable(encoder.config, options)
        if encoder.training:
            raise ValueError("the encoder is in training mode, where dropout is drawn; call encoder.eval() first")
        self.encoder, self.options = encoder, options
        self.depth = encoder.num_layers if last_layer is None else last_layer
        self.runs_all = self.depth == encoder.num_layers

    def initial_state(self, streams: int = 1) -> StreamState:
        """The state of streams of which nothing has been heard: zeros."""
        encoder, config = self.encoder, self.encoder.config
        zeros = next(encoder.parameters()).new_zeros
        full = partial(zeros, dtype=in_full(zeros(0)).dtype)
        state = {
            "left": zeros(streams, config.position_kernel // 2, config.embed_dim),
            "num_left": zeros(streams, dtype=torch.int64),
        }
        for number, layer in enumerate(encoder.transformer.layers[: self.depth], start=1):
            if layer.attention is not None:
                left = self.options.left_frames // config.squeeze
                shape = streams, layer.attention.num_heads, left, config.width_per_head
                state |= {f"keys_{number}": zeros(shape), f"values_{number}": zeros(shape)}
        if isinstance(encoder.extractor.layers[0].norm, TimeNorm):
            state |= Running.zeros(streams, config.conv_layers[0][0], full).named("windows")
        if config.normalize_waveform:
            state |= Running.zeros(streams, 1, full).named("level")
        return state

    def step(
        self,
        samples: Tensor,
        num_samples: Tensor,
        state: StreamState,
        predict: bool = True,
        begins: Tensor | None = None,
    ) -> tuple[EncoderOutput, StreamState]:
        """Encode one chunk of each stream.

        Args:
            samples: ``(streams, block_samples)`` float32, from the first sample of the chunk's first frame on; steps
                move on by ``chunk_frames`` frames. Utterances have ``front_padding`` zeros at both ends.
            num_samples: ``(streams,)`` int64, valid samples among them, those zeros included. Fewer than
                ``block_samples`` is the end of an utterance, 0 a stream that has none left.
            state: what the step before returned, or :meth:`initial_state`.
            predict: whether to run the prediction heads.
            begins: ``(streams,)`` bool, true for streams whose utterance begins with this chunk: what their rows of
                the state hold is forgotten.

        Returns:
            The output, whose tensors have ``chunk_frames`` frames, ``frame_lengths`` of them valid, and the new state.
        """
        encoder, options = self.encoder, self.options
        if begins is not None:
            state = forget(state, begins)
        new: StreamState = {}
        valid_frames = encoder.extractor.num_frames(num_samples)
        samples = self._normalize(samples, num_samples, state, new)
        features = self._extract(samples, num_samples, state, new)
        inside = torch.arange(options.block_frames, device=samples.device) < valid_frames.unsqueeze(1)
        projected = encoder.projection(encoder.feature_norm(features))
        projected = projected.masked_fill(~inside.unsqueeze(-1), 0.0)
        block = torch.cat([state["left"], projected], dim=1)
        main, before = options.chunk_frames, state["left"].shape[1]
        squeeze = encoder.transformer.squeeze
        x = projected if squeeze is None else squeeze.pool(projected, inside)
        x = x + encoder.transformer.position.behind_context(block)
        states = self._layers(x, inside, state, new)
        predictions = encoder.predict(states[-1]) if predict and self.runs_all else []
        frame_lengths = valid_frames.clamp(max=main)
        output = EncoderOutput(features[:, :main], projected[:, :main], [*states], frame_lengths, predictions)
        new["left"] = block[:, main : main + before]
        new["num_left"] = (state["num_left"] + frame_lengths).clamp(max=options.left_frames)
        return output, {name: new[name] for name in state}

    @torch.no_grad()
    def forward(self, waveforms: Tensor, lengths: Tensor | None = None, predict: bool = True) -> EncoderOutput:
        """Encode a batch as streams would; an utterance does not depend on what it is batched with.

        Args:
            waveforms: ``(batch, samples)`` float32 at 16 kHz.
            lengths: ``(batch,)`` int64 valid samples; ``None`` means that all are.
            predict: whether to run the prediction heads.

        Raises:
            ValueError: as of :class:`SpeechEncoder`.
        """
        encoder, config = self.encoder, self.encoder.config
        shorter = encoder._check_input(waveforms, lengths)
        lengths = torch.full((len(waveforms),), waveforms.shape[1]) if shorter is None else shorter
        lengths = lengths.to(waveforms.device)
        hop, size = self.options.chunk_frames * config.downsample_rate, self.options.block_samples(config)
        frames = encoder.num_frames(waveforms.shape[1])
        waveforms, lengths = pad_ends(waveforms, lengths, config)
        waveforms = F.pad(waveforms, (0, size + hop))
        state, outputs = self.initial_state(len(waveforms)), []
        for start in range(0, -(-frames // self.options.chunk_frames) * hop, hop):
            heard = (lengths - start).clamp(0, size)
            output, state = self.step(waveforms[:, start : start + size], heard, state, predict)
            outputs.append(output)
        return cut(join(outputs), frames)

    def _normalize(self, samples: Tensor, num_samples: Tensor, state: StreamState, new: StreamState) -> Tensor:
        config = self.encoder.config
        if not config.normalize_waveform:
            return samples
        level = Running.of(state, "level")
        fresh = self._overlap(level.count, config.receptive_field, config.downsample_rate)
        level = level.extended(samples.unsqueeze(1), num_samples, fresh)
        new |= level.named("level")
        valid = torch.arange(samples.shape[1], device=samples.device) < num_samples.unsqueeze(1)
        scaled = (in_full(samples) - level.mean[:, 0]) * torch.rsqrt(level.variance[:, 0] + config.normalize_eps)
        return scaled.masked_fill(~valid, 0.0).to(samples.dtype)

    def _extract(self, samples: Tensor, num_samples: Tensor, state: StreamState, new: StreamState) -> Tensor:
        """Features ``(streams, frames, channels)`` by the statistics up to the end of the block."""
        extractor = self.encoder.extractor
        first = extractor.layers[0]
        if not isinstance(first.norm, TimeNorm):
            return extractor(samples)
        rest, windows = self.encoder.config.conv_layers[1:], Running.of(state, "windows")
        fresh = self._overlap(windows.count, field_of(rest), prod([stride for _, _, stride in rest]))
        heard = first.conv(extractor.inputs(samples)), extractor.first_frames(num_samples)
        windows = windows.extended(*heard, fresh)
        new |= windows.named("windows")
        return extractor(samples, moments=(windows.mean, windows.variance))

    def _overlap(self, count: Tensor, field: int, rate: int) -> Tensor:
        """Positions of a block that the step before has counted already: none at the start of an utterance."""
        overlap = max(0, (self.options.look_ahead_frames - 1) * rate + field)
        return torch.where(count[:, 0, 0] > 0, overlap, 0)

    def _layers(self, x: Tensor, inside: Tensor, state: StreamState, new: StreamState) -> list[Tensor]:
        transformer, squeeze, factor = (
            self.encoder.transformer,
            self.encoder.transformer.squeeze,
            self.encoder.config.squeeze,
        )
        sizes = self.options.left_frames, self.options.chunk_frames, self.options.block_frames
        left, main, frames = (size // factor for size in sizes)
        x = x if transformer.norm_first else transformer.norm(x)
        if squeeze is not None:
            x, inside = squeeze.convolve(x, inside), squeeze.valid(inside, self.options.block_frames)
        there = torch.arange(left, device=x.device) >= left - state["num_left"].unsqueeze(1) // factor
        # A frame past the end sees itself: no NaN.
        own = inside.unsqueeze(1) | torch.eye(frames, dtype=torch.bool, device=x.device)
        mask = torch.cat([there.unsqueeze(1).expand(-1, frames, -1), own], dim=2).unsqueeze(1)
        bias = None
        if transformer.position_bias is not None and self.depth:
            bias = transformer.position_bias(left + frames)[:, left:]
        states, keep = [x], slice(main, main + left)
        for number, layer in enumerate(transformer.layers[: self.depth], start=1):
            names = [f"keys_{number}", f"values_{number}"]
            cache = [state[name] for name in names] if layer.attention is not None else None
            x = layer(x, mask, bias, cache=cache)[0]
            if cache is not None:
                new |= {name: heard[:, :, keep] for name, heard in zip(names, cache)}
            states.append(x)
        if transformer.norms_last and self.runs_all:
            states[-1] = transformer.norm(states[-1])
        states = [hidden[:, :main] for hidden in states]
        return states if squeeze is None else squeeze.expand(states, self.options.chunk_frames, self.runs_all)


def forget(state: StreamState, begins: Tensor) -> StreamState:
    """The state with the rows of streams that begin anew, ``(streams,)`` bool, as they are at first.

    >>> forget({"left": torch.ones(2, 1, 3)}, torch.tensor([True, False]))["left"].sum((1, 2))
    tensor([0., 3.])
    """
    return {name: x.masked_fill(begins.view(-1, *[1] * (x.dim() - 1)), 0) for name, x in state.items()}


def cut(output: EncoderOutput, frames: int) -> EncoderOutput:
    """The first frames of an output."""
    return EncoderOutput(
        output.extractor_features[:, :frames],
        output.projected[:, :frames],
        [None if state is None else state[:, :frames] for state in output.hidden_states],
        output.frame_lengths,
        [prediction[:, :frames] for prediction in output.predictions],
    )


def join(outputs: Sequence[EncoderOutput]) -> EncoderOutput:
    """The frames of successive chunks, of one or more, as one output."""
    return EncoderOutput(
        torch.cat([output.extractor_features for output in outputs], dim=1),
        torch.cat([output.projected for output in outputs], dim=1),
        [torch.cat(states, dim=1) for states in zip(*(output.hidden_states for output in outputs))],
        sum((output.frame_lengths for output in outputs[1:]), outputs[0].frame_lengths),
        [torch.cat(parts, dim=1) for parts in zip(*(output.predictions for output in outputs))],
    )


def require_chunkable(config: EncoderConfig, options: ChunkOptions) -> None:
    """Refuse encoders that cannot be computed in chunks, or not in chunks of these sizes.

    Raises:
        ValueError: naming the part, or the size.

    >>> require_chunkable(EncoderConfig(position_depth=5), ChunkOptions(8))
    Traceback (most recent call last):
    ValueError: position_depth is 5; only encoders with one position convolution can be computed in chunks
    """
    if config.position_depth > 1:
        raise ValueError(
            f"position_depth is {config.position_depth}; only encoders with one position convolution can be computed "
            "in chunks"
        )
    if config.position_batch_norm:
        raise ValueError("a batch norm before the position convolution cannot be computed in chunks")
    if config.attention_reuse:
        raise ValueError(f"layers {config.attention_reuse} reuse attention, which cannot be computed in chunks")
    if config.normalize_waveform and (config.conv_norm == "group" or config.front_padding):
        before = "zeros are put at their ends" if config.front_padding else "group norm"
        raise ValueError(f"waveforms are normalised before {before}, which cannot be computed in chunks")
    if config.squeeze > 1 and config.padding == "reference":
        raise ValueError(
            f"squeeze is {config.squeeze} with padding: reference, which leaves out the last frames of an utterance; "
            "expected padding: masked"
        )
    for name in ("chunk_frames", "left_frames", "look_ahead_frames"):
        if (number := getattr(options, name)) % config.squeeze:
            raise ValueError(
                f"{name} is {number}; expected a multiple of {config.squeeze}, as the encoder joins {config.squeeze} "
                "frames to one"
            )
