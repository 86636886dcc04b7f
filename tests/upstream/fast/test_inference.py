"""The shortcuts for inference on a CPU compute what the modules compute, and see every change of their weights."""

import copy
import pickle

import pytest
import torch
from torch import nn

from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.fast.inference import Kept, plain_inference
from robustdistiller.upstream.fast.segments import SEGMENT_FRAMES
from robustdistiller.upstream.fast.window_statistics import WindowStatistics

SHAPE = {"conv_layers": ((24, 10, 5), *((24, 3, 2),) * 4, *((24, 2, 2),) * 2), "embed_dim": 32, "num_layers": 1}
SHAPE |= {"num_heads": 2, "ffn_dim": 48, "position_kernel": 16, "position_groups": 4}
VARIANTS = {
    "group": {},
    "layer": {"conv_norm": "layer", "conv_bias": True, "norm_first": True},
    "biased": {"conv_bias": True},
    "scaled": {"feature_scale": True},
    "pruned": {"conv_layers": ((20, 10, 5), (11, 3, 2), (24, 3, 2), (7, 3, 2), (24, 3, 2), (9, 2, 2), (16, 2, 2))},
    "wide-kernels": {"conv_layers": ((16, 10, 5), (12, 8, 4), (16, 7, 2), (16, 1, 1), (16, 5, 8))},
    "odd-position": {"position_kernel": 17},
    "one-group": {"position_groups": 1},
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


def modules_forward(encoder, *arguments):
    """What the modules compute: hooks that do nothing keep the shortcuts away."""
    parts = (*encoder.extractor.layers, *encoder.transformer.position.children())
    hooks = [part.register_forward_hook(lambda *_: None) for part in parts]
    try:
        return encoder(*arguments)
    finally:
        for hook in hooks:
            hook.remove()


def worst_error(encoder, waveforms, lengths):
    ours, theirs = encoder(waveforms, lengths), modules_forward(encoder, waveforms, lengths)
    errors = []
    pairs = [(ours.extractor_features, theirs.extractor_features), *zip(ours.hidden_states, theirs.hidden_states)]
    for a, b in pairs:
        for row, frames in enumerate(ours.frame_lengths.tolist()):
            errors.append(((a[row, :frames] - b[row, :frames]).abs().max() / b[row, :frames].abs().max()).item())
    return max(errors)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["masked", "reference"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_the_modules(variant, padding):
    encoder, waveforms = make(**VARIANTS[variant], padding=padding), noise(4, 48000)
    lengths = torch.tensor([max(length, encoder.config.receptive_field) for length in LENGTHS])
    waveforms = waveforms.masked_fill(torch.arange(48000) >= lengths[:, None], 0.0)
    assert encoder.num_frames(48000) > 2 * SEGMENT_FRAMES
    assert worst_error(encoder, waveforms, lengths) <= 1e-5


@torch.no_grad()
def test_the_comparison_notices_a_difference(monkeypatch):
    encoder, lengths = make(), torch.tensor([20000])
    monkeypatch.setattr(
        WindowStatistics, "of", classmethod(lambda cls, x, k, s: cls(1, torch.zeros(k).double(), torch.eye(k).double()))
    )
    assert worst_error(encoder, noise(1, 20000), lengths) > 1e-2


@torch.no_grad()
def test_group_norm_of_speech_like_spectra():
    """Rumble 80 dB above everything else, and an offset: the windows' covariance is close to singular."""
    torch.manual_seed(0)
    conv, norm = nn.Conv1d(1, 64, 10, stride=5), nn.GroupNorm(64, 64)
    t = torch.arange(48000) / 16000
    waveform = 0.5 * torch.sin(2 * torch.pi * 60 * t) + 5e-5 * noise(48000) + 0.1
    weight, bias = WindowStatistics.of(waveform, 10, 5).fold(conv, norm)
    folded = nn.functional.conv1d(waveform[None].double(), weight[:, None].double(), bias.double(), stride=5)
    exact = norm.double()(conv.double()(waveform[None, None].double()))[0]
    naive = norm.float()(conv.float()(waveform[None, None]))[0]
    error = (folded - exact).abs().max()
    assert error <= 1e-4 and error <= 3 * (naive - exact).abs().max()


@torch.no_grad()
def test_an_utterance_is_the_same_to_the_last_bit_in_any_batch():
    encoder, waveforms = make(), noise(3, 30000)
    batched = encoder(waveforms, torch.tensor([30000, 21000, 9000])).extractor_features
    alone = encoder(waveforms[1:2, :21000]).extractor_features
    assert torch.equal(batched[1, : alone.shape[1]], alone[0])


@torch.no_grad()
def test_every_change_of_a_weight_is_seen():
    encoder, other, waveforms = make(), make(), noise(1, 8000)
    conv = encoder.extractor.layers[3].conv

    def state():
        return encoder(waveforms).hidden_states[0]

    before = state()
    assert torch.equal(before, state())
    conv.weight[0, 0, 0] += 1
    changed = state()
    assert not torch.equal(before, changed)
    encoder.load_state_dict(other.state_dict())
    assert torch.equal(before, state())
    conv.weight.data = conv.weight.data * 2
    assert not torch.equal(before, state())
    conv.weight = nn.Parameter(other.extractor.layers[3].conv.weight.clone())
    assert torch.equal(before, state())
    encoder.transformer.position.conv.parametrizations.weight.original1.mul_(torch.tensor([1.0, -1.0]).repeat(8))
    assert not torch.equal(before, state())


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
def test_updates_of_an_optimizer_are_seen(fused):
    """PyTorch does not count what a fused optimizer writes."""
    encoder, waveforms = make(), noise(2, 8000)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3, fused=fused)
    with torch.no_grad():
        before = encoder(waveforms).hidden_states[-1]
    for weight in encoder.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    with torch.no_grad():
        after = encoder(waveforms).hidden_states[-1]
        fresh = copy.deepcopy(encoder)(waveforms).hidden_states[-1]
    assert torch.equal(after, fresh) and not torch.allclose(after, before, atol=1e-4)


def test_compiled_parts_are_run():
    encoder, waveforms, seen = make(), noise(2, 8000), []
    encoder.extractor.layers[1].compile(backend=lambda graph, inputs: seen.append(graph) or graph.forward)
    with torch.no_grad():
        encoder(waveforms)
    assert len(seen) == 1
    torch._dynamo.reset()


def test_hooks_are_run():
    encoder, waveforms = make(), noise(1, 8000)
    before = encoder(waveforms).extractor_features
    encoder.extractor.layers[2].register_forward_hook(lambda module, inputs, output: output * 0.5)
    assert not torch.allclose(before, encoder(waveforms).extractor_features)


def test_nothing_is_kept_where_gradients_flow():
    encoder, waveforms = make(), noise(1, 8000).requires_grad_()
    encoder(waveforms).hidden_states[1].sum().backward()
    assert waveforms.grad.abs().sum() > 0 and encoder.extractor.layers[0].conv.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert plain_inference(encoder.extractor, waveforms)
        with torch.autocast("cpu", torch.bfloat16):
            assert not plain_inference(encoder.extractor, waveforms)


def test_what_is_kept_is_neither_copied_nor_saved():
    kept, weight, made = Kept(), torch.ones(3), []
    for holder in (kept, kept, copy.deepcopy(kept), pickle.loads(pickle.dumps(kept))):
        holder.get([weight], lambda: made.append(1))
    assert len(made) == 3
    with torch.inference_mode():
        unversioned = torch.ones(3)
    kept.get([unversioned], lambda: made.append(1))
    kept.get([unversioned], lambda: made.append(1))
    assert len(made) == 5
