"""The kernels for training compute what the modules compute: values, and the gradient of every weight."""

import pytest
import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.fast import accelerate_training, matrix_extractor
from robustdistiller.upstream.fast.matrix_extractor import MatrixExtractor, _Stack

SHAPE = {"conv_layers": ((24, 10, 5), *((24, 3, 2),) * 4, *((24, 2, 2),) * 2), "embed_dim": 32, "num_layers": 1}
SHAPE |= {"num_heads": 2, "ffn_dim": 48, "position_kernel": 16, "position_groups": 4, "dropout": 0.0}
SHAPE |= {"attention_dropout": 0.0, "feature_grad_mult": 0.3}
VARIANTS = {
    "group": {},
    "biased": {"conv_bias": True},
    "scaled": {"feature_scale": True},
    "pruned": {"conv_layers": ((20, 10, 5), (11, 3, 2), (24, 3, 2), (7, 3, 2), (24, 3, 2), (9, 2, 2), (16, 2, 2))},
    "wide-kernels": {"conv_layers": ((16, 10, 5), (12, 8, 4), (16, 7, 2), (16, 1, 1), (16, 1, 2), (16, 5, 4))},
    "layer": {"conv_norm": "layer", "conv_bias": True},
}
LENGTHS = [16000, 9000, 8250, 700]


def make(**options):
    torch.manual_seed(1)
    encoder = SpeechEncoder(EncoderConfig(**{**SHAPE, **options}))
    generator = torch.Generator().manual_seed(2)
    for value in encoder.parameters():
        if value.dim() == 1:
            value.data.add_(torch.randn(value.shape, generator=generator) * 0.3)
    return encoder


def outcome(encoder, padded):
    """Value and gradients of a sum over the valid frames."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor(LENGTHS if padded else [16000] * 2)
    waveforms = torch.randn(len(lengths), 16000, generator=generator) * 0.1
    output = encoder(waveforms, lengths)
    value = 0.0
    for states in (output.extractor_features, output.hidden_states[0], output.hidden_states[1]):
        weights = torch.randn(states.shape, generator=generator)
        value = value + sum((w[:n] * s[:n]).sum() for w, s, n in zip(weights, states, output.frame_lengths.tolist()))
    encoder.zero_grad()
    value.backward()
    return value.detach(), {name: weight.grad for name, weight in encoder.named_parameters()}


def worst_error(encoder, padded):
    expected, references = outcome(encoder, padded)
    accelerate_training(encoder)
    value, gradients = outcome(encoder, padded)
    errors = [((value - expected) / expected).abs().item()]
    # A norm takes away one of these biases, the softmax the other: without rounding their gradients are zero.
    vanishing = ("layers.0.conv.bias", "k_proj.bias")
    for name, reference in references.items():
        scale = 10.0 if name.endswith(vanishing) else reference.abs().max()
        errors.append(((gradients[name] - reference).abs().max() / scale).item())
    return max(errors)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_the_modules(variant, padded):
    encoder = make(**VARIANTS[variant])
    assert worst_error(encoder, padded) <= 3e-5
    assert isinstance(encoder.extractor, MatrixExtractor) == (variant != "layer")


@pytest.mark.parametrize("part", ["_weight_gradient", "_input_gradient", "_convolve"])
def test_the_comparison_notices_a_difference(part, monkeypatch):
    right = getattr(matrix_extractor, part)
    monkeypatch.setattr(matrix_extractor, part, lambda *arguments: right(*arguments) * 1.01)
    assert worst_error(make(), padded=True) > 2e-3


def test_gradients_are_those_of_finite_differences():
    generator, shapes = torch.Generator().manual_seed(0), ((4, 2), (3, 2), (1, 2))
    sizes = [(3, 4), (3,), (2, 3, 3), (2,), (2, 2, 1), (2,)]
    inputs = [torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_() for size in sizes]
    waveform = torch.randn(30, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda weight, bias, *others: _Stack.apply(waveform, weight, bias, shapes, torch.float64, *others), inputs
    )


def test_half_precision_behind_the_first_layer():
    """What autocast does on a GPU: parameters and their gradients stay in float32."""
    encoder = make(conv_bias=True)
    waveforms = torch.randn(2, 8000, generator=torch.Generator().manual_seed(3)) * 0.1
    extractor = MatrixExtractor(encoder.extractor)
    exact = extractor(waveforms)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = extractor(waveforms)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.03, rtol=0.03)
    results = []
    for features in (exact, rounded):
        encoder.zero_grad()
        features.float().square().mean().backward()
        results.append([weight.grad for weight in encoder.extractor.parameters()])
    for reference, found in zip(*results):
        assert found.dtype == torch.float32
        assert (found - reference).norm() <= 0.05 * reference.norm() + 1e-6
