"""Chunks: the stream gives what the masked whole gives, and no frame sees past its look-ahead."""

import pytest
import torch

from robustdistiller.upstream import (
    ChunkedEncoder,
    ChunkOptions,
    EncoderConfig,
    SpeechEncoder,
    Stream,
    UpstreamExpert,
    save_checkpoint,
)

SHAPE = {"conv_layers": ((24, 10, 5), (24, 3, 2), (24, 7, 4), (24, 9, 8)), "embed_dim": 32, "num_layers": 2}
SHAPE |= {"num_heads": 4, "ffn_dim": 48, "position_kernel": 16, "position_groups": 4}
ENCODERS = {
    "student": {"feature_norm": False, "prediction_layers": (4, 8)},
    "wavlm": {"relative_position": True, "gated_relative_position": True, "num_buckets": 32, "max_distance": 40},
    "large": {"conv_norm": "layer", "norm_first": True, "normalize_waveform": True, "num_heads": (4, 0), "head_dim": 8,
              "position_kernel": 7},
    "25 Hz": {"squeeze": 2, "position_kernel": 7},
    "25 Hz by a convolution": {"squeeze": 2, "squeeze_by": "conv", "expand_by": "repeat", "norm_first": True,
                               "relative_position": True, "num_buckets": 32, "max_distance": 40},
}  # fmt: skip
OPTIONS = [ChunkOptions(8, 12, 3), ChunkOptions(5, 0, 0), ChunkOptions(4, 100, 6), ChunkOptions(200)]


def fitting(options, config):
    """The options with sizes that the encoder's joined frames divide."""
    sizes = options.chunk_frames, options.left_frames, options.look_ahead_frames
    return ChunkOptions(*(-(-size // config.squeeze) * config.squeeze for size in sizes))


def build(name):
    torch.manual_seed(1)
    encoder = SpeechEncoder(EncoderConfig(**{**SHAPE, **ENCODERS[name]})).eval()
    with torch.no_grad():
        for parameter, value in encoder.named_parameters():
            if value.dim() == 1 or "table" in parameter:
                value.add_(torch.randn(value.shape) * 0.3)
            elif "_proj" in parameter:
                value.mul_(5)
    return encoder


def audio(samples, seed=0):
    envelope = torch.linspace(0, 40, samples).sin().abs() + 0.05
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1 * envelope


def listen(stream, waveform, sizes):
    outputs = [stream.push(piece) for piece in waveform.split(sizes)] + [stream.finish()]
    outputs = [output for output in outputs if output is not None]
    return [torch.cat([output.hidden_states[i][0] for output in outputs]) for i in range(len(outputs[0].hidden_states))]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_the_stream_equals_the_masked_whole(name, options):
    encoder, waveform = build(name), audio(24077)
    options = fitting(options, encoder.config)
    whole = ChunkedEncoder(encoder, options)(waveform[None])
    sizes = [399, 1, 7000, 320, 11000]
    streamed = listen(Stream(encoder, options), waveform, [*sizes, len(waveform) - sum(sizes)])
    assert len(streamed[0]) == encoder.num_frames(len(waveform)) == 74
    for ours, theirs in zip(streamed, whole.hidden_states, strict=True):
        torch.testing.assert_close(ours, theirs[0], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["student", "25 Hz", "25 Hz by a convolution"])
@torch.no_grad()
def test_one_chunk_is_the_encoder_itself(name):
    encoder, lengths = build(name), torch.tensor([16000, 9311])  # 49 and 28 frames: the last joined one has one or two
    waveforms = torch.stack([audio(16000), audio(16000, seed=1)])
    expected, found = encoder(waveforms, lengths), ChunkedEncoder(encoder, ChunkOptions(100))(waveforms, lengths)
    assert found.frame_lengths.tolist() == expected.frame_lengths.tolist()
    for ours, theirs in zip(found.upstream_states(encoder.config), expected.upstream_states(encoder.config)):
        for row, count in enumerate(expected.frame_lengths):
            torch.testing.assert_close(ours[row, :count], theirs[row, :count], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_layers_behind_the_last_that_is_asked_for_are_not_run(name):
    encoder, waveform = build(name), audio(16000)
    options = fitting(ChunkOptions(8, 12, 3), encoder.config)
    whole = ChunkedEncoder(encoder, options)(waveform[None])
    encoder.transformer.layers[1].forward = None
    for last in (0, 1):
        chunked = ChunkedEncoder(encoder, options, last)
        output = chunked(waveform[None])
        assert output.predictions == [] and "keys_2" not in chunked.initial_state()
        for ours, theirs in zip(output.hidden_states, whole.hidden_states[: last + 1], strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["wavlm", "25 Hz"])
@torch.no_grad()
def test_a_batch_changes_nothing(name):
    encoder, lengths = build(name), [16000, 9311, 400]
    options = fitting(ChunkOptions(8, 12, 3), encoder.config)
    waveforms = torch.stack([audio(16000, seed) for seed in range(3)])
    together = ChunkedEncoder(encoder, options)(waveforms, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = ChunkedEncoder(encoder, options)(waveforms[row : row + 1, :length]).hidden_states[-1][0]
        torch.testing.assert_close(together.hidden_states[-1][row, : len(alone)], alone, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_nothing_past_the_look_ahead_is_seen(name):
    encoder, waveform = build(name), audio(24000)
    options = fitting(ChunkOptions(8, 12, 3), encoder.config)
    needed = (options.block_frames - 1) * 320 + 400
    changed = waveform.clone()
    changed[needed:] = audio(24000 - needed, seed=9) * 3
    chunked = ChunkedEncoder(encoder, options)
    one, other = (chunked(wave[None]).hidden_states[-1][0] for wave in (waveform, changed))
    torch.testing.assert_close(one[:8], other[:8], rtol=1e-4, atol=2e-5)
    changed[needed - 40] += 5  # the look-ahead itself is seen, up to its last samples
    assert (chunked(changed[None]).hidden_states[-1][0][:8] - one[:8]).abs().max() > 1e-3
    assert options.latency_ms(encoder.config) == 1000 * needed / 16000


@pytest.mark.parametrize("name", ["student", "large"])
@torch.no_grad()
def test_features_are_those_of_the_utterance_so_far(name):
    # By the extractor itself, on the prefix that a chunk and its look-ahead make.
    encoder, waveform = build(name), audio(16000)
    found = ChunkedEncoder(encoder, ChunkOptions(8, 12, 3))(waveform[None]).extractor_features[0]
    for start in (0, 8, 16):
        prefix = waveform[: (start + 11 - 1) * 320 + 400]
        expected = encoder(prefix[None]).extractor_features[0, start : start + 8]
        torch.testing.assert_close(found[start : start + 8], expected, rtol=1e-4, atol=1e-4)
    whole = encoder(waveform[None]).extractor_features[0]
    assert (found[:8] - whole[:8]).abs().max() > 1e-3  # the statistics of the whole utterance are others


@torch.no_grad()
def test_memory_is_bounded():
    encoder = build("student")
    stream = Stream(encoder, ChunkOptions(8, 12, 3))
    for number in range(12):
        stream.push(audio(8000, number))
    assert len(stream.samples) < 11 * 320 + 400
    assert stream.state["keys_1"].shape[2] == 12 and stream.state["left"].shape[1] == 8


def test_the_upstream_hears_chunks_by_its_options(tmp_path):
    encoder, waveform = build("student"), audio(16000)
    save_checkpoint(tmp_path / "student.ckpt", encoder, {})
    upstream = UpstreamExpert(tmp_path / "student.ckpt", chunk_frames=8, left_frames=12, look_ahead_frames=3).eval()
    found = upstream([waveform])["hidden_states"]
    with torch.no_grad():
        expected = ChunkedEncoder(encoder, ChunkOptions(8, 12, 3))(waveform[None]).upstream_states(encoder.config)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[:, :49], theirs, rtol=1e-4, atol=2e-5)
    assert sum(weight.numel() for weight in upstream.parameters()) == encoder.count_parameters()
    with pytest.raises(ValueError, match="cannot be fine-tuned; leave chunk_frames out"):
        upstream.train()([waveform])
    with pytest.raises(ValueError, match="left_frames is for chunks; give chunk_frames, too"):
        UpstreamExpert(tmp_path / "student.ckpt", left_frames=12)


def test_what_cannot_be_done_is_said():
    encoder = build("student")
    with pytest.raises(ValueError, match="chunk_frames is 0; expected a whole number, 1 or more"):
        ChunkOptions(0)
    with pytest.raises(ValueError, match=r"samples have shape \(1, 400\); expected \(samples,\)"):
        Stream(encoder, ChunkOptions(4)).push(torch.zeros(1, 400))
    stream = Stream(encoder, ChunkOptions(4))
    assert stream.finish() is None
    with pytest.raises(ValueError, match="the stream has ended"):
        stream.push(torch.zeros(400))
    with pytest.raises(ValueError, match="the encoder is in training mode, where dropout is drawn; call encoder"):
        Stream(build("student").train(), ChunkOptions(4))
    with pytest.raises(ValueError, match="reuse attention"):
        config = EncoderConfig(**{**SHAPE, "attention_reuse": (1,)})
        Stream(SpeechEncoder(config), ChunkOptions(4))
    with pytest.raises(ValueError, match="look_ahead_frames is 3; expected a multiple of 2, as the encoder joins 2"):
        Stream(build("25 Hz"), ChunkOptions(8, 12, 3))
    with pytest.raises(ValueError, match="padding: reference, which leaves out the last frames"):
        Stream(SpeechEncoder(EncoderConfig(**{**SHAPE, "squeeze": 2, "padding": "reference"})), ChunkOptions(4))
