"""Whisper's encoder: equal to transformers', and each utterance's features its own."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor
from transformers.models.whisper import modeling_whisper

from robustdistiller.upstream.pretrained.whisper.checkpoint import read_whisper
from robustdistiller.upstream.pretrained.whisper.config import WhisperConfig
from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder, sinusoids
from robustdistiller.upstream.pretrained.whisper.log_mel import LogMel, mel_filters

LENGTHS = (24077, 16000, 16160, 9311, 8160, 8159, 480, 400)


def speech(*lengths):
    """Waveforms (batch, samples) with loud and quiet stretches, so that the limit below the loudest bin matters."""
    generator = torch.Generator().manual_seed(7)
    waves = torch.randn(len(lengths), max(lengths), generator=generator) * 0.3
    waves[:, ::2] *= 0.5
    waves *= torch.logspace(0, -6, waves.shape[1])
    return waves.masked_fill(torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None], 0.0)


@torch.no_grad()
def their_states(model, mels):
    """transformers' hidden states for log-mel frames of any number, with the positions cut to it."""
    encoder, frames = model.encoder, mels.shape[-1]
    kept, whole = encoder.embed_positions, encoder.config.max_source_positions
    try:
        half = (frames + 1) // 2
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(kept.weight[:half])
        object.__setattr__(encoder.config, "max_source_positions", frames / 2)  # may be half a number
        return encoder(mels, output_hidden_states=True).hidden_states
    finally:
        encoder.embed_positions, encoder.config.max_source_positions = kept, whole


def their_mels(wave, bins=80, **options):
    extractor = WhisperFeatureExtractor(feature_size=bins)
    return extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt", **options)["input_features"]


@pytest.mark.parametrize("bins", [80, 128])
def test_mel_filters_are_theirs(bins):
    theirs = torch.from_numpy(WhisperFeatureExtractor(feature_size=bins).mel_filters.T)
    torch.testing.assert_close(mel_filters(bins), theirs.float(), rtol=1e-5, atol=1e-8)
    assert (mel_filters(bins).sum(1) > 0).all()


@pytest.mark.parametrize("bins", [80, 128])
def test_log_mel_is_theirs_for_each_utterance_of_a_batch(bins):
    waves = speech(*LENGTHS)
    found = LogMel(bins)(waves + 5 * (waves == 0), torch.tensor(LENGTHS))  # what lies past the end is not heard
    for row, samples in enumerate(LENGTHS):
        theirs = their_mels(waves[row, :samples], bins, padding=False)[0]
        assert theirs.shape[1] == samples // 160
        torch.testing.assert_close(found[row, :, : samples // 160], theirs, rtol=1e-5, atol=1e-5)
        assert (found[row, :, samples // 160 :] == 0).all()


def test_the_limit_is_that_of_the_utterance():
    waves = speech(16000, 16000)
    waves[1] *= 1e-4
    together = LogMel(80)(waves, torch.tensor([16000, 16000]))
    assert together[1].max() < together[0].max() - 1.5
    assert torch.equal(together[1], LogMel(80)(waves[1:], torch.tensor([16000]))[0])


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_states_are_those_of_transformers(model, folder, padded):
    encoder = read_whisper(folder).build(pad_to_30_s=padded)
    for samples in (16000, 24077, 8160, 480):
        wave = speech(samples)
        found = encoder(wave)
        mels = their_mels(wave[0], **({} if padded else {"padding": False}))
        theirs = their_states(model, mels)
        assert found.frame_lengths.tolist() == [(samples // 160 + 1) // 2] == [found.hidden_states[0].shape[1]]
        assert len(found.hidden_states) == len(theirs) == 4
        for ours, other in zip(found.hidden_states, theirs):
            torch.testing.assert_close(ours, other[:, : ours.shape[1]], rtol=1e-5, atol=1e-5)
        last = model.encoder(mels).last_hidden_state if padded else theirs[-1]
        torch.testing.assert_close(found.hidden_states[-1], last[:, : ours.shape[1]], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_every_parameter_has_a_say(folder):
    encoder, wave = read_whisper(folder).build(), speech(9311)
    before = encoder(wave).hidden_states
    for name, value in [*encoder.named_parameters(), ("positions", encoder.positions)]:
        kept = value.clone()
        value.view(-1)[0] += 0.5
        changed = max((a - b).abs().max() for a, b in zip(before, encoder(wave).hidden_states))
        assert changed > 1e-3, name
        value.copy_(kept)


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_an_utterance_in_a_batch_gets_what_it_gets_alone(folder, padded):
    encoder = read_whisper(folder).build(pad_to_30_s=padded)
    waves, lengths = speech(*LENGTHS), torch.tensor(LENGTHS)
    together = encoder(waves + 5 * (waves == 0), lengths)
    assert together.frame_lengths.tolist() == [(samples // 160 + 1) // 2 for samples in LENGTHS]
    for row, samples in enumerate(LENGTHS):
        alone = encoder(waves[row : row + 1, :samples])
        for batched, own in zip((together.projected, *together.hidden_states), (alone.projected, *alone.hidden_states)):
            frames = own.shape[1]
            assert frames == together.frame_lengths[row]
            torch.testing.assert_close(batched[row, :frames], own[0], rtol=1e-5, atol=1e-5)
    assert all(state.isfinite().all() for state in together.hidden_states)


@torch.no_grad()
def test_padding_to_30_s_is_an_option_that_matters(folder):
    plain, padded, wave = read_whisper(folder).build(), read_whisper(folder).build(pad_to_30_s=True), speech(16000)
    assert (plain(wave).hidden_states[-1] - padded(wave).hidden_states[-1]).abs().max() > 1e-3
    assert padded(wave).hidden_states[-1].shape == plain(wave).hidden_states[-1].shape


@torch.no_grad()
def test_layers_that_are_not_asked_for_are_not_run(folder):
    encoder, wave = read_whisper(folder).build(), speech(8000)
    every = encoder(wave).hidden_states
    encoder.layers[2].forward = None  # cannot be called
    some = encoder(wave, layers=[0, 2]).hidden_states
    assert some[1] is None and len(some) == 3
    assert torch.equal(some[0], every[0]) and torch.equal(some[2], every[2])
    with pytest.raises(ValueError, match=r"layers are \[4\]; expected numbers from 0 to 3"):
        encoder(wave, layers=[4])


@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_long_utterances_are_heard_in_pieces(folder, padded):
    """Positions of 50 frames, one second: pieces of 16000 samples."""
    weights = read_whisper(folder)
    weights.state_dict["positions"] = weights.state_dict["positions"][:50]
    encoder = WhisperEncoder(weights.config.replace(max_frames=50, pad_to_30_s=padded)).eval()
    encoder.load_state_dict(weights.state_dict)
    lengths = (40321, 16000, 32100, 32159, 500)  # the last piece: 8321 samples, none, 100, 159 and none
    waves = speech(*lengths)
    found = encoder(waves + 5 * (waves == 0), torch.tensor(lengths), layers=[0, 3])
    assert found.frame_lengths.tolist() == [(samples // 160 + 1) // 2 for samples in lengths]
    assert found.hidden_states[1] is None and found.hidden_states[3].shape == (5, 126, 24)
    for row, samples in enumerate(lengths):
        pieces = [waves[row : row + 1, start : min(start + 16000, samples)] for start in range(0, samples, 16000)]
        own = torch.cat([encoder(piece).hidden_states[3][0] for piece in pieces if piece.shape[1] >= 400])
        torch.testing.assert_close(found.hidden_states[3][row, : len(own)], own, rtol=1e-5, atol=1e-5)
        assert len(own) == found.frame_lengths[row]


def test_frames_are_counted_as_they_are_made(folder):
    encoder = read_whisper(folder).build()
    for samples in (400, 479, 480, 481, 639, 640, 799, 800, 16000, 16159, 16160, 16319, 16320):
        assert encoder(torch.zeros(1, samples), layers=[0]).hidden_states[0].shape[1] == encoder.num_frames(samples)
    assert encoder.num_frames.__qualname__ == "num_frames"  # goes to other processes without the model


def test_first_centre_is_where_the_first_frame_listens(folder):
    """The gradient of frame 5 is symmetric around sample 5 * 320, in log-mel frames of a signal without its limit."""
    encoder = read_whisper(folder).build()
    wave = torch.full((1, 8000), 1e-3, requires_grad=True)
    with torch.no_grad():
        encoder.conv1.weight.fill_(0.01), encoder.conv2.weight.fill_(0.01)
    encoder(wave + torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) * 0.1).projected[
        0, 5
    ].sum().backward()
    heard = wave.grad[0].abs().nonzero().flatten()
    first, last = heard.min().item(), heard.max().item()
    assert abs((first + last) / 2 - (encoder.first_centre_sample + 5 * encoder.downsample_rate)) <= 1
    assert 1030 <= last - first + 1 <= 1040


def test_sinusoids_are_whispers():
    torch.testing.assert_close(sinusoids(1500, 384), modeling_whisper.sinusoids(1500, 384))


def test_autocast_leaves_the_spectrogram_in_full(folder):
    encoder, wave = read_whisper(folder).build(), speech(8000)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(encoder.log_mel(wave, torch.tensor([8000])), LogMel(80)(wave, torch.tensor([8000])))
        assert encoder(wave).hidden_states[1].isfinite().all()


@pytest.mark.parametrize(
    ("waves", "lengths", "said"),
    [
        (torch.zeros(16000), None, r"shape \(16000,\); expected a non-empty \(batch, samples\)"),
        (torch.zeros(1, 16000, dtype=torch.int16), None, "for int16 divide by 32768"),
        (torch.zeros(2, 16000), [16000], r"lengths have shape \(1,\); expected \(2,\)"),
        (torch.zeros(2, 16000), [16000, 399], "utterance 1 of the batch has 399 samples; one frame needs at least 400"),
        (torch.zeros(1, 16000), [16001], "lengths reach 16001, but the waveforms have 16000 samples"),
    ],
)
def test_bad_input_is_named(waves, lengths, said):
    encoder = WhisperEncoder(WhisperConfig(embed_dim=16, num_layers=1, num_heads=2, ffn_dim=32))
    with pytest.raises(ValueError, match=said):
        encoder(waves, None if lengths is None else torch.tensor(lengths))


@pytest.mark.parametrize(
    "options",
    [
        {"num_heads": 7},
        {"num_layers": 0},
        {"embed_dim": 10**9},
        {"activation": "silu"},
        {"embed_dim": 17, "num_heads": 1},
    ],
)
def test_bad_shapes_are_refused(options):
    with pytest.raises(ValueError, match="configuration"):
        WhisperConfig(**options)


def test_silence_is_finite(folder):
    encoder = read_whisper(folder).build()
    assert all(state.isfinite().all() for state in encoder(torch.zeros(1, 16000)).hidden_states)
    assert np.isclose(encoder.log_mel(torch.zeros(1, 16000), torch.tensor([16000])).unique().numpy(), -1.5).all()
