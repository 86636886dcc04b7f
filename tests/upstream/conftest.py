"""How the tests in this folder compare our encoder with the implementations it replaces, and put modules back."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

LENGTHS = (24077, 16000, 9311)
TOLERANCE = 1e-5


def randomise(model):
    """Give every parameter a say: initialisation leaves norms at 1, biases at 0, frames alike, attention uniform."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() == 1 or any(part in name for part in ("gru_rel", "rel_attn", "grep", "relative")):
                value.add_(torch.randn(value.shape, generator=generator) * 0.3)
            elif "attention" in name or "self_attn" in name:
                value.mul_(1.5 / (value.std() * value.shape[1] ** 0.5))
            elif "feature_projection.projection" in name or "post_extract_proj" in name:
                value.mul_(10)
            elif "embed" in name or "pos_conv" in name:
                value.mul_(3)
        for name, value in model.named_buffers():  # the statistics of a batch norm
            if value.is_floating_point() and "running" in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return model.eval()


def batch(lengths):
    """Waveforms ``(batch, samples)`` of the given lengths, zero past them."""
    generator = torch.Generator().manual_seed(7)
    waveforms = torch.randn(len(lengths), max(lengths), generator=generator) * 0.3
    return waveforms.masked_fill(torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None], 0.0)


def worst_error(ours, theirs, frames):
    """Largest difference over the valid frames of all states, relative to the largest value of each."""
    assert len(ours) == len(theirs)
    worst = 0.0
    for state, reference in zip(ours, theirs):
        for row, count in enumerate(frames):
            a, b = state[row, :count], reference[row, :count]
            assert a.shape == b.shape and a.isfinite().all() and b.isfinite().all()
            worst = max(worst, ((a - b).abs().max() / b.abs().max()).item())
    return worst


@torch.no_grad()
def unnoticed_mutations(encoder, error):
    """Names of parameters of which a change is not noticed by ``error()``."""
    unnoticed = []
    for name, parameter in encoder.named_parameters():
        if name.endswith("k_proj.bias"):
            continue  # a bias on the keys moves all logits of a query alike
        kept = parameter.detach().clone()
        parameter.view(-1)[0] += 0.5
        if error() <= TOLERANCE:
            unnoticed.append(name)
        parameter.copy_(kept)
    return unnoticed


@pytest.fixture
def equality():
    """The functions and constants above, of encoders."""
    torch.manual_seed(0)
    return SimpleNamespace(
        LENGTHS=LENGTHS,
        TOLERANCE=TOLERANCE,
        batch=batch,
        randomise=randomise,
        unnoticed_mutations=unnoticed_mutations,
        worst_error=worst_error,
    )


@pytest.fixture
def module_table() -> Iterator[dict[str, types.ModuleType]]:
    """sys.modules, put back afterwards: what a test registers is gone after it."""
    before = dict(sys.modules)
    yield sys.modules
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.modules.update(before)
