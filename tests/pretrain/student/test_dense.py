"""The small encoder computes what the gated one does, and its size is what the gates say."""

from __future__ import annotations

import pytest
import torch

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.student.pruning import Gates, PruningConfig
from robustdistiller.pretrain.student.pruning.dense import make_dense
from robustdistiller.pretrain.student.pruning.sizes import ffn_parameters, head_parameters
from robustdistiller.upstream import EncoderConfig, EncoderOutput, SpeechEncoder

SMALL = {
    "conv_layers": ((12, 10, 5), (10, 8, 4), (14, 4, 4), (16, 4, 4)),
    "embed_dim": 24,
    "num_layers": 3,
    "num_heads": 4,
    "ffn_dim": 20,
    "position_kernel": 8,
    "position_groups": 4,
}
WAVLM = {"relative_position": True, "gated_relative_position": True, "num_buckets": 16, "max_distance": 30}
LARGE = {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize_waveform": True}
SHAPES = {
    "hubert": {},
    "wavlm": WAVLM,
    "wavlm-large": {**WAVLM, **LARGE},
    "student": {"feature_norm": False, "prediction_layers": (4, 8), "prediction_dim": 10},
    "no-projection": {"embed_dim": 16, "projection": False},
    "reference-padding": {"padding": "reference"},
    "pruned-before": {
        **WAVLM,
        "feature_scale": True,
        "num_heads": (3, 0, 2),
        "head_dim": 6,
        "ffn_dim": (0, 9, 20),
        "position_bias_heads": ((0, 2, 3), (), (1, 3)),
    },
}
LOG_MEL = {"front_end": "log_mel", "conv_layers": ((12, 3, 1), (16, 3, 2)), "conv_norm": "half_group"}
ALL_UNITS = ["conv", "heads", "ffn", "attention_layer", "ffn_layer"]
SAMPLES = (3000, 2100, 1200)
TOLERANCE = 1e-5
OPEN, CLOSED = 30.0, -30.0


def build(**options) -> SpeechEncoder:
    """An encoder in eval mode in which every parameter matters."""
    torch.manual_seed(4)
    encoder = SpeechEncoder(EncoderConfig(**{**SMALL, **options}))
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if value.dim() == 1 or ".gate." in name or "table" in name:
                value.add_(torch.randn(value.shape) * 0.3)
            elif "attention." in name:
                value.mul_(1.5 / (value.std() * value.shape[1] ** 0.5))
            elif "projection" in name:
                value.mul_(10)
    return encoder.eval()


def make_gates(encoder: SpeechEncoder, units=("conv", "heads", "ffn"), seed: int = 0, **settings) -> Gates:
    """Gates some of which are open, some closed and some in between."""
    gates = Gates(encoder, PruningConfig(**{"sparsity": 0.0, "units": list(units), **settings}))
    torch.manual_seed(seed)
    with torch.no_grad():
        for vector in gates.vectors.parameters():
            vector.copy_(torch.randn(vector.shape) * 3)
    return gates


def set_all(gates: Gates, kind: str, layer: int, log_alpha: float) -> None:
    with torch.no_grad():
        gates.vectors[kind][str(layer)].log_alpha.fill_(log_alpha)


def speech() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    lengths = torch.tensor(SAMPLES)
    waveforms = torch.randn(len(SAMPLES), max(SAMPLES), generator=generator) * 0.3
    return waveforms.masked_fill(torch.arange(max(SAMPLES)) >= lengths[:, None], 0.0), lengths


@torch.no_grad()
def run(encoder: SpeechEncoder) -> EncoderOutput:
    return encoder(*speech())


def difference(gated: SpeechEncoder, small: SpeechEncoder) -> float:
    return compare(run(gated), run(small))


def compare(one: EncoderOutput, other: EncoderOutput) -> float:
    """Largest difference over the valid frames of all states and predictions, relative to the largest value of each."""
    kept = one.extractor_features.abs().amax((0, 1)) > 0
    pairs = [(one.extractor_features[..., kept], other.extractor_features), (one.projected, other.projected)]
    pairs += [*zip(one.hidden_states, other.hidden_states), *zip(one.predictions, other.predictions)]
    worst = 0.0
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape and ours.isfinite().all()
        for row, frames in enumerate(one.frame_lengths.tolist()):
            a, b = ours[row, :frames], theirs[row, :frames]
            worst = max(worst, ((a - b).abs().max() / a.abs().max()).item())
    return worst


@pytest.mark.parametrize("units", [["conv"], ["heads"], ["ffn"], ["conv", "heads", "ffn"], ALL_UNITS], ids="+".join)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_small_encoder_equals_the_gated_one(shape, units):
    encoder = build(**SHAPES[shape])
    gates = make_gates(encoder, units)
    small = gates.make_dense()
    assert gates.parameters_after() == small.count_parameters(heads=False) < encoder.count_parameters(heads=False)
    assert difference(encoder, small) <= TOLERANCE
    gates.detach()
    assert difference(encoder, build(**SHAPES[shape])) == 0  # as it was
    assert small.training is False


@pytest.mark.parametrize("squeeze", [1, 2])
def test_what_is_behind_a_log_mel_front_end_is_pruned_alone(squeeze):
    encoder = build(**LOG_MEL, **WAVLM, squeeze=squeeze)
    with pytest.raises(SettingsError, match="leave conv out"):
        make_gates(encoder, ["conv", "ffn"])
    gates = make_gates(encoder, ["heads", "ffn"])
    small = gates.make_dense()
    assert gates.parameters_after() == small.count_parameters(heads=False) < encoder.count_parameters(heads=False)
    assert difference(encoder, small) <= TOLERANCE


@pytest.mark.parametrize("shape", ["hubert", "wavlm", "wavlm-large"])
def test_equality_notices_every_weight(shape):
    """Every weight of the small encoder says something about the gated one: a change in any of them is seen."""
    encoder = build(**SHAPES[shape])
    gates = make_gates(encoder)
    small = gates.make_dense()
    assert "extractor.scale" in small.state_dict()
    expected, unnoticed = run(encoder), []
    assert compare(expected, run(small)) <= TOLERANCE
    for name, weight in small.named_parameters():
        with torch.no_grad():
            kept = weight.clone()
            weight.view(-1)[0] += 0.5
            if compare(expected, run(small)) <= TOLERANCE:
                unnoticed.append(name)
            weight.copy_(kept)
    # A bias on the keys moves all logits of a query alike; position biases and gates of heads that are gone stay.
    allowed = ("k_proj.bias", "gate.scale", "position_bias.table.weight")
    assert [name for name in unnoticed if not name.endswith(allowed)] == []


@pytest.mark.parametrize("shape", ["hubert", "wavlm", "wavlm-large"])
@pytest.mark.parametrize("kind", ["conv", "heads", "ffn"])
def test_equality_needs_the_values_of_open_gates(shape, kind):
    """An open gate is not 1: leaving its value out when units are removed is seen."""
    encoder = build(**SHAPES[shape])
    values = make_gates(encoder, [kind]).resolve()
    ones = {key: (gates > 0).float() for key, gates in values.items()}
    assert difference(encoder, make_dense(encoder, values)) <= TOLERANCE
    assert difference(encoder, make_dense(encoder, ones)) > 100 * TOLERANCE


@pytest.mark.parametrize("shape", ["hubert", "wavlm", "wavlm-large"])
@pytest.mark.parametrize("units", [["conv", "heads", "ffn"], ALL_UNITS], ids="+".join)
def test_parts_that_lose_all_their_units(shape, units):
    encoder = build(**SHAPES[shape])
    gates = make_gates(encoder, units)
    last = len(SMALL["conv_layers"]) - 1
    set_all(gates, "heads", 0, CLOSED)
    set_all(gates, "ffn", 1, CLOSED)
    for layer in (1, last):
        set_all(gates, "conv", layer, CLOSED)
    if "ffn_layer" in units:
        set_all(gates, "ffn_layer", 0, OPEN)
        set_all(gates, "ffn_layer", 2, CLOSED)
        set_all(gates, "attention_layer", 1, OPEN)
        set_all(gates, "attention_layer", 2, CLOSED)
    small = gates.make_dense()
    widths = [layer[0] for layer in small.config.conv_layers]
    assert widths[1] == widths[last] == 1 and small.config.heads[0] == small.config.ffn_dims[1] == 0
    assert (small.config.heads[2] == small.config.ffn_dims[2] == 0) == ("ffn_layer" in units)
    assert not any("layers.0.attention." in name for name in small.state_dict())
    assert difference(encoder, small) <= TOLERANCE
    assert round(gates.expected_parameters().item()) > 0
    assert gates.parameters_after() == small.count_parameters(heads=False)


def test_as_many_channels_left_as_the_transformer_is_wide():
    encoder = build(conv_layers=((12, 10, 5), (10, 8, 4), (30, 16, 16)))
    gates = make_gates(encoder, ["conv"])
    with torch.no_grad():
        gates.vectors["conv"]["2"].log_alpha.copy_(torch.tensor([OPEN] * 24 + [CLOSED] * 6))
    small = gates.make_dense()
    assert small.config.conv_layers[-1][0] == small.config.embed_dim and small.config.has_projection
    assert difference(encoder, small) <= TOLERANCE


def test_without_projection_the_last_channels_stay():
    gates = make_gates(build(**SHAPES["no-projection"]), ["conv"])
    assert list(gates.vectors["conv"]) == ["0", "1", "2"]
    assert gates.make_dense().config.conv_layers[-1][0] == 16


@pytest.mark.parametrize("units", [["conv"], ["heads"], ["ffn"], ["attention_layer"], ["ffn_layer"], ALL_UNITS])
@pytest.mark.parametrize("shape", SHAPES)
def test_expected_parameters_are_exact_where_gates_are_certain(shape, units):
    encoder = build(**SHAPES[shape])
    gates = make_gates(encoder, units, seed=1)
    with torch.no_grad():
        for vector in gates.vectors.parameters():
            vector.copy_(torch.where(vector > 0.5, OPEN, CLOSED))
    small = gates.make_dense()
    assert round(gates.expected_parameters().item(), 3) == small.count_parameters(heads=False)
    for vector in gates.vectors.parameters():
        with torch.no_grad():
            vector.fill_(OPEN)
    scale = small.config.feature_scale and not encoder.config.feature_scale
    expected = encoder.count_parameters(heads=False) + scale * encoder.config.conv_layers[-1][0]
    assert round(gates.expected_parameters().item(), 3) == expected


def test_expected_parameters_are_the_mean_over_drawn_gates():
    encoder = build(**WAVLM, feature_norm=False)
    gates = make_gates(encoder, ALL_UNITS, seed=2)
    with torch.no_grad():
        for vector in gates.vectors.parameters():
            vector.div_(3)
    drawn = []
    for _ in range(150):
        numbers = {key: int((vector.sample() > 0).sum()) for key, vector in gates._by_key.items()}
        drawn.append(gates._count(numbers))
    drawn = torch.tensor(drawn, dtype=torch.float64)
    assert abs(drawn.mean() - gates.expected_parameters().item()) < 4 * drawn.std() / 150**0.5


def test_exact_meets_the_target():
    encoder = build(**WAVLM)
    for sparsity, seed in ((0.3, 0), (0.6, 1)):
        gates = make_gates(encoder, seed=seed, sparsity=sparsity, exact=True)
        target = (1 - sparsity) * encoder.count_parameters()
        rough = make_gates(encoder, seed=seed, sparsity=sparsity).parameters_after()
        small = gates.make_dense()
        assert small.count_parameters() == gates.parameters_after()
        assert abs(small.count_parameters() - target) < 40 < abs(rough - target)  # 49 in a feed-forward dimension
        assert min(layer[0] for layer in small.config.conv_layers) >= 1


def test_exact_is_what_a_validation_measures():
    encoder = build(**WAVLM)
    gates = make_gates(encoder, exact=True, sparsity=0.6)
    for change in (0.0, 0.3):  # as a step does, and averaged weights do
        with torch.no_grad():
            for number, vector in enumerate(gates.vectors.parameters()):
                vector.add_(change * (-1) ** number)
        small = gates.make_dense()
        assert any(
            (gates._by_key[key].resolve() > 0).sum() != (kept > 0).sum() for key, kept in gates.resolve().items()
        )
        assert difference(encoder.eval(), small) <= TOLERANCE
        assert difference(encoder, small) <= TOLERANCE  # not resolved again


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ({}, {"units": ["heads"], "sparsity": 0.9}, r"found 0.9, expected at most 0\.\d+, .* without any heads;"),
        ({}, {"sparsity": 0.999}, "found 0.999, .* without any conv, heads, ffn;"),
        ({"ffn_dim": 0}, {"units": ["ffn"]}, "the encoder has no ffn to prune"),
        ({"num_layers": 0}, {"units": ["heads"]}, "the encoder has no heads to prune"),
        ({"feature_grad_mult": 0.0}, {}, "the conv extractor is frozen"),
        ({"attention_reuse": (1,)}, {}, "layers 2 of the encoder reuse attention weights"),
    ],
)
def test_what_cannot_be_pruned_is_refused(shape, settings, message):
    with pytest.raises(SettingsError, match=message) as refused:
        Gates(build(**shape), PruningConfig(**settings))
    assert isinstance(refused.value, ValueError)


def test_the_reach_is_what_the_smallest_encoder_has():
    encoder = build(**WAVLM)
    gates = make_gates(encoder)
    for vector in gates.vectors.parameters():
        with torch.no_grad():
            vector.fill_(CLOSED)
    reach = 1 - gates.parameters_after() / encoder.count_parameters()
    assert gates.make_dense().count_parameters() == gates.parameters_after()
    Gates(encoder, PruningConfig(sparsity=reach - 1e-6))
    with pytest.raises(SettingsError, match="expected at most"):
        Gates(encoder, PruningConfig(sparsity=reach + 1e-6))


@pytest.mark.parametrize(("relative", "published"), [(False, 23_585_946), (True, 23_586_325)], ids=["hubert", "wavlm"])
def test_published_sizes_are_those_of_the_target(relative, published):
    """DPHuBERT and DPWavLM (https://arxiv.org/abs/2305.17651): Base teachers at sparsity 0.75, and whole units."""
    with torch.device("meta"):
        base = SpeechEncoder(EncoderConfig(relative_position=relative, gated_relative_position=relative))
    before = base.count_parameters()
    assert before == (94_381_168 if relative else 94_370_944)
    assert 1 - published / before == pytest.approx(PruningConfig().sparsity, abs=2e-4)
    shape = base.config
    assert abs(published - before / 4) < head_parameters(shape, 0) / 2  # nearer than by one attention head
    assert head_parameters(shape, 0) == 196_800 and ffn_parameters(shape) == 1537


def test_the_small_encoder_is_the_same_bit_for_bit_whatever_was_drawn_before():
    encoder = build(**WAVLM)
    gates = make_gates(encoder, exact=True, sparsity=0.5)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    small = gates.make_dense()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    run(encoder.train())
    again = gates.make_dense()
    assert again.config == small.config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in small.state_dict().items())


def test_of_equal_gates_the_first_stay():
    encoder = build()
    gates = Gates(encoder, PruningConfig(units=["ffn"], sparsity=0.1, initial_std=0.0, initial_ffn_drop_rate=0.7))
    is_open = gates.resolve()["ffn", 0] > 0
    assert 0 < is_open.sum() < len(is_open)
    assert is_open.tolist() == sorted(is_open.tolist(), reverse=True)
