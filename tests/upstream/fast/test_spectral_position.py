"""The position convolution by spectra: the sum itself within rounding, forwards and backwards, whatever the lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustdistiller.upstream import EncoderConfig, SpeechEncoder, load_encoder
from robustdistiller.upstream.fast import accelerate, accelerate_training
from robustdistiller.upstream.fast import spectral_position as spectral
from robustdistiller.upstream.fast.spectral_position import SpectralPosition
from robustdistiller.upstream.model.position import PositionalConv

POOLED = {"squeeze": 2, "squeeze_by": "pool"}


def make(kernel: int = 128, **options) -> PositionalConv:
    torch.manual_seed(0)
    position = PositionalConv(EncoderConfig(embed_dim=48, position_kernel=kernel, position_groups=4, **options))
    torch.nn.init.normal_(position.conv.bias)
    return position


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def refuse_the_sum(monkeypatch) -> None:
    def refused(*_):
        raise AssertionError("the sum was computed")

    monkeypatch.setattr(PositionalConv, "_around", refused)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [64, 95, 128])
@pytest.mark.parametrize("options", [{}, POOLED, {"position_batch_norm": True}], ids=["plain", "pooled", "batch norm"])
@pytest.mark.parametrize("frames", [40, 129, 130, 258, 777])
def test_equal_to_the_sum(kernel, options, frames, monkeypatch) -> None:
    position = make(kernel, **options)
    x = noise(3, frames, 48)
    valid = torch.arange(frames) < torch.tensor([frames, frames // 2, 1])[:, None]
    x = x.masked_fill(~valid.unsqueeze(-1), 0.0)
    expected, exact = position(x, valid), position.double()(x.double(), valid)
    position.float()
    frozen = SpectralPosition(position, frozen=True)
    refuse_the_sum(monkeypatch)
    found = frozen(x, valid)
    assert found.shape == expected.shape
    assert (found - exact).abs().max() <= max(4 * (expected - exact).abs().max(), 3e-6)


@torch.no_grad()
def test_a_loud_channel_does_not_reach_other_groups() -> None:
    position, x = make(), noise(1, 400, 48)
    x[:, :, 0] *= 1e4
    found, expected = SpectralPosition(position, frozen=True)(x), position(x)
    assert (found - expected)[..., 12:].abs().max() < 1e-5
    assert (found - expected)[..., :12].abs().max() < 1e-5 * expected.abs().max()


def test_gradients_are_those_of_the_sum(monkeypatch) -> None:
    position, x, weight = make(), noise(4, 401, 48).requires_grad_(), noise(4, 401, 48, seed=2)
    names = ["x", *dict(position.named_parameters())]

    def gradients(of: PositionalConv) -> list[Tensor]:
        return list(torch.autograd.grad((of(x) * weight).sum(), [x, *of.parameters()]))

    expected = gradients(position)
    trained = SpectralPosition(position, frozen=False)
    assert ["x", *dict(trained.named_parameters())] == names
    refuse_the_sum(monkeypatch)
    for name, found, wanted in zip(names, gradients(trained), expected, strict=True):
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max(), name


@torch.no_grad()
@pytest.mark.parametrize(("frozen", "rows", "frames"), [(True, 3, 39), (False, 3, 400)])
def test_where_the_sum_is_quicker_it_is_the_sum(frozen, rows, frames) -> None:
    position, x = make(), noise(rows, frames, 48)
    assert torch.equal(SpectralPosition(position, frozen)(x), position(x))


@torch.no_grad()
def test_in_low_precision_it_is_the_sum() -> None:
    position, x = make(), noise(4, 500, 48)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(SpectralPosition(position, frozen=True)(x), position(x))
    position = position.to(torch.bfloat16)
    assert torch.equal(SpectralPosition(position, frozen=False)(x.bfloat16()), position(x.bfloat16()))


@torch.no_grad()
@pytest.mark.parametrize("model", ["student.ckpt", "teacher.ckpt"])
def test_speech_between_silences_is_heard_as_before(model) -> None:
    """Most of the utterance is digital silence: the rounding of loud stretches must not be seen in it."""
    encoder = load_encoder(Path(__file__).parents[3] / "mini" / "teacher" / model).eval()
    waveforms = torch.zeros(2, 160_000)
    waveforms[0, 50_000:60_000], waveforms[1, :3_000] = 0.3 * noise(10_000), 1e-3 * noise(3_000)
    lengths = torch.tensor([160_000, 90_000])
    found, expected = accelerate(encoder)(waveforms, lengths), encoder(waveforms, lengths)
    for one, other in zip(found.hidden_states, expected.hidden_states):
        assert (one - other).abs().max() < 1e-4 * other.square().mean().sqrt()


def test_a_training_encoder_is_saved_and_frozen_as_any_other(monkeypatch) -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(EncoderConfig(embed_dim=96, num_layers=1, num_heads=4, ffn_dim=96))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    accelerate_training(encoder)
    assert isinstance(encoder.transformer.position, SpectralPosition)
    assert encoder.state_dict().keys() == before.keys()
    with torch.no_grad():
        encoder.transformer.position.conv.parametrizations.weight.original1 *= 2
    waveforms = noise(1, 80_000)
    with torch.no_grad():
        frozen = accelerate(encoder.eval())
        assert torch.allclose(frozen(waveforms).hidden_states[-1], encoder(waveforms).hidden_states[-1], atol=1e-5)
        refuse_the_sum(monkeypatch)
        frozen(waveforms)


def test_the_position_alone_may_be_made_faster() -> None:
    encoder = SpeechEncoder(EncoderConfig(embed_dim=48, num_layers=1, num_heads=4, ffn_dim=48))
    extractor = encoder.extractor
    accelerate_training(encoder, extractor=False)
    assert encoder.extractor is extractor and isinstance(encoder.transformer.position, SpectralPosition)


def test_stacks_and_short_kernels_stay() -> None:
    for options in ({"position_depth": 2}, {"position_kernel": spectral.LEAST_TAPS - 1}):
        encoder = SpeechEncoder(
            EncoderConfig(embed_dim=48, num_layers=1, num_heads=4, ffn_dim=48, position_groups=4, **options)
        )
        accelerate_training(encoder)
        assert type(encoder.transformer.position) is PositionalConv
        assert type(accelerate(encoder).transformer.position) is PositionalConv
