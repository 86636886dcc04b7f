"""Moving averages of weights: the formula, swapping in and out, going on from a saved state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from robustdistiller.pretrain.student.ema import StudentAverage
from robustdistiller.pretrain.student.pruning import Gates, PruningConfig
from robustdistiller.upstream import EncoderConfig, SpeechEncoder


def student() -> SpeechEncoder:
    torch.manual_seed(1)
    return SpeechEncoder(EncoderConfig.tiny())


def train(module: nn.Module, average: StudentAverage, steps: range) -> list[torch.Tensor]:
    """Random steps, each with its own seed; what the first parameter was after each."""
    first, seen = next(module.parameters()), []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        average.update()
        seen.append(first.detach().clone())
    return seen


def test_the_average_is_the_formulas() -> None:
    module = student()
    first, average = next(module.parameters()), StudentAverage(module, decay=0.5)
    expected = first.detach().double()
    for n, value in enumerate(train(module, average, range(20))):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value.double()
    with average.applied():
        torch.testing.assert_close(first.double(), expected, rtol=1e-5, atol=1e-7)
    assert average.num_updates == 20
    assert min(0.5, (1 + 8) / (10 + 8)) == 0.5 > (1 + 7) / (10 + 7)  # both parts of the minimum were used


def test_what_does_not_move_is_its_own_average_bit_for_bit() -> None:
    module = student()
    average = StudentAverage(module, 0.999)
    for _ in range(30):
        average.update()
    assert all(
        torch.equal(value, module.get_parameter(name)) for name, value in average.state_dict()["averages"].items()
    )


def test_without_decay_it_is_the_weights() -> None:
    module = student()
    average = StudentAverage(module, 0.0)
    train(module, average, range(3))
    for name, value in average.state_dict()["averages"].items():
        torch.testing.assert_close(value, module.get_parameter(name), rtol=0, atol=1e-6)


def test_weights_come_back_bit_for_bit_after_an_error_too() -> None:
    module = student().eval()
    average = StudentAverage(module, 0.9)
    train(module, average, range(3))
    before = copy.deepcopy(module.state_dict())
    averages = copy.deepcopy(average.state_dict()["averages"])
    speech = torch.randn(1, 2000)
    raw = module(speech).hidden_states[-1]
    with pytest.raises(KeyError), average.applied():
        inside = {name: value.clone() for name, value in module.state_dict().items() if name in averages}
        smooth = module(speech).hidden_states[-1]
        raise KeyError("in the middle of validation")
    assert all(torch.equal(value, averages[name]) for name, value in inside.items())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(value, averages[name]) for name, value in average.state_dict()["averages"].items())
    assert torch.equal(module(speech).hidden_states[-1], raw) and not torch.equal(raw, smooth)


def test_training_goes_on_after_the_swap() -> None:
    """The optimizer's parameters are the module's still."""
    module = student()
    average, optimizer = StudentAverage(module, 0.9), torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(2):
        module(torch.ones(1, 2000)).hidden_states[-1].square().mean().backward()
        before = module.transformer.layers[0].up.weight.detach().clone()
        optimizer.step()
        average.update()
        with average.applied():
            pass
        assert not torch.equal(module.transformer.layers[0].up.weight, before)


def test_a_saved_average_goes_on_as_if_never_stopped(tmp_path) -> None:
    module = student()
    average = StudentAverage(module, 0.9)
    train(module, average, range(4))
    torch.save([module.state_dict(), average.state_dict()], tmp_path / "saved.ckpt")
    train(module, average, range(4, 9))

    other = student()
    again = StudentAverage(other, 0.9)
    weights, state = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    other.load_state_dict(weights)
    again.load_state_dict(state)
    train(other, again, range(4, 9))
    assert again.num_updates == average.num_updates == 9
    expected = average.state_dict()["averages"]
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict()["averages"].items())


def test_gates_are_averaged_where_they_are_asked_for() -> None:
    encoder = student()
    gates = Gates(encoder, PruningConfig(sparsity=0.3))
    alone = StudentAverage(encoder, 0.9)
    assert not any("log_alpha" in name for name in alone.state_dict()["averages"])
    module = nn.ModuleDict({"student": encoder, "gates": gates})
    average = StudentAverage(module, 0.9)
    opened = gates.parameters_after()
    with torch.no_grad():
        for vector in gates.vectors.parameters():
            vector.fill_(-30.0)
    average.update()
    closed = gates.parameters_after()
    assert closed < opened
    with average.applied():
        assert gates.vectors["ffn"]["0"].log_alpha.mean() > -30
        assert gates.make_dense().count_parameters() == gates.parameters_after()
    assert gates.parameters_after() == closed
