"""A step of a stream as an ONNX file: state in, state out, for any number of streams at once.

It takes ``samples`` ``(streams, block_samples)`` float32, ``num_samples`` ``(streams,)`` int64, ``begins``
``(streams,)`` bool and the state, ``state.NAME`` each, and returns hidden states ``(streams, chunk_frames, dim)`` by
their names, ``frame_lengths`` ``(streams,)`` int64, and ``next.NAME`` for each ``state.NAME``: as
:meth:`~robustdistiller.upstream.model.streaming.ChunkedEncoder.step` does. A step moves on by ``hop_samples``; the
samples that two blocks share are kept by the caller. An utterance has ``padding_samples`` zeros at both ends, for
log-mel front ends; for others that number is 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np
import torch
from torch import Tensor, nn

from robustdistiller.upstream.export.check import Deviation, Errors, require_finite
from robustdistiller.upstream.export.graph import FRAME_LENGTHS, exportable
from robustdistiller.upstream.export.onnx_file import write_graph
from robustdistiller.upstream.model.encoder import SpeechEncoder
from robustdistiller.upstream.model.streaming import ChunkedEncoder, ChunkOptions

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_INPUTS = ("samples", "num_samples", "begins")


class StreamNotes(TypedDict):
    """What a reader of the file has to know, see the module's description."""

    chunk_frames: int
    left_frames: int
    look_ahead_frames: int
    hop_samples: int
    block_samples: int
    padding_samples: int
    latency_ms: float


class StreamStep(nn.Module, ABC):
    """What :func:`trace_stream` writes: a module that takes and returns what the module's description says.

    Attributes:
        names: of what it returns before ``frame_lengths``.
        notes: what a reader of the file has to know.
    """

    names: tuple[str, ...]
    notes: StreamNotes

    @abstractmethod
    def initial_state(self, streams: int) -> dict[str, Tensor]:
        """The state of streams of which nothing has been heard: zeros."""


class StreamGraph(StreamStep):
    """:meth:`ChunkedEncoder.step` with tensors in and tensors out.

    Args:
        encoder: copied, in eval mode.
        layers: which hidden states to return, by number, in the upstream's order; ``None`` is all.
        options: what a frame may see.

    >>> from robustdistiller.upstream import EncoderConfig
    >>> graph = StreamGraph(SpeechEncoder(EncoderConfig.tiny()), (2,), ChunkOptions(8))
    >>> block, state = torch.randn(3, graph.notes["block_samples"]), graph.initial_state(3)
    >>> states, lengths, state = graph(block, torch.tensor([2640, 800, 0]), torch.ones(3, dtype=torch.bool), state)
    >>> graph.names, states[0].shape, lengths
    (('layer_2',), torch.Size([3, 8, 16]), tensor([8, 2, 0]))
    """

    def __init__(self, encoder: SpeechEncoder, layers: Sequence[int] | None, options: ChunkOptions):
        super().__init__()
        names, config = encoder.state_names(), encoder.config
        self.layers = tuple(range(len(names)) if layers is None else layers)
        self.names = tuple(names[layer] for layer in self.layers)
        self.predicts, last = max(self.layers) > config.num_layers, min(max(self.layers), config.num_layers)
        self.chunked = ChunkedEncoder(exportable(encoder), options, last)  # each layer that is run has a state
        self.notes = {
            "chunk_frames": options.chunk_frames,
            "left_frames": options.left_frames,
            "look_ahead_frames": options.look_ahead_frames,
            "hop_samples": options.chunk_frames * config.downsample_rate,
            "block_samples": options.block_samples(config),
            "padding_samples": config.front_padding,
            "latency_ms": options.latency_ms(config),
        }

    def initial_state(self, streams: int) -> dict[str, Tensor]:
        """The state of streams of which nothing has been heard: zeros."""
        return self.chunked.initial_state(streams)

    def forward(
        self, samples: Tensor, num_samples: Tensor, begins: Tensor, state: dict[str, Tensor]
    ) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
        """Hidden states, valid frames, and the next state; see :meth:`ChunkedEncoder.step`."""
        output, state = self.chunked.step(samples, num_samples, state, self.predicts, begins)
        # A step keeps every state.
        states = cast("list[Tensor]", output.upstream_states(self.chunked.encoder.config))
        return [states[layer] for layer in self.layers], output.frame_lengths, state


def trace_stream(graph: StreamStep, opset: int) -> onnx.ModelProto:
    """A step as an ONNX model of any number of streams.

    Args:
        graph: a :class:`StreamGraph`, or another step.
        opset: version of ONNX's operators.
    """
    state = graph.initial_state(2)
    samples = torch.zeros(2, graph.notes["block_samples"])
    example = samples, torch.full((2,), samples.shape[1]), torch.ones(2, dtype=torch.bool), state
    streams = {0: torch.export.Dim.DYNAMIC}
    inputs = [*_INPUTS, *(f"state.{name}" for name in state)]
    outputs = [*graph.names, FRAME_LENGTHS, *(f"next.{name}" for name in state)]
    return write_graph(
        graph,
        example,
        opset,
        inputs,
        outputs,
        dynamic_shapes=(streams, streams, streams, dict.fromkeys(state, streams)),
        dimensions=dict.fromkeys([*inputs, *outputs], ("streams",)),
    )


class OnnxStreams:
    """Streams side by side in onnxruntime, each of which may begin anew at any step.

    Args:
        session: of a file that ``robustdistiller export --stream`` wrote.
        streams: how many.

    Attributes:
        names: of what a step returns before the valid frames.
    """

    def __init__(self, session: onnxruntime.InferenceSession, streams: int):
        types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        self.session = session
        self.state = {
            put.name: np.zeros((streams, *put.shape[1:]), types[put.type])
            for put in session.get_inputs()
            if put.name.startswith("state.")
        }
        self.outputs = [put.name for put in session.get_outputs()]
        self.names = tuple(self.outputs[: self.outputs.index(FRAME_LENGTHS)])

    def step(
        self, samples: np.ndarray, num_samples: np.ndarray, begins: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The next chunk of each stream, and how many of its frames are valid; see :meth:`ChunkedEncoder.step`."""
        given = {"samples": samples, "num_samples": num_samples, "begins": begins, **self.state}
        found = dict(zip(self.outputs, self.session.run(None, given)))
        self.state = {name: found[name.replace("state.", "next.", 1)] for name in self.state}
        return [found[name] for name in self.names], found[FRAME_LENGTHS]


@torch.no_grad()
def compare_streams(graph: StreamGraph, session: onnxruntime.InferenceSession, seed: int = 0) -> Deviation:
    """Run two streams in the file, of which the second begins later and twice, beside each utterance alone in torch.

    Raises:
        ExportError: shapes or numbers of frames differ, or a value is not finite.
    """
    chunked, notes = graph.chunked, graph.notes
    hop, size = notes["hop_samples"], notes["block_samples"]
    generator, errors, streams = torch.Generator().manual_seed(seed), Errors(graph.names), OnnxStreams(session, 2)
    # Stream, step of its beginning, samples: chunks are left over, of a single frame too.
    plan = [(0, 0, 6 * hop + 700), (1, 1, 2 * hop + size // 2), (1, 4, 400 + hop)]
    utterances = [torch.randn(1, max(length, size - hop), generator=generator) * 0.1 for _, _, length in plan]
    alone = [
        chunked(waveform, predict=graph.predicts).upstream_states(chunked.encoder.config) for waveform in utterances
    ]
    for step in range(7):
        block, heard = torch.zeros(2, size), torch.zeros(2, dtype=torch.int64)
        begins = torch.zeros(2, dtype=torch.bool)
        places: list[tuple[int, int] | None] = [None, None]  # utterance and chunk of each stream
        for number, ((stream, first, _), waveform) in enumerate(zip(plan, utterances)):
            waveform = nn.functional.pad(waveform, (notes["padding_samples"],) * 2)
            part = waveform[0, (step - first) * hop :][:size] if step >= first else waveform[0, :0]
            if len(part):
                block[stream, : len(part)], heard[stream], places[stream] = part, len(part), (number, step - first)
                begins[stream] |= step == first
        found, frames = streams.step(block.numpy(), heard.numpy(), begins.numpy())
        for stream, place in enumerate(places):
            if place is None:
                continue
            number, chunk = place
            start = chunk * notes["chunk_frames"]
            expected = [alone[number][layer][0, start:][: notes["chunk_frames"]] for layer in graph.layers]
            errors.add(expected, [torch.from_numpy(state[stream, : frames[stream]]) for state in found])
    found, _ = streams.step(np.zeros((2, size), np.float32), np.full(2, size), np.ones(2, bool))
    require_finite(graph.names, [torch.from_numpy(state) for state in found])
    return errors.deviation()
