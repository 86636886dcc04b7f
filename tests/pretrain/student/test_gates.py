"""Gates: their distribution, what they do in training, and the term that drives them to the target."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from robustdistiller.common.settings import SettingsError, read
from robustdistiller.common.written import to_plain
from robustdistiller.pretrain.student.pruning import Gates, PruningConfig
from robustdistiller.pretrain.student.pruning.gates import pruned_evenly
from robustdistiller.pretrain.student.pruning.hard_concrete import HardConcrete
from robustdistiller.upstream import EncoderConfig, SpeechEncoder

SHAPE = EncoderConfig(
    conv_layers=((8, 10, 5), (8, 8, 8), (8, 8, 8)),
    embed_dim=24,
    num_layers=2,
    num_heads=4,
    ffn_dim=32,
    position_kernel=8,
    position_groups=4,
    dropout=0.1,
)
ALL_UNITS = ["conv", "heads", "ffn", "attention_layer", "ffn_layer"]


def gated(**settings) -> tuple[SpeechEncoder, Gates]:
    torch.manual_seed(2)
    encoder = SpeechEncoder(SHAPE)
    return encoder, Gates(encoder, PruningConfig(**{"sparsity": 0.4, "units": ALL_UNITS, **settings}))


def numpy_gates(uniform: np.ndarray, log_alpha: np.ndarray, temperature: float, stretch: float) -> np.ndarray:
    """Louizos et al., eq. 10 and 11, with limits -stretch and 1 + stretch."""
    smooth = 1 / (1 + np.exp(-(np.log(uniform) - np.log(1 - uniform) + log_alpha) / temperature))
    return np.minimum(1, np.maximum(0, smooth * ((1 + stretch) - (-stretch)) + (-stretch)))


@pytest.mark.parametrize(("temperature", "stretch"), [(2 / 3, 0.1), (0.4, 0.3)])
def test_drawn_gates(temperature, stretch):
    vector = HardConcrete(500, 0.4, std=2.0, temperature=temperature, stretch=stretch)
    torch.manual_seed(5)
    drawn = vector.sample()
    torch.manual_seed(5)
    uniform = torch.rand(500)
    log_alpha = vector.log_alpha.detach().numpy().astype(np.float64)
    expected = numpy_gates(uniform.double().numpy(), log_alpha, temperature, stretch)
    np.testing.assert_allclose(drawn.detach().numpy(), expected, atol=1e-5)
    assert ((drawn == 0).any() and (drawn == 1).any() and ((drawn > 0) & (drawn < 1)).any()).item()
    # How often a gate is open, against the formula for the probability.
    open_share = np.mean([(vector.sample() > 0).numpy() for _ in range(2000)], axis=0)
    probability = 1 / (1 + np.exp(-(log_alpha - temperature * np.log(stretch / (1 + stretch)))))
    np.testing.assert_allclose(open_share, probability, atol=0.06)
    assert vector.expected().item() == pytest.approx(probability.sum(), rel=1e-5)
    assert vector.any_open().item() == pytest.approx(1)


def test_probability_that_any_gate_is_open():
    vector = HardConcrete(4, 0.9, std=1.0)
    probability = torch.sigmoid(vector.logits()).detach().double()
    assert vector.any_open().item() == pytest.approx(1 - torch.prod(1 - probability).item(), rel=1e-5)
    assert 0.1 < vector.any_open().item() < 0.999


def test_resolved_gates():
    """As many open as expected, the greatest, at the value of DPHuBERT's code."""
    vector = HardConcrete(200, std=2.0)
    gates, log_alpha = vector.resolve(), vector.log_alpha.detach()
    assert int((gates > 0).sum()) == round(vector.expected().item()) < 200
    assert log_alpha[gates > 0].min() > log_alpha[gates == 0].max()
    expected = torch.sigmoid(log_alpha / (2 / 3) * 0.8)
    assert torch.allclose(gates[gates > 0], expected[gates > 0])


def test_the_last_gate_never_closes():
    vector = HardConcrete(5, 0.5, at_least_one=True)
    with torch.no_grad():
        vector.log_alpha.copy_(torch.tensor([-99.0, -20.0, -90.0, -95.0, -99.0]))
    assert (vector.resolve() > 0).tolist() == (vector.sample() > 0).tolist() == [False, True, False, False, False]
    assert vector.expected().item() == pytest.approx(1) and vector.any_open().item() == 1
    vector.at_least_one = False
    assert (vector.resolve() > 0).sum() == (vector.sample() > 0).sum() == 0


def test_initial_gates():
    """DPHuBERT's code starts channels and heads at a drop rate of 0.01 and feed-forward dimensions at 0.5."""
    _, gates = gated()
    start = {kind: layers["0"].log_alpha.mean().item() for kind, layers in gates.vectors.items()}
    assert start["conv"] == pytest.approx(np.log(99), abs=0.02) and start["ffn"] == pytest.approx(0, abs=0.02)
    assert gates.vectors["ffn"]["0"].log_alpha.std().item() == pytest.approx(0.01, rel=0.6)


def test_noise_follows_the_global_generator_and_the_mode():
    encoder, gates = gated()
    encoder.train()
    speech = torch.randn(2, 2000)

    def run(seed):
        torch.manual_seed(seed)
        return encoder(speech).hidden_states[-1]

    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))
    assert gates.training  # the encoder's mode counts
    encoder.eval()
    assert torch.equal(run(1), run(2))
    encoder.train()
    before = run(1)
    encoder(torch.randn(1, 3000))  # what was heard and drawn before leaves no trace
    encoder.eval()(speech)
    assert torch.equal(encoder.train() and run(1), before)
    one, two = (run(1), encoder(speech).hidden_states[-1])  # a second view draws its own
    assert not torch.equal(one, two)


def test_state_dicts():
    encoder, gates = gated()
    kinds = {"conv": 3, "heads": 2, "ffn": 2, "attention_layer": 2, "ffn_layer": 2}
    names = [f"vectors.{kind}.{i}.log_alpha" for kind, number in kinds.items() for i in range(number)]
    assert sorted(gates.state_dict()) == sorted([*names, "multipliers"])
    assert encoder.state_dict().keys() == SpeechEncoder(SHAPE).state_dict().keys()
    assert {id(p) for p in gates.parameters()}.isdisjoint({id(p) for p in encoder.parameters()})


def optimizer_of(encoder, gates):
    return torch.optim.AdamW([{"params": list(encoder.parameters())}, *gates.optimizer_groups()], lr=1e-3)


def train(encoder, gates, optimizer, steps):
    for step in steps:
        torch.manual_seed(1000 + step)
        target = torch.randn(2, 6, 24)
        loss = (encoder(torch.randn(2, 2000)).hidden_states[-1] - target).abs().mean() + gates.penalty(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_resumed_run_repeats_the_noise():
    encoder, gates = gated(ramp_steps=4)
    optimizer = optimizer_of(encoder, gates)
    train(encoder.train(), gates, optimizer, range(3))
    saved = copy.deepcopy([encoder.state_dict(), gates.state_dict(), optimizer.state_dict()])
    train(encoder, gates, optimizer, range(3, 6))

    other, its_gates = gated(ramp_steps=4)
    its_optimizer = optimizer_of(other, its_gates)
    for thing, state in zip((other, its_gates, its_optimizer), saved):
        thing.load_state_dict(state)
    train(other.train(), its_gates, its_optimizer, range(3, 6))
    for one, two in ((encoder, other), (gates, its_gates)):
        assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_the_distillation_loss_reaches_every_vector_of_gates():
    encoder, gates = gated(initial_drop_rate=0.3)
    encoder.train()
    torch.manual_seed(0)
    for _ in range(5):
        encoder(torch.randn(4, 4000)).hidden_states[-1].abs().mean().backward()
    silent = [name for name, value in gates.vectors.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == [] and gates.multipliers.grad is None


def test_gates_in_lower_precision():
    encoder, gates = gated()
    with torch.autocast("cpu", torch.bfloat16):
        output = encoder.train()(torch.randn(2, 2000))
        plain = SpeechEncoder(SHAPE).train()(torch.randn(2, 2000))
        penalty = gates.penalty(9999)
    assert [s.dtype for s in output.hidden_states] == [s.dtype for s in plain.hidden_states]
    assert output.extractor_features.dtype == plain.extractor_features.dtype == torch.bfloat16
    (output.hidden_states[-1].float().mean() + penalty).backward()
    assert all(value.grad.isfinite().all() for value in gates.parameters() if value.grad is not None)


def test_a_closed_layer_gives_finite_gradients():
    encoder, gates = gated()
    with torch.no_grad():
        for vector in gates.vectors.parameters():
            vector.fill_(-30)
    output = encoder.train()(torch.randn(2, 2000)).hidden_states[-1].square().mean()
    (output + gates.penalty(9999)).backward()
    parameters = [*encoder.parameters(), *gates.parameters()]
    assert all(value.grad.isfinite().all() for value in parameters if value.grad is not None)


def test_recomputed_layers_take_the_gates_of_their_own_pass():
    """Two views, then one backward pass that computes the layers of both again."""

    def gradients(recompute):
        encoder, gates = gated(initial_drop_rate=0.3)
        encoder.train().transformer.recompute_layers = recompute
        torch.manual_seed(6)
        speech = torch.randn(2, 2, 2000)
        one, two = encoder(speech[0]).hidden_states[-1], encoder(speech[1]).hidden_states[-1]
        (one - two).square().mean().backward()
        return {name: value.grad for name, value in [*encoder.named_parameters(), *gates.vectors.named_parameters()]}

    plain, again = gradients(False), gradients(True)
    assert plain["heads.0.log_alpha"].any() and plain["transformer.layers.0.up.weight"].any()
    for name, gradient in plain.items():
        assert torch.allclose(gradient, again[name], atol=1e-8), name


def test_a_copy_of_the_encoder_stays_gated():
    encoder, gates = gated(initial_drop_rate=0.6)
    other = copy.deepcopy(encoder).eval()
    encoder.eval()
    speech = torch.randn(1, 2000)
    assert torch.equal(other(speech).hidden_states[-1], encoder(speech).hidden_states[-1])
    before = encoder(speech).hidden_states[-1]
    gates.detach()
    assert not torch.equal(encoder(speech).hidden_states[-1], before)


def test_penalty_against_numpy():
    _, gates = gated(sparsity=0.8, ramp_steps=4)
    assert [gates.target_sparsity(step) for step in range(6)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8])
    for step, (a, b) in enumerate(np.random.default_rng(0).normal(0, 1, (6, 2))):
        with torch.no_grad():
            gates.multipliers.copy_(torch.tensor([a, b]))
        gap = gates.sparsity().item() - gates.target_sparsity(step)
        assert gates.penalty(step).item() == pytest.approx(a * gap + b * gap**2, rel=1e-5)
    assert gated(ramp_steps=0)[1].target_sparsity(0) == 0.4


def test_a_student_is_small_enough_later_than_the_ramp_ends():
    """Best checkpoints of a pruning stage are asked this: by the end of the ramp the sparsity lags behind."""
    _, gates = gated(sparsity=0.6, ramp_steps=50, gate_lr=0.05, multiplier_lr=0.05, units=["conv", "heads", "ffn"])
    optimizer = torch.optim.AdamW(gates.optimizer_groups())
    reached = []
    for step in range(400):
        optimizer.zero_grad()
        gates.penalty(step).backward()
        optimizer.step()
        reached.append(gates.reached(tolerance=0.01))
        assert reached[-1] == (gates.sparsity().item() >= 0.59)
    assert not any(reached[:51]) and any(reached)
    assert gates.reached(tolerance=1.0) and not gates.reached(tolerance=-0.2)


def test_gradient_of_the_penalty():
    """Against finite differences, for some parameters of every vector and both multipliers."""
    _, gates = gated(initial_std=1.0, initial_drop_rate=0.4)
    gates.double()
    with torch.no_grad():
        gates.multipliers.copy_(torch.tensor([-0.7, 2.0]))
    gap = 1 - gates.expected_parameters() / gates.encoder.count_parameters(heads=False) - 0.4
    penalty = gates.multipliers[0] * gap + gates.multipliers[1] * gap**2
    assert gates.penalty(9999).item() == pytest.approx(penalty.item(), rel=1e-5)
    penalty.backward()
    for value in gates.parameters():
        for index in range(min(3, len(value))):
            found = []
            for change in (1e-5, -1e-5):
                with torch.no_grad():
                    value[index] += change
                    gap = 1 - gates.expected_parameters() / gates.encoder.count_parameters(heads=False) - 0.4
                    found.append((gates.multipliers[0] * gap + gates.multipliers[1] * gap**2).item())
                    value[index] -= change
            slope = (found[0] - found[1]) / 2e-5
            assert value.grad[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-9) and slope != 0


def test_too_little_sparsity_pushes_gates_down_and_multipliers_up():
    """What one step of the optimizer does, below and above the target."""
    for sparsity, sign in ((0.5, -1), (0.0, 1)):
        _, gates = gated(sparsity=sparsity, units=["conv", "heads", "ffn"], ramp_steps=0)
        before = gates.sparsity().item()
        assert (before < sparsity) == (sign < 0)
        optimizer = torch.optim.AdamW(gates.optimizer_groups(), lr=1.0)
        for _ in range(2):  # in the first step the multipliers are still 0, and only they move
            optimizer.zero_grad()
            gates.penalty(0).backward()
            optimizer.step()
        assert np.sign(gates.multipliers[0].item()) == sign and gates.multipliers[1].item() > 0
        assert np.sign(gates.sparsity().item() - before) == -sign
        for value in gates.vectors.parameters():
            assert (value.grad * sign < 0).all()


def test_the_penalty_alone_reaches_the_target():
    rates = {"gate_lr": 0.05, "multiplier_lr": 0.05}
    _, gates = gated(sparsity=0.6, ramp_steps=50, units=["conv", "heads", "ffn"], **rates)
    optimizer = torch.optim.AdamW(gates.optimizer_groups())
    for step in range(400):
        optimizer.zero_grad()
        gates.penalty(step).backward()
        optimizer.step()
    assert gates.sparsity().item() == pytest.approx(0.6, abs=0.02)
    assert gates.target_sparsity(25) == 0.3


def test_groups_fit_the_optimizer_of_the_rest():
    encoder, gates = gated()
    optimizer = torch.optim.AdamW([{"params": list(encoder.parameters())}, *gates.optimizer_groups()], lr=1e-4)
    rest, vectors, multipliers = optimizer.param_groups
    assert (rest["lr"], vectors["lr"], multipliers["lr"]) == (1e-4, 0.02, 0.02)
    assert (rest["maximize"], vectors["maximize"], multipliers["maximize"]) == (False, False, True)
    assert vectors["weight_decay"] == multipliers["weight_decay"] == 0


def test_settings():
    config = read(PruningConfig, {"sparsity": 0.5, "units": ["heads"]}, "pruning")
    assert read(PruningConfig, to_plain(config)) == config
    for values, message in (
        ({"sparsity": 1.0}, "pruning.sparsity: found 1.0, expected less than 1"),
        ({"units": []}, r"pruning: units is \[\]; expected one or more"),
        ({"units": ["head"]}, "pruning.units"),
        ({"units": ["heads", "heads"]}, "each once"),
        ({"stretch": 0}, "pruning.stretch: found 0, expected more than 0"),
        ({"initial_drop_rate": 1}, "pruning.initial_drop_rate: found 1, expected less than 1"),
        ({"ramp_steps": -1}, "pruning.ramp_steps: found -1, expected at least 0"),
    ):
        with pytest.raises(SettingsError, match=message):
            read(PruningConfig, values, "pruning")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("units", "sparsity"), [(["heads", "ffn"], 0.3), (["ffn"], 0.1), (["heads"], 0.1)])
def test_pruned_alike_in_all_layers_a_student_has_the_size_that_was_asked_for(bias, units, sparsity):
    shape = SHAPE.replace(num_heads=8, ffn_dim=200, relative_position=bias, gated_relative_position=bias)
    encoder = SpeechEncoder(shape)
    pruned = pruned_evenly(encoder, PruningConfig(units, sparsity))
    assert len(set(pruned.heads)) == len(set(pruned.ffn_dims)) == 1
    assert (pruned.heads[0] < 8) == ("heads" in units) and (pruned.ffn_dims[0] < 200) == ("ffn" in units)
    one_unit = 2 * (49 if "ffn" in units else 3 * (4 * 24 + 3)) / encoder.count_parameters()
    left = SpeechEncoder(pruned).count_parameters() / encoder.count_parameters()
    assert left == pytest.approx(1 - sparsity, abs=one_unit)


def test_what_cannot_be_pruned_has_no_shape_either():
    with pytest.raises(SettingsError, match=r"pruning.sparsity: found 0.99, expected at most"):
        pruned_evenly(SpeechEncoder(SHAPE), PruningConfig(["heads", "ffn"], 0.99))


def test_where_other_units_are_pruned_nothing_is_said_of_the_shape():
    with pytest.raises(SettingsError, match=r"found \['conv', 'heads', 'ffn'\], expected heads and ffn alone"):
        pruned_evenly(SpeechEncoder(SHAPE), PruningConfig())
