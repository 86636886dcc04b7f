"""The encoder by itself: padding, short input, early stop, gradients, pruned shapes, parameters, configuration."""

import json

import pytest
import torch

from robustdistiller.upstream import EncoderConfig, SpeechEncoder

MINI = {
    "conv_layers": ((32, 10, 5), *((32, 3, 2),) * 4, *((32, 2, 2),) * 2),
    "embed_dim": 48,
    "num_layers": 3,
    "num_heads": 4,
    "ffn_dim": 64,
    "position_kernel": 16,
    "position_groups": 4,
}


def make(**options):
    torch.manual_seed(1)
    return SpeechEncoder(EncoderConfig(**{**MINI, **options})).eval()


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


VARIANTS = {
    "group": {},
    "layer": {"conv_norm": "layer", "conv_bias": True, "norm_first": True, "normalize_waveform": True},
    "wavlm": {"relative_position": True, "gated_relative_position": True, "num_buckets": 32, "max_distance": 40},
    "student": {"feature_norm": False, "prediction_layers": (4, 8), "prediction_dim": 40},
    "data2vec": {"conv_norm": "layer", "position_depth": 3, "position_kernel": 7},
    "reuse": {"attention_reuse": (1,)},
    "reuse-relative": {"attention_reuse": (1, 2), "relative_position": True, "gated_relative_position": True},
    "batch norm": {"position_batch_norm": True},
    "scaled": {"feature_scale": True, "embed_dim": 32, "projection": True},
}


@pytest.mark.parametrize(
    "shape",
    [
        {"embed_dim": 32},
        {"embed_dim": 32, "norm_first": True},
        {"embed_dim": 32, "front_end": "log_mel", "conv_layers": ((40, 3, 1), (32, 3, 2))},
        {"embed_dim": 32, "position_depth": 2},
        {"embed_dim": 32, "squeeze": 2},
    ],
    ids=["conv", "pre-norm", "log-mel", "data2vec", "squeezed"],
)
def test_digital_silence_has_gradients_in_an_untrained_encoder(shape):
    """Without a projection nothing but the position convolution has a bias before the layers, each with two norms."""
    encoder = make(num_layers=12, **shape)
    last = encoder(torch.zeros(1, 4000)).hidden_states[-1]
    (last * noise(*last.shape)).mean().backward()
    gradients = torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])
    assert not encoder.config.has_projection
    assert gradients.abs().max() < 1e3  # and no NaN


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_batch_equals_single_utterance(variant, training):
    without = {} if not training else {"dropout": 0.0, "attention_dropout": 0.0}
    encoder, lengths = make(**VARIANTS[variant], **without).train(training), [16000, 9999, 800, 12345]
    waveforms = noise(4, 16000)  # padding that is not zero must not matter either
    output = encoder(waveforms, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = encoder(waveforms[row : row + 1, :length])
        frames = alone.projected.shape[1]
        assert output.frame_lengths[row] == frames
        pairs = zip(output.hidden_states + output.predictions, alone.hidden_states + alone.predictions)
        for batched, single in [(output.projected, alone.projected), *pairs]:
            error = (batched[row, :frames] - single[0]).abs().max() / single.abs().max()
            assert error <= 1e-5


@torch.no_grad()
def test_reference_mode_depends_on_the_batch():
    encoder = make(padding="reference")
    waveforms = noise(2, 16000)
    waveforms[1, 8000:] = 0
    batched = encoder(waveforms, torch.tensor([16000, 8000])).projected[1, :24]
    assert (batched - encoder(waveforms[1:, :8000]).projected[0]).abs().max() > 1e-2


@torch.no_grad()
def test_lengths_that_say_nothing_take_the_fast_path():
    encoder, waveforms = make(), noise(2, 4000)
    whole, given = encoder(waveforms), encoder(waveforms, torch.tensor([4000, 4000]))
    assert torch.equal(whole.hidden_states[-1], given.hidden_states[-1])
    assert given.frame_lengths.tolist() == [12, 12]


@torch.no_grad()
def test_fifty_milliseconds():
    output = make()(noise(1, 800))
    assert output.hidden_states[-1].shape == (1, 2, 48) and output.hidden_states[-1].isfinite().all()


@torch.no_grad()
def test_a_single_spectrum_is_heard_alone_as_in_a_batch():
    encoder = make(front_end="log_mel", conv_layers=((32, 3, 2),))
    encoder.extractor.layers[0].norm.bias.normal_()  # all that a norm over time leaves of a single frame
    waveforms, lengths = noise(2, 1600), torch.tensor([1600, 400])
    alone, together = encoder(waveforms[1:, :400]), encoder(waveforms, lengths)
    torch.testing.assert_close(alone.hidden_states[-1][0], together.hidden_states[-1][1, :1], rtol=1e-4, atol=1e-4)


def test_bad_input_is_named():
    encoder = make()
    with pytest.raises(ValueError, match="utterance 1 of the batch has 399 samples; one frame needs at least 400"):
        encoder(noise(2, 800), torch.tensor([800, 399]))
    with pytest.raises(ValueError, match=r"lengths reach 900, but the waveforms have only 800"):
        encoder(noise(1, 800), torch.tensor([900]))
    with pytest.raises(ValueError, match=r"waveforms have shape \(800,\); expected a non-empty \(batch, samples\)"):
        encoder(noise(800))
    with pytest.raises(ValueError, match=r"lengths have shape \(1,\); expected \(2,\)"):
        encoder(noise(2, 800), torch.tensor([800]))
    for layers in ([4], [-1], []):
        with pytest.raises(ValueError, match="expected numbers from 0 to 3, the last layer's"):
            encoder(noise(1, 800), layers=layers)
    with pytest.raises(ValueError, match=r"waveforms are torch\.int16; expected float32"):
        encoder(torch.zeros(1, 800, dtype=torch.int16))


@torch.no_grad()
@pytest.mark.parametrize("norm_first", [False, True])
def test_only_the_layers_asked_for_are_run_and_kept(norm_first):
    encoder, waveforms = make(norm_first=norm_first, prediction_layers=(4,)), noise(1, 4000)
    whole, run = encoder(waveforms), []
    for layer in encoder.transformer.layers:
        layer.register_forward_hook(lambda *_: run.append(1))
    for layers in ((0,), (1,), (0, 2), (3, 1), range(3)):
        run.clear()
        part = encoder(waveforms, layers=layers)
        assert len(run) == max(layers) and len(part.hidden_states) == max(layers) + 1
        assert len(part.predictions) == (max(layers) == 3)
        assert [number for number, state in enumerate(part.hidden_states) if state is not None] == sorted(layers)
        assert all(torch.equal(part.hidden_states[number], whole.hidden_states[number]) for number in layers)
    assert encoder(waveforms, predict=False).predictions == []


def gradient(encoder, lengths=None):
    output = encoder(noise(2, 4000), lengths)
    output.hidden_states[-1].pow(2).sum().backward()
    return encoder.extractor.layers[0].conv.weight.grad


def test_feature_grad_mult_scales_the_extractor_only():
    full, tenth = make(), make(feature_grad_mult=0.1)
    torch.testing.assert_close(gradient(tenth), 0.1 * gradient(full), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(tenth.projection.weight.grad, full.projection.weight.grad)
    assert gradient(make(feature_grad_mult=0.0)) is None


def test_padding_gets_no_gradient_from_valid_frames():
    encoder = make()
    waveforms = noise(2, 4000).requires_grad_()
    encoder(waveforms, torch.tensor([4000, 2000])).hidden_states[-1][1, :5].sum().backward()
    assert waveforms.grad[1, :2000].abs().sum() > 0
    assert waveforms.grad[1, 2000:].abs().sum() == 0 and waveforms.grad[0].abs().sum() == 0


def test_training_keeps_the_number_of_states_under_layerdrop():
    encoder = make(layerdrop=1.0).train()
    states = encoder(noise(1, 4000)).hidden_states
    assert len(states) == 4 and torch.equal(states[0], states[3])


def test_dropout_acts_in_training_only():
    encoder = make(dropout=0.5)
    assert torch.equal(encoder(noise(1, 800)).hidden_states[-1], encoder(noise(1, 800)).hidden_states[-1])
    encoder.train()
    assert not torch.equal(encoder(noise(1, 800)).hidden_states[-1], encoder(noise(1, 800)).hidden_states[-1])


def test_random_initialisation_is_well_scaled():
    """Frames differ and nothing explodes: training can start."""
    state = make(num_layers=6)(noise(2, 16000)).hidden_states[-1]
    assert 0.5 < state.std() < 2 and state.std(dim=1).mean() > 0.1


@torch.no_grad()
def test_reused_attention_is_the_attention_of_the_layer_before():
    """A layer with its neighbour's weights computes what it would with a copy of the neighbour's queries and keys."""
    reuse, full = make(attention_reuse=(1,)), make()
    state = {name: value.clone() for name, value in reuse.state_dict().items()}
    full.load_state_dict(state, strict=False)
    attention = full.transformer.layers[1].attention
    inputs = []
    hook = full.transformer.layers[0].attention.register_forward_hook(lambda module, args, output: inputs.append(args))
    full(noise(1, 4000))
    hook.remove()
    x = inputs[0][0]
    q, k = (
        projection(x).unflatten(-1, (4, 12)).transpose(1, 2)
        for projection in (full.transformer.layers[0].attention.q_proj, full.transformer.layers[0].attention.k_proj)
    )
    weights = (q @ k.transpose(2, 3) / 12**0.5).softmax(-1)
    y = noise(1, x.shape[1], 48, seed=3)
    expected = attention.out_proj((weights @ attention._split(attention.v_proj(y))).transpose(1, 2).flatten(2))
    assert "transformer.layers.1.attention.q_proj.weight" not in reuse.state_dict()
    torch.testing.assert_close(reuse.transformer.layers[1].attention(y, None, None, weights)[0], expected)


@torch.no_grad()
def test_feature_scale_scales_the_features():
    encoder, waveforms = make(feature_scale=True), noise(1, 4000)
    before = encoder(waveforms).extractor_features
    encoder.extractor.scale[3] = 0.5
    after = encoder(waveforms).extractor_features
    assert torch.equal(after[..., 3], before[..., 3] * 0.5) and torch.equal(after[..., 4], before[..., 4])


@torch.no_grad()
def test_pruned_layers_are_a_configuration():
    encoder = make(
        num_heads=(3, 0, 1),
        head_dim=12,
        ffn_dim=(64, 10, 0),
        relative_position=True,
        gated_relative_position=True,
        position_bias_heads=((0, 2, 3), (), (1,)),
    )
    shapes = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    assert shapes["transformer.layers.0.attention.q_proj.weight"] == (36, 48)
    assert shapes["transformer.layers.1.up.weight"] == (10, 48)
    assert shapes["transformer.position_bias.table.weight"] == (320, 4)
    assert "transformer.layers.1.attention.q_proj.weight" not in shapes
    assert "transformer.layers.2.up.weight" not in shapes
    assert encoder(noise(1, 4000)).hidden_states[-1].isfinite().all()


@torch.no_grad()
def test_pruning_a_silent_head_changes_nothing():
    options = {"num_layers": 1, "relative_position": True, "gated_relative_position": True}
    full = make(**options, num_heads=4)
    full.transformer.layers[0].attention.out_proj.weight[:, 12:24] = 0  # head 1 says nothing
    pruned = make(**options, num_heads=3, head_dim=12, position_bias_heads=((0, 2, 3),))
    kept = [i for i in range(48) if not 12 <= i < 24]
    state = full.state_dict()
    for name in ("q_proj", "k_proj", "v_proj"):
        for kind in ("weight", "bias"):
            key = f"transformer.layers.0.attention.{name}.{kind}"
            state[key] = state[key][kept]
    state["transformer.layers.0.attention.out_proj.weight"] = full.transformer.layers[0].attention.out_proj.weight[
        :, kept
    ]
    pruned.load_state_dict(state)
    a, b = (encoder(noise(1, 4000)).hidden_states[-1] for encoder in (full, pruned))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def on_meta(**options):
    with torch.device("meta"):
        return SpeechEncoder(EncoderConfig(**options))


def test_published_parameter_counts():
    student = on_meta(num_layers=2, feature_norm=False, prediction_layers=(4, 8, 12))
    assert student.count_parameters(heads=False) == 23_491_200
    assert student.count_parameters(heads=True) == 27_034_752
    assert student.count_parameters() - student.count_parameters(heads=False) == 3_543_552
    # HuBERT Base has 94,371,712 with its mask embedding; WavLM Base adds the table, the gates and their scales.
    assert on_meta().count_parameters() == 94_371_712 - 768
    wavlm = on_meta(relative_position=True, gated_relative_position=True)
    assert wavlm.count_parameters() == 94_371_712 - 768 + 320 * 12 + 12 * (64 * 8 + 8 + 12)


def test_config_survives_json():
    config = EncoderConfig(**{**MINI, "num_heads": (2, 3, 4), "head_dim": 12, "prediction_layers": (4, 8)})
    assert EncoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_head": 3}, "unknown encoder option 'num_head'; did you mean 'num_heads'"),
        ({"num_heads": 5}, "embed_dim 768 is not divisible by num_heads"),
        ({"num_heads": (12, 12)}, "num_heads lists 2 layers; expected num_layers = 12"),
        ({"num_layers": 2, "num_heads": (12, 6)}, "give head_dim when layers differ"),
        ({"conv_norm": "batch"}, "conv_norm is 'batch'; expected one of"),
        ({"padding": "zeros"}, "padding is 'zeros'; expected one of"),
        ({"dropout": 1.5}, "dropout is 1.5; expected 0 to 1"),
        ({"position_groups": 7}, "embed_dim 768 is not divisible by position_groups 7"),
        ({"conv_layers": ((512, 10),)}, "conv_layers is"),
        ({"relative_position": True, "position_bias_heads": ((0,),)}, "position_bias_heads must list"),
        ({"attention_reuse": (0,)}, "attention_reuse lists layer 0; expected a layer after one with as many heads"),
        ({"attention_reuse": (1,), "layerdrop": 0.1}, "layerdrop is 0.1; expected 0 where attention is reused"),
        ({"projection": False}, "without a projection embed_dim is 768; expected 512, the last conv width"),
        ({"first_state": "none"}, "first_state is 'none'; expected one of"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig.from_dict(options)
