"""A step of a stream is a function of tensors: many streams at once, compiled, exported, with accelerated kernels."""

from __future__ import annotations

import pytest
import torch

from robustdistiller.upstream import ChunkedEncoder, ChunkOptions, EncoderConfig, SpeechEncoder, Stream, accelerate

SHAPES = {
    "student": {"feature_norm": False, "prediction_layers": (4, 8)},
    "wavlm": {"relative_position": True, "gated_relative_position": True, "num_buckets": 32, "max_distance": 40},
    "large": {"conv_norm": "layer", "norm_first": True, "normalize_waveform": True},
    "25 Hz": {"squeeze": 2},
}
OPTIONS = ChunkOptions(8, 12, 4)


def make(name: str) -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(EncoderConfig.tiny(**SHAPES[name])).eval()


def audio(samples: int, seed: int) -> torch.Tensor:
    # Quiet at first, with an offset: statistics over time change from chunk to chunk.
    level = torch.linspace(0.001, 0.3, samples)
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * level + 0.05


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_streams_side_by_side_are_streams_alone(name):
    chunked = ChunkedEncoder(make(name), OPTIONS)
    waveforms, lengths = torch.stack([audio(16000, seed) for seed in range(3)]), torch.tensor([16000, 9311, 400])
    together = chunked(waveforms, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = chunked(waveforms[row : row + 1, :length])
        frames = int(alone.frame_lengths)
        assert frames == int(together.frame_lengths[row])
        for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(a[row, :frames], b[0, :frames], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_a_step_compiles_whole_and_exports(name):
    chunked = ChunkedEncoder(make(name), OPTIONS)
    size, hop = OPTIONS.block_samples(chunked.encoder.config), 8 * 320
    waveform = audio(size + 2 * hop, seed=1)
    blocks = [waveform[None, start : start + size] for start in (0, hop, 2 * hop)]
    full = torch.tensor([size])
    torch._dynamo.reset()
    compiled = torch.compile(chunked.step, fullgraph=True, backend="eager")

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.chunked = chunked

        def forward(self, samples, num_samples, state):
            return self.chunked.step(samples, num_samples, state)

    exported = torch.export.export(Step(), (blocks[0], full, chunked.initial_state())).module()
    states = [chunked.initial_state() for _ in range(3)]
    for block in blocks:
        outputs = []
        for number, run in enumerate((chunked.step, compiled, exported)):
            output, states[number] = run(block, full, states[number])
            outputs.append(output.hidden_states[-1])
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(outputs[2], outputs[0], rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_an_accelerated_stream_is_the_stream(name):
    encoder, waveform = make(name), audio(12000, seed=2)
    plain, fast = (ChunkedEncoder(one, OPTIONS)(waveform[None]) for one in (encoder, accelerate(encoder)))
    for a, b in zip(fast.hidden_states, plain.hidden_states, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_microphones_give_int16():
    encoder, waveform = make("student"), (audio(12000, seed=3) * 32768).round()
    outputs = []
    for samples in (waveform.to(torch.int16), waveform / 32768, (waveform / 32768).double()):
        stream = Stream(encoder, OPTIONS)
        outputs.append(torch.cat([stream.push(samples).hidden_states[-1], stream.finish().hidden_states[-1]], dim=1))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[1], outputs[2])
    with pytest.raises(ValueError, match=r"samples are torch\.int32; expected int16"):
        Stream(encoder, OPTIONS).push(torch.zeros(10, dtype=torch.int32))
