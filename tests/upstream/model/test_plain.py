"""The forward pass is plain modules: hooks fire, changes of weights are seen, it compiles and exports whole."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder

SHAPES = {
    "group": {},
    "student": {"feature_norm": False, "prediction_layers": (4, 8)},
    "wavlm": {"relative_position": True, "gated_relative_position": True, "num_buckets": 32, "max_distance": 40},
    "large": {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize_waveform": True},
    "pruned": {"num_heads": (2, 0), "head_dim": 8, "ffn_dim": (0, 24), "feature_scale": True},
    "reference": {"padding": "reference", "reference_mask": "block"},
    "stack": {"position_depth": 3, "position_kernel": 5},
    "reuse": {"attention_reuse": (1,)},
}
LENGTHS = torch.tensor([8000, 5000])


def make(name: str = "group") -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder(EncoderConfig.tiny(**SHAPES[name])).eval()


def noise(batch: int = 2, samples: int = 8000) -> torch.Tensor:
    return torch.randn(batch, samples, generator=torch.Generator().manual_seed(1)) * 0.1


def modules_that_run(encoder: SpeechEncoder) -> dict[str, torch.nn.Module]:
    """Every module that is called by name, and not only its parts."""
    containers = (torch.nn.ModuleList, torch.nn.ParameterList)
    return {
        name: module
        for name, module in encoder.named_modules()
        if not isinstance(module, containers) and "parametrizations" not in name
    }


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "padded"])
@pytest.mark.parametrize("name", ["student", "wavlm", "large"])
@pytest.mark.parametrize("gradients", [False, True])
def test_forward_hooks_of_every_module_fire(name, lengths, gradients):
    encoder, called = make(name), []
    modules = modules_that_run(encoder)
    for one, module in modules.items():
        module.register_forward_pre_hook(lambda *_, one=one: called.append(("pre", one)))
        module.register_forward_hook(lambda *_, one=one: called.append(("post", one)))
    with torch.set_grad_enabled(gradients):
        encoder(noise(), lengths)
    # A layer's dropout stands behind both of its parts.
    times = {one: 2 if re.fullmatch(r"transformer\.layers\.\d+\.dropout", one) else 1 for one in modules}
    assert Counter(called) == {(when, one): count for when in ("pre", "post") for one, count in times.items()}


def test_backward_and_global_hooks_fire():
    encoder, backward, seen = make(), [], []
    encoder.extractor.layers[2].conv.register_full_backward_hook(lambda *_: backward.append("conv"))
    encoder.transformer.position.conv.register_full_backward_pre_hook(lambda *_: backward.append("position"))
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    try:
        encoder(noise()).hidden_states[-1].sum().backward()
        with torch.no_grad():
            encoder(noise())
    finally:
        handle.remove()
    assert sorted(backward) == ["conv", "position"]
    convolutions = sum(issubclass(kind, torch.nn.Conv1d) for kind in seen)
    assert convolutions == 2 * (len(encoder.config.conv_layers) + 1)


def pruned(conv: torch.nn.Conv1d) -> None:
    conv.weight.data[1].zero_()


def by_numpy(conv: torch.nn.Conv1d) -> None:
    conv.weight.detach().numpy()[7] *= 2


def by_kernel(conv: torch.nn.Conv1d) -> None:
    conv.weight.grad = torch.ones_like(conv.weight)
    torch.optim.AdamW([conv.weight], lr=0.1, fused=True).step()


def one_number(conv: torch.nn.Conv1d) -> None:
    conv.weight.data.view(-1)[137] += 1.0


@pytest.mark.parametrize("surgery", [pruned, by_numpy, by_kernel, one_number])
@pytest.mark.parametrize("place", ["extractor.layers.3.conv", "extractor.layers.0.conv"])
def test_weight_surgery_of_any_kind_is_seen_at_once(surgery, place):
    encoder = make()
    with torch.no_grad():
        before = encoder(noise()).hidden_states[-1]
    surgery(encoder.get_submodule(place))
    with torch.no_grad():
        after = encoder(noise()).hidden_states[-1]
        fresh = SpeechEncoder(encoder.config).eval()
        fresh.load_state_dict(encoder.state_dict())
        assert torch.equal(after, fresh(noise()).hidden_states[-1]) and not torch.equal(after, before)


@pytest.mark.parametrize("name", SHAPES)
def test_compiles_without_a_graph_break(name):
    encoder = make(name)
    torch._dynamo.reset()
    compiled = torch.compile(encoder, fullgraph=True, backend="eager", dynamic=True)
    for lengths in (LENGTHS, torch.tensor([6000, 8000])):
        waveforms = noise().masked_fill(torch.arange(8000) >= lengths[:, None], 0.0)
        with torch.no_grad():
            ours, theirs = compiled(waveforms, lengths), encoder(waveforms, lengths)
        for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert torch.equal(ours.frame_lengths, theirs.frame_lengths)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", SHAPES)
def test_exports_for_any_batch_and_length(name):
    encoder = make(name)
    free = torch.export.Dim.AUTO
    shapes = {"waveforms": {0: free, 1: free}, "lengths": {0: free}}
    with torch.no_grad():
        program = torch.export.export(encoder, (noise(), LENGTHS), dynamic_shapes=shapes)
        waveforms, lengths = noise(3, 6400), torch.tensor([6400, 3000, 5000])
        waveforms = waveforms.masked_fill(torch.arange(6400) >= lengths[:, None], 0.0)
        ours, theirs = program.module()(waveforms, lengths), encoder(waveforms, lengths)
    for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        for row, frames in enumerate(theirs.frame_lengths.tolist()):
            torch.testing.assert_close(a[row, :frames], b[row, :frames], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_of_a_padded_batch_are_those_of_the_utterances_alone(name):
    if SHAPES[name].get("padding") == "reference":
        pytest.skip("the published implementations let padding leak")
    encoder, waveforms, weights = make(name), noise(), torch.randn(16, generator=torch.Generator().manual_seed(2))

    def gradients(batches) -> list[torch.Tensor]:
        encoder.zero_grad()
        for waves, lengths in batches:
            output = encoder(waves, lengths)
            ends = output.frame_lengths.tolist()
            sum((row[:end] @ weights).square().sum() for row, end in zip(output.hidden_states[-1], ends)).backward()
        return [weight.grad.clone() for weight in encoder.parameters() if weight.grad is not None]

    together = gradients([(waveforms, LENGTHS)])
    apart = gradients([(waveforms[i : i + 1, :end], None) for i, end in enumerate(LENGTHS.tolist())])
    for a, b in zip(together, apart, strict=True):
        assert (a - b).abs().max() <= 2e-4 * b.abs().max() + 1e-6
