"""Students: sizes, and where each tensor comes from."""

from __future__ import annotations

import re

import pytest
import torch

from robustdistiller.pretrain import SettingsError, load_config, make_student
from robustdistiller.pretrain.config.schema import StudentConfig
from robustdistiller.pretrain.student.build import build_student, copied_weights, say_origins, with_training_options
from robustdistiller.pretrain.student.pruning.dense import make_dense
from robustdistiller.pretrain.student.pruning.hooks import attach
from robustdistiller.pretrain.student.pruning.sizes import Units, prunable_parameters
from robustdistiller.pretrain.training.build import count_parameters, make_distiller
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

WAVLM_BASE_PLUS = EncoderConfig(relative_position=True, gated_relative_position=True)
SMALL = EncoderConfig(
    conv_layers=((8, 10, 5), (8, 3, 2)),
    embed_dim=16,
    num_layers=4,
    num_heads=4,
    ffn_dim=32,
    position_kernel=8,
    position_groups=4,
    relative_position=True,
    gated_relative_position=True,
    num_buckets=8,
    max_distance=16,
)
WHOLE = StudentConfig(num_layers=3, init="truncated", relative_position="keep")
THIN = {"embed_dim": 8, "num_heads": 2, "ffn_dim": 12}


@pytest.fixture
def teacher() -> SpeechEncoder:
    torch.manual_seed(1)
    model = SpeechEncoder(SMALL).eval()
    with torch.no_grad():  # norms start as ones and zeros, which would hide whether they are copied
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def test_student_of_wavlm_base_plus_has_the_published_size() -> None:
    with torch.device("meta"):
        teacher = SpeechEncoder(WAVLM_BASE_PLUS)
        config = load_config("robustdistiller", ["student.init=random"])
    with torch.device("meta"):
        student = make_student(teacher, StudentConfig(init="random"), (4, 8, 12))
    assert student.count_parameters(heads=False) == 23_491_200
    assert student.count_parameters(heads=True) == 27_034_752
    with torch.device("meta"):
        counts = count_parameters(make_distiller(config, teacher))
    assert counts["student without prediction heads"] == 23_491_200
    assert counts["student with prediction heads"] == 27_034_752
    assert counts["enhancement (training only)"] == 4_862_721


def test_released_initialisation_tensor_by_tensor(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, StudentConfig(), (2, 4))
    theirs = teacher.state_dict()
    copied = {name for name, value in student.state_dict().items() if torch.equal(value, theirs.get(name, value[:0]))}
    new = set(student.state_dict()) - copied
    assert new == {
        "heads.expand.weight",
        "heads.expand.bias",
        "heads.weight",
        "heads.bias",
        "transformer.norm.weight",
        "transformer.norm.bias",
    }
    assert torch.all(student.transformer.norm.weight == 1) and torch.all(student.transformer.norm.bias == 0)
    left_out = {name for name in theirs if name not in student.state_dict() and not _above(name, 2)}
    assert left_out == {
        "feature_norm.weight",
        "feature_norm.bias",
        "transformer.position_bias.table.weight",
        *(f"transformer.layers.{i}.attention.gate.{part}" for i in (0, 1) for part in _GATE),
    }
    assert student.config.activation_dropout == StudentConfig().activation_dropout != teacher.config.activation_dropout


_GATE = ("scale", "linear.weight", "linear.bias")


def _above(name: str, layers: int) -> bool:
    return name.startswith("transformer.layers.") and int(name.split(".")[2]) >= layers


def test_truncated_student_computes_the_teachers_layers(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, WHOLE).eval()
    waveforms = torch.randn(2, 400)
    expected, found = teacher(waveforms).hidden_states, student(waveforms).hidden_states
    for layer in range(4):
        torch.testing.assert_close(found[layer], expected[layer], rtol=0, atol=0)
    plain = make_student(teacher, StudentConfig(num_layers=3)).eval()(waveforms).hidden_states
    assert (plain[1] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("chosen", "sources"), [("every_other", [1, 3]), ((4, 2), [4, 2]), ("first", [1, 2])])
def test_layers_start_from_the_chosen_teacher_layers(teacher: SpeechEncoder, chosen, sources: list[int]) -> None:
    student = make_student(teacher, StudentConfig(source_layers=chosen, relative_position="keep"), (4,))
    theirs, mine = teacher.state_dict(), student.state_dict()
    for layer, source in enumerate(sources):
        for name, value in mine.items():
            if name.startswith(f"transformer.layers.{layer}."):
                origin = name.replace(f"layers.{layer}.", f"layers.{source - 1}.")
                assert torch.equal(value, theirs[origin]), name
    assert torch.equal(mine["transformer.position_bias.table.weight"], theirs["transformer.position_bias.table.weight"])


def test_thin_and_deep_student_keeps_the_extractor_only(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, StudentConfig(num_layers=None, init="truncated", **THIN), (4,))
    assert (student.config.num_layers, student.config.heads) == (4, (2, 2, 2, 2))
    theirs = teacher.state_dict()
    copied = {name for name, value in student.state_dict().items() if torch.equal(value, theirs.get(name, value[:0]))}
    extractor = {name for name in theirs if name.startswith("extractor.")}
    assert extractor <= copied
    # Biases and norms start as zeros and ones everywhere else, the teacher's were moved.
    assert copied <= extractor | {"feature_norm.weight", "feature_norm.bias"}
    prediction = student(torch.randn(1, 400)).predictions[0]
    assert prediction.shape[-1] == teacher.config.embed_dim


def test_fewer_heads_leave_attention_at_random_and_keep_the_rest(teacher: SpeechEncoder) -> None:
    options = StudentConfig(num_heads=2, ffn_dim=8)
    copied = copied_weights(teacher, make_student(teacher, options, (4,)), options)
    in_layers = {
        name.removeprefix("transformer.layers.0.") for name in copied if name.startswith("transformer.layers.0")
    }
    assert in_layers == {
        *("attention_norm.weight", "attention_norm.bias", "ffn_norm.weight", "ffn_norm.bias", "down.bias"),
    }


def test_student_from_a_file_keeps_its_shape_and_fitting_heads(teacher: SpeechEncoder, tmp_path) -> None:
    first = make_student(teacher, StudentConfig(num_layers=1, ffn_dim=20), (2, 4))
    save_checkpoint(tmp_path / "student.ckpt", first, {})
    options = [f"student.checkpoint={tmp_path / 'student.ckpt'}", "student.dropout=0.3"]

    def load(*more: str) -> SpeechEncoder:
        return build_student(load_config("distilhubert", [*options, *more]), teacher)

    again = load("targets.layers=[2,4]")
    assert again.config == first.config.replace(dropout=0.3)
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    other = load("targets.layers=[1,3]")
    assert other.config.prediction_layers == (1, 3)
    assert not torch.equal(other.heads.weight, first.heads.weight)
    assert load("targets.layers=[2,4]", "targets.match=layers").heads is None
    wide = SpeechEncoder(SMALL.replace(embed_dim=2 * SMALL.embed_dim))
    of_wide = build_student(load_config("distilhubert", [*options, "targets.layers=[2,4]"]), wide)
    assert of_wide.config.prediction_dim == wide.config.embed_dim != first.config.prediction_dim
    with pytest.raises(SettingsError, match=r"student.checkpoint: .*absent.ckpt"):
        load("targets.layers=[2,4]", f"student.checkpoint={tmp_path / 'absent.ckpt'}")


def test_an_adopted_student_is_a_copy_of_its_own(teacher: SpeechEncoder) -> None:
    source = SpeechEncoder(SMALL.replace(feature_scale=True, first_state="projected", layerdrop=0.5))
    student = with_training_options(source, StudentConfig(feature_dropout=0.2))
    assert (student.config.feature_dropout, student.config.layerdrop) == (0.2, 0.0)
    assert student.config.first_state == "projected"
    with torch.no_grad():
        student.extractor.scale.add_(1)
    assert (source.extractor.scale == 1).all() and (student.extractor.scale == 2).all()


@pytest.mark.parametrize(
    ("options", "frozen"),
    [
        ({}, set()),
        ({"train_feature_scale": False}, {"extractor.scale"}),
        ({"feature_grad_mult": 0.0}, "extractor."),
    ],
)
def test_what_is_not_trained_gets_no_gradient(options: dict, frozen) -> None:
    options = StudentConfig(**options)
    student = with_training_options(SpeechEncoder(SMALL.replace(feature_scale=True)), options)
    student(torch.randn(1, 400)).hidden_states[-1].square().mean().backward()
    without = {name for name, weight in student.named_parameters() if weight.grad is None}
    names = {name for name, _ in student.named_parameters()}
    assert without == ({name for name in names if name.startswith(frozen)} if isinstance(frozen, str) else frozen)


@pytest.mark.parametrize("given", [None, 0.0, 0.3])
def test_dropout_behind_the_projection(given: float | None) -> None:
    """As set; otherwise as in the teacher's file, which differs between files of one model."""
    student = make_student(SpeechEncoder(SMALL.replace(feature_dropout=0.1)), StudentConfig(feature_dropout=given))
    assert student.feature_dropout.p == (0.1 if given is None else given)


@pytest.mark.parametrize(("given", "first"), [("auto", "layer_input"), ("projected", "projected")])
def test_the_first_state_of_a_student_without_heads(teacher: SpeechEncoder, given: str, first: str) -> None:
    student = make_student(teacher, StudentConfig(init="truncated", first_state=given)).eval()
    assert student.state_names()[0] == first
    output = student(torch.randn(1, 400))
    expected = output.projected if first == "projected" else output.hidden_states[0]
    assert torch.equal(output.upstream_states(student.config)[0], expected)


def test_another_extractor_keeps_its_first_layers_as_far_as_they_are_the_same(teacher: SpeechEncoder) -> None:
    """And a transformer of the same width, but not what is next to the extractor."""
    conv_layers = ((8, 10, 5), (8, 1, 1), (8, 3, 2))
    options = StudentConfig(init="truncated", conv_layers=conv_layers)
    student = make_student(teacher, options)
    copied = copied_weights(teacher, student, options)
    outside = {name for name in copied if not name.startswith("transformer.")}
    assert outside == {name for name in copied if name.startswith("extractor.layers.0.")} != set()
    assert {name for name in student.state_dict() if name.startswith("transformer.")} <= set(copied)


def test_what_starts_at_random_is_the_same_for_the_same_seed(teacher: SpeechEncoder) -> None:
    def built(seed: int) -> dict:
        torch.manual_seed(seed)
        options = StudentConfig(num_layers=None, conv_layers=((8, 10, 5), (6, 3, 2)), **THIN)
        return make_student(teacher, options, (4,)).state_dict()

    one, again, other = built(1), built(1), built(2)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not torch.equal(one["projection.weight"], other["projection.weight"])
    assert torch.equal(one["extractor.layers.0.conv.weight"], teacher.state_dict()["extractor.layers.0.conv.weight"])


def test_students_that_reuse_attention_train_without_queries_there(teacher: SpeechEncoder) -> None:
    options = StudentConfig(num_layers=4, init="truncated", attention_reuse=(2, 4))
    student = make_student(teacher, options)
    assert student.config.attention_reuse == (1, 3)
    assert [hasattr(layer.attention, "q_proj") for layer in student.transformer.layers] == [True, False, True, False]
    student(torch.randn(1, 400)).hidden_states[-1].square().mean().backward()
    assert all(weight.grad is not None for weight in student.parameters())
    copied = copied_weights(teacher, student, options)
    assert "transformer.layers.1.attention.v_proj.weight" in copied


class Listener(torch.nn.Module):
    """A teacher that is no speech encoder."""

    width, num_layers, stride_samples = 64, 3, 320


def test_a_teacher_of_another_kind_gives_depth_and_width() -> None:
    student = make_student(Listener(), StudentConfig(num_layers=None, init="random"), (1, 3))
    shape = student.config
    assert (shape.num_layers, shape.embed_dim, shape.heads, shape.ffn_dim) == (3, 64, (1, 1, 1), 256)
    assert shape.prediction_dim == 64
    with pytest.raises(SettingsError, match=r"student.init: found distilhubert, .* a Listener has no layers"):
        make_student(Listener(), StudentConfig())


def test_random_student_takes_nothing(teacher: SpeechEncoder) -> None:
    torch.manual_seed(2)
    student = make_student(teacher, StudentConfig(init="random"), (2,))
    theirs = teacher.state_dict()
    same = [name for name, value in student.state_dict().items() if name in theirs and torch.equal(value, theirs[name])]
    assert same == []


def test_heads_start_as_in_s3prl(teacher: SpeechEncoder) -> None:
    heads = make_student(teacher, StudentConfig(num_layers=1), (1, 2, 4)).heads
    bound = 16**-0.5
    assert heads.weight.shape == (3, 16, 16) and heads.weight.abs().max() <= bound
    assert heads.weight.abs().max() > 0.9 * bound and heads.bias.abs().max() <= bound


def test_pruned_teacher_shapes_are_followed() -> None:
    shape = SMALL.replace(num_heads=(4, 2, 4, 1), head_dim=4, ffn_dim=(32, 16, 8, 8), relative_position=False)
    shape = shape.replace(gated_relative_position=False)
    student = make_student(SpeechEncoder(shape), StudentConfig(), (4,))
    assert (student.config.heads, student.config.ffn_dims) == ((4, 2), (32, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 3, "source_layers": "every_other"}, "every other of the teacher's 4 layers makes at most 2"),
        ({"num_layers": 2, "source_layers": (1, 5)}, r"a list of 2 teacher layers from 1 to 4, found \[1, 5\]"),
        ({"embed_dim": 18}, "embed_dim 18 is not divisible by"),
        ({"num_layers": 5}, "student.num_layers: found 5, and .* the teacher's first layers makes at most 4"),
        ({"attention_reuse": (1,)}, r"student.attention_reuse: expected layers from 2 to 2, .* found \[1\]"),
        ({"conv_layers": ((8, 10, 5), (8, 3, 4))}, "a frame every 20 samples, expected 10 as the teacher has"),
        ({"conv_layers": "squeezed"}, "a frame every 320 samples, expected 10 as the teacher has"),
    ],
)
def test_what_does_not_fit_is_refused(teacher: SpeechEncoder, options: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_student(teacher, StudentConfig(**options), (2,))


def test_heads_for_layers_that_are_not_there_are_refused(teacher: SpeechEncoder) -> None:
    with pytest.raises(SettingsError, match=r"prediction_layers: the teacher has layers 0 to 4, found \[5\]"):
        make_student(teacher, StudentConfig(), (2, 5))


def test_of_another_front_end_what_lies_behind_it_is_copied_and_said(caplog):
    teacher = SpeechEncoder(EncoderConfig.tiny(num_layers=3))
    options = StudentConfig(num_layers=2, init="truncated", conv_layers="log_mel", squeeze=2)
    with caplog.at_level("INFO"):
        student = make_student(teacher, options)
        say_origins(student, copied_weights(teacher, student, options))
    weights, theirs = student.state_dict(), teacher.state_dict()
    copied = copied_weights(teacher, student, options)
    assert {name.split(".")[0] for name in copied} == {"transformer"}
    assert all(torch.equal(weights[name], theirs[origin]) for name, origin in copied.items())
    assert not any(".squeeze." in name for name in copied) and any(".squeeze." in name for name in weights)
    said = caplog.text
    assert re.search(r"the student starts at random in: extractor.layers.0, .*transformer.squeeze", said)
    assert re.search(r"the student starts as the teacher in: .*transformer.layers.1", said)


def test_log_mel_students_are_pruned_too():
    config = EncoderConfig.tiny(front_end="log_mel", conv_layers=((16, 3, 1), (16, 3, 2)), squeeze=2, projection=True)
    encoder = SpeechEncoder(config).eval()
    gates = {("conv", 0): torch.tensor([1.0, 0.0] * 8), ("heads", 0): torch.tensor([0.0, 1.0])}
    small = make_dense(encoder, gates).eval()
    handles = attach(encoder, lambda: gates)
    waveforms = torch.randn(1, 8000)
    with torch.no_grad():
        expected, found = encoder(waveforms).hidden_states[-1], small(waveforms).hidden_states[-1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    counted = [prunable_parameters(one, Units.of(one)) for one in (config, small.config)]
    assert counted[0] - counted[1] == encoder.count_parameters() - small.count_parameters()
    for handle in handles:
        handle.remove()
