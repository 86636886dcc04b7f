"""Front ends and squeezed transformers: frames beside the teacher's, batches, streams, other ways to run them."""

import pytest
import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.fast import accelerate
from robustdistiller.upstream.model.log_mel import LogMel
from robustdistiller.upstream.model.stream import Stream
from robustdistiller.upstream.model.streaming import ChunkedEncoder, ChunkOptions, join

LOG_MEL = {"front_end": "log_mel", "conv_layers": ((16, 3, 1), (16, 3, 2))}
SEW = {"conv_layers": ((8, 10, 5), *((8, 3, 2), (8, 1, 1)) * 4, *((8, 2, 2), (8, 1, 1)) * 2)}
SHAPES = {
    "log-mel": LOG_MEL,
    "log-mel, half": {**LOG_MEL, "conv_norm": "half_group"},
    "log-mel, norms over channels": {**LOG_MEL, "conv_norm": "layer"},
    "log-mel, normalised waveform": {**LOG_MEL, "normalize_waveform": True},
    "SEW's": SEW,
    "pooled": {"squeeze": 2},
    "pooled by three, repeated": {"squeeze": 3, "expand_by": "repeat"},
    "convolved": {"squeeze": 2, "squeeze_by": "conv", "expand_by": "repeat"},
    "pooled, pre-norm": {"squeeze": 2, "norm_first": True},
    "log-mel, pooled, relative positions": {
        **LOG_MEL,
        "squeeze": 2,
        "relative_position": True,
        "gated_relative_position": True,
    },
}
COMPILED = ("log-mel", "log-mel, half", "convolved", "log-mel, pooled, relative positions")
#: Odd and even numbers of frames, down to one; a whole number of hops, one sample less, one more.
LENGTHS = (24077, 16000, 9311, 1040, 1039, 720, 719, 400)


def encoder_of(shape, **more):
    torch.manual_seed(0)
    return SpeechEncoder(EncoderConfig.tiny(**SHAPES[shape], prediction_layers=(4,), **more)).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.randn(len(LENGTHS), max(LENGTHS)) * 0.1, torch.tensor(LENGTHS)  # noise behind the ends, too


@pytest.mark.parametrize("shape", SHAPES)
def test_frames_are_the_teachers_whatever_computes_them(shape):
    encoder, teacher = encoder_of(shape), SpeechEncoder(EncoderConfig.tiny())
    lengths = torch.arange(380, 2500)
    assert encoder.num_frames(lengths).tolist() == teacher.num_frames(lengths).tolist()
    assert encoder.num_frames(16_000) == 49
    assert encoder.first_centre_sample == teacher.first_centre_sample
    assert (encoder.downsample_rate, encoder.config.receptive_field) == (320, 400)


@torch.no_grad()
def test_a_log_mel_frame_lies_around_its_centre():
    encoder = encoder_of("log-mel, norms over channels")
    waveform = torch.zeros(1, 16_000)
    silent = encoder(waveform).extractor_features
    frame = 20
    centre = round(encoder.first_centre_sample + frame * encoder.downsample_rate)
    for sample, heard in ((centre - 519, True), (centre - 521, False), (centre + 519, True), (centre + 522, False)):
        clicked = waveform.clone()
        clicked[0, sample] = 0.9
        differs = (encoder(clicked).extractor_features - silent)[0, frame].abs().max() > 0
        assert differs == heard, sample


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_an_utterance_does_not_depend_on_its_batch(shape, batch):
    encoder, (waveforms, lengths) = encoder_of(shape), batch
    together = encoder(waveforms, lengths)
    for row, length in enumerate(LENGTHS):
        alone = encoder(waveforms[row : row + 1, :length])
        frames = int(together.frame_lengths[row])
        assert alone.projected.shape[1] == frames == (length - 400) // 320 + 1
        found = [together.projected, *together.hidden_states, *together.predictions]
        for one, other in zip(found, [alone.projected, *alone.hidden_states, *alone.predictions]):
            assert other.shape[1] == frames
            torch.testing.assert_close(one[row, :frames], other[0], atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_to_run_it_is_equal(shape, batch):
    encoder, (waveforms, lengths) = encoder_of(shape), batch
    expected, ways = encoder(waveforms, lengths), [accelerate(encoder)]
    if shape in COMPILED:
        torch._dynamo.reset()
        ways.append(torch.compile(encoder, fullgraph=True, backend="eager"))
    for run in ways:
        output = run(waveforms, lengths)
        for row, frames in enumerate(expected.frame_lengths.tolist()):
            for one, other in zip(expected.hidden_states, output.hidden_states):
                torch.testing.assert_close(one[row, :frames], other[row, :frames], atol=1e-4, rtol=0)
    chosen = encoder(waveforms, lengths, layers=(1,), predict=False).hidden_states
    assert chosen[0] is None and torch.equal(chosen[1], expected.hidden_states[1])


@torch.no_grad()
@pytest.mark.parametrize("shape", ["log-mel", "log-mel, half", "log-mel, norms over channels"])
def test_log_mel_streams(shape, batch):
    encoder, (waveforms, lengths) = encoder_of(shape), batch
    options = ChunkOptions(8, look_ahead_frames=2)
    chunked = ChunkedEncoder(encoder, options)(waveforms, lengths)
    whole = encoder(waveforms, lengths)
    if shape == "log-mel, norms over channels":  # nothing in the front end looks further than a frame
        torch.testing.assert_close(chunked.extractor_features[0], whole.extractor_features[0], atol=1e-5, rtol=0)
    in_one = ChunkedEncoder(encoder, ChunkOptions(80))(waveforms, lengths)
    for row, length in enumerate(LENGTHS):
        frames = int(whole.frame_lengths[row])
        torch.testing.assert_close(
            in_one.hidden_states[-1][row, :frames], whole.hidden_states[-1][row, :frames], atol=1e-4, rtol=0
        )
        stream = Stream(encoder, options)
        pieces = [stream.push(piece) for piece in waveforms[row, :length].split(777)]
        joined = join([piece for piece in [*pieces, stream.finish()] if piece is not None])
        torch.testing.assert_close(
            joined.hidden_states[-1][0], chunked.hidden_states[-1][row, :frames], atol=1e-4, rtol=0
        )


@torch.no_grad()
@pytest.mark.parametrize("shape", ["log-mel", "log-mel, half"])
def test_log_mel_features_are_those_of_the_utterance_so_far(shape):
    # By the extractor itself, on the samples that a chunk and its look-ahead are made from.
    encoder, waveform = encoder_of(shape), torch.randn(16_000, generator=torch.Generator().manual_seed(3)) * 0.1
    found = ChunkedEncoder(encoder, ChunkOptions(8, 12, 3))(waveform[None]).extractor_features[0]
    padding = encoder.config.front_padding
    padded = torch.nn.functional.pad(waveform, (padding, padding))
    for start in (0, 8, 16):
        block = padded[: encoder.config.block_samples(start + 11)]
        expected = encoder.extractor(block[None])[0, start : start + 8]
        torch.testing.assert_close(found[start : start + 8], expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_computed_in_chunks_says_so():
    with pytest.raises(ValueError, match="computed in chunks"):
        ChunkedEncoder(encoder_of("log-mel, normalised waveform"), ChunkOptions(8))


@torch.no_grad()
def test_half_of_the_channels_keep_the_mean_spectrum():
    """Of one voice behind two filters: a norm over time makes them one."""
    noise = torch.randn(1, 64_000, generator=torch.Generator().manual_seed(3)) * 0.1
    tilted = torch.nn.functional.conv1d(noise[None], torch.tensor([[[-0.7, 1.0]]]), padding=1)[0, :, :64_000]
    apart = {}
    for shape in ("log-mel", "log-mel, half"):
        extractor = encoder_of(shape).extractor
        first = [extractor.layers[0](extractor.inputs(one)) for one in (noise, tilted)]
        apart[shape] = (first[0] - first[1]).mean(-1).abs()[0]
    assert apart["log-mel"].max() < 0.1 and apart["log-mel, half"][:8].max() < 0.1
    assert apart["log-mel, half"][8:].max() > 0.3


@torch.no_grad()
@pytest.mark.parametrize("shape", ["log-mel", "log-mel, half"])
def test_loudness_is_taken_out_of_log_mel(shape):
    encoder = encoder_of(shape)
    waveform = torch.randn(1, 64_000) * 0.1
    loud, quiet = encoder(waveform).hidden_states[-1], encoder(waveform * 0.1).hidden_states[-1]
    # What is left is the silence at both ends, which no gain makes quieter.
    assert (loud - quiet).square().mean().sqrt() < 0.02 * loud.square().mean().sqrt()


@torch.no_grad()
@pytest.mark.parametrize("shape", ["log-mel", "log-mel, half"])
@pytest.mark.parametrize("samples", [1360, 9311, 16_000])
def test_of_digital_silence_a_norm_over_time_makes_nothing(shape, samples):
    """What rounding leaves of a mean differs by place and runtime, and would come out hundreds of times as large."""
    extractor = encoder_of(shape).extractor
    extractor.layers[0].conv.weight *= 10  # as of a trained one, it is many times what is left of it
    features = extractor(torch.zeros(2, samples), torch.tensor([samples, 1360]))
    assert torch.equal(features[:, :1].expand_as(features[:, :2]), features[:, :2])
    torch.testing.assert_close(features[0], features[1, :1].expand_as(features[0]), atol=1e-6, rtol=0)


def test_spectra_are_those_of_an_fft():
    waveform = torch.randn(2, 4000, dtype=torch.float64)
    log_mel = LogMel(80)
    power = torch.stft(
        waveform, 400, 160, window=torch.hann_window(400, dtype=torch.float64), center=False, return_complex=True
    )
    expected = ((log_mel.filters.double() @ power.abs().square()) / 1e-9 + 1).log() / 4.5
    torch.testing.assert_close(log_mel(waveform.float()), expected.float(), atol=1e-4, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(log_mel(waveform.float()), expected.float(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_states_are_repeated_and_the_last_is_mapped():
    encoder = encoder_of("pooled")
    states = encoder(torch.randn(1, 16_000)).hidden_states
    assert all(state.shape == (1, 49, 16) for state in states)
    assert torch.equal(states[1][:, 0:48:2], states[1][:, 1:49:2])
    assert not torch.equal(states[-1][:, 0:48:2], states[-1][:, 1:49:2])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"front_end": "mel"}, "front_end is 'mel'"),
        ({"front_end": "log_mel"}, "expected odd ones on a log-mel spectrum"),
        ({"conv_norm": "half_group"}, "expected it on a log-mel spectrum only"),
        ({**LOG_MEL, "conv_norm": "half_group", "conv_layers": ((15, 3, 2),)}, "expected an even number to halve"),
        ({"squeeze": 2, "position_depth": 5}, "expected 1 with a stack"),
        ({"squeeze": 2, "norm_first": True, "last_state_normed": False}, "last_state_normed"),
        ({"squeeze": 0}, "squeeze is 0"),
    ],
)
def test_contradictions_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        EncoderConfig(**options)
