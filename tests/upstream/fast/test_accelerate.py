"""Accelerated encoders compute what the encoder computes, are frozen, and leave the encoder itself alone."""

import pytest
import torch
from torch import nn

from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.fast import accelerate, window_statistics
from robustdistiller.upstream.fast.segment_extractor import SEGMENT_FRAMES

SHAPE = {"conv_layers": ((24, 10, 5), *((24, 3, 2),) * 4, *((24, 2, 2),) * 2), "embed_dim": 32, "num_layers": 1}
SHAPE |= {"num_heads": 2, "ffn_dim": 48, "position_kernel": 16, "position_groups": 4}
VARIANTS = {
    "group": {},
    "layer": {"conv_norm": "layer", "conv_bias": True, "norm_first": True},
    "biased": {"conv_bias": True},
    "scaled": {"feature_scale": True},
    "pruned": {"conv_layers": ((20, 10, 5), (11, 3, 2), (24, 3, 2), (7, 3, 2), (24, 3, 2), (9, 2, 2), (16, 2, 2))},
    "wide-kernels": {"conv_layers": ((16, 10, 5), (12, 8, 4), (16, 7, 2), (16, 1, 1), (16, 5, 8))},
    "position-stack": {"position_depth": 2},
    "position-batch-norm": {"position_batch_norm": True},
}
LENGTHS = [48000, 25000, 20480, 400]


def make(**options):
    torch.manual_seed(1)
    encoder = SpeechEncoder(EncoderConfig(**{**SHAPE, **options})).eval()
    generator = torch.Generator().manual_seed(2)
    for name, value in encoder.named_parameters():
        if value.dim() == 1 and not name.startswith("transformer.layers"):
            value.data.add_(torch.randn(value.shape, generator=generator) * 0.3)
    return encoder


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def worst_error(encoder, waveforms, lengths):
    ours, theirs = accelerate(encoder)(waveforms, lengths), encoder(waveforms, lengths)
    errors = []
    pairs = [(ours.extractor_features, theirs.extractor_features), *zip(ours.hidden_states, theirs.hidden_states)]
    for a, b in pairs:
        for row, frames in enumerate(ours.frame_lengths.tolist()):
            errors.append(((a[row, :frames] - b[row, :frames]).abs().max() / b[row, :frames].abs().max()).item())
    return max(errors)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["masked", "reference"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_the_encoder(variant, padding):
    encoder, waveforms = make(**VARIANTS[variant], padding=padding), noise(4, 48000)
    lengths = torch.tensor([max(length, encoder.config.receptive_field) for length in LENGTHS])
    waveforms = waveforms.masked_fill(torch.arange(48000) >= lengths[:, None], 0.0)
    assert encoder.num_frames(48000) > 2 * SEGMENT_FRAMES
    assert worst_error(encoder, waveforms, lengths) <= 1e-5


@torch.no_grad()
def test_the_comparison_notices_a_difference(monkeypatch):
    encoder, lengths = make(), torch.tensor([20000])
    wrong = torch.zeros(10).double(), torch.eye(10).double()
    monkeypatch.setattr(window_statistics, "window_moments", lambda *_: wrong)
    assert worst_error(encoder, noise(1, 20000), lengths) > 1e-2


@torch.no_grad()
def test_group_norm_of_speech_like_spectra():
    """Rumble 80 dB above everything else, and an offset: the windows' covariance is close to singular."""
    torch.manual_seed(0)
    conv, norm = nn.Conv1d(1, 64, 10, stride=5), nn.GroupNorm(64, 64)
    t = torch.arange(48000) / 16000
    waveform = 0.5 * torch.sin(2 * torch.pi * 60 * t) + 5e-5 * noise(48000) + 0.1
    weight, bias = window_statistics.fold_norm(waveform, conv, norm)
    folded = nn.functional.conv1d(waveform[None].double(), weight[:, None].double(), bias.double(), stride=5)
    exact = norm.double()(conv.double()(waveform[None, None].double()))[0]
    naive = norm.float()(conv.float()(waveform[None, None]))[0]
    error = (folded - exact).abs().max()
    assert error <= 1e-4 and error <= 3 * (naive - exact).abs().max()


@torch.no_grad()
def test_an_utterance_is_the_same_to_the_last_bit_in_any_batch():
    encoder, waveforms = accelerate(make()), noise(3, 30000)
    batched = encoder(waveforms, torch.tensor([30000, 21000, 9000])).extractor_features
    alone = encoder(waveforms[1:2, :21000]).extractor_features
    assert torch.equal(batched[1, : alone.shape[1]], alone[0])


def test_the_copy_is_frozen_and_the_encoder_is_not():
    encoder, waveforms = make(), noise(1, 8000)
    fast = accelerate(encoder)
    before = fast(waveforms).hidden_states[-1]
    encoder.extractor.layers[3].conv.weight.data[1].zero_()
    assert torch.equal(fast(waveforms).hidden_states[-1], before)
    assert not before.requires_grad and not any(weight.requires_grad for weight in fast.parameters())
    with pytest.raises(ValueError, match="frozen; load the weights before"):
        fast.load_state_dict(encoder.state_dict())
    with pytest.raises(ValueError, match="frozen; train the encoder"):
        fast.train()
    assert not fast.eval().training and accelerate(fast) is fast
    encoder(waveforms).hidden_states[-1].sum().backward()
    assert encoder.extractor.layers[0].conv.weight.grad.abs().sum() > 0


def test_autocast_does_not_round_what_is_accelerated():
    fast, waveforms = accelerate(make()), noise(1, 8000)
    before = fast(waveforms).hidden_states[-1]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(waveforms).hidden_states[-1], before)


def test_random_numbers_are_the_same_with_it_and_without():
    encoder = SpeechEncoder(EncoderConfig.tiny())
    state = torch.get_rng_state()
    accelerate(encoder)
    assert torch.equal(torch.get_rng_state(), state)


def test_only_float32_on_a_cpu():
    with pytest.raises(ValueError, match=r"torch\.float64 on cpu; expected float32 on the CPU"):
        accelerate(make().double())
    with pytest.raises(ValueError, match=r"on meta; expected float32 on the CPU"):
        accelerate(make().to("meta"))


def test_encoders_without_heads_and_with():
    waveforms = noise(1, 8000)
    encoder = make(prediction_layers=(4, 8), prediction_dim=20)
    assert len(accelerate(encoder)(waveforms).predictions) == 2
    encoder.heads = None
    assert accelerate(encoder)(waveforms).predictions == []
