"""Encoders of which the weights are in half precision: batches, streams, and what their types may be."""

import pytest
import torch

from robustdistiller.upstream import ChunkOptions, EncoderConfig, SpeechEncoder, Stream
from robustdistiller.upstream.model.encoder import normalize

SHAPES = {
    "group": {},
    "normalised waveform": {"conv_norm": "layer", "norm_first": True, "normalize_waveform": True},
    "log-mel": {"front_end": "log_mel", "conv_layers": ((16, 3, 1), (16, 3, 2))},
    "wavlm": {"relative_position": True, "gated_relative_position": True},
    "25 Hz": {"squeeze": 2},
}
ROUNDING = {torch.float16: 0.02, torch.bfloat16: 0.15}


def pair(shape, dtype):
    """An encoder, and itself in half precision."""
    torch.manual_seed(0)
    encoder = SpeechEncoder(EncoderConfig.tiny(**SHAPES[shape])).eval()
    half = SpeechEncoder(encoder.config).eval()
    half.load_state_dict(encoder.state_dict())
    return encoder, half.to(dtype)


def speech(rows, samples):
    """Noise that is quiet at first: more samples than float16 can count, levels that change."""
    return torch.randn(rows, samples) * torch.linspace(0.01, 0.2, samples)


def assert_close(found, expected, dtype):
    assert found.dtype == dtype and found.isfinite().all()
    assert (found.float() - expected).abs().max() <= ROUNDING[dtype] * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("shape", SHAPES)
def test_batches_are_heard_in_half_precision(shape, dtype):
    encoder, half = pair(shape, dtype)
    waveforms, lengths = speech(2, 80_000), torch.tensor([80_000, 70_001])
    expected, found = encoder(waveforms, lengths), half(waveforms.to(dtype), lengths)
    for row, frames in enumerate(expected.frame_lengths):
        assert_close(found.hidden_states[-1][row, :frames], expected.hidden_states[-1][row, :frames], dtype)


@torch.no_grad()
def test_normalising_counts_all_samples():
    # More than 65504 are infinitely many in float16.
    found = normalize(speech(1, 80_000).half(), torch.tensor([79_999]), eps=1e-5)
    assert found.dtype == torch.float16 and abs(found.float().std() - 1) < 0.01


@torch.no_grad()
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("shape", ["group", "normalised waveform", "log-mel"])
def test_streams_are_heard_in_half_precision(shape, dtype):
    encoder, half = pair(shape, dtype)
    waveform = speech(1, 80_000)[0]
    expected, found = (Stream(one, ChunkOptions(16)).push(waveform).hidden_states[-1] for one in (encoder, half))
    assert_close(found, expected, dtype)


def test_other_types_than_the_weights_are_named():
    encoder, half = pair("group", torch.bfloat16)
    with pytest.raises(ValueError, match=r"torch.float64; expected .* weights: waveforms\.to\(torch\.float32\)"):
        encoder(torch.zeros(1, 800, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"torch.float32; expected .* weights: waveforms\.to\(torch\.bfloat16\)"):
        half(torch.zeros(1, 800))
    with torch.autocast("cpu", torch.bfloat16):  # which makes of them what it needs
        assert encoder(torch.zeros(1, 800, dtype=torch.bfloat16)).hidden_states[-1].isfinite().all()
