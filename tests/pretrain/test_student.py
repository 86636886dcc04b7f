"""Students: sizes, and where each tensor comes from."""

from __future__ import annotations

import pytest
import torch

from robustdistiller.pretrain import SettingsError, load_config, make_student
from robustdistiller.pretrain.student.build import copied_weights, load_student
from robustdistiller.pretrain.training.build import count_parameters
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

from .conftest import make_distiller

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
        student = make_student(teacher, 2, (4, 8, 12), init="random")
    assert student.count_parameters(heads=False) == 23_491_200
    assert student.count_parameters(heads=True) == 27_034_752
    with torch.device("meta"):
        counts = count_parameters(make_distiller(config, teacher))
    assert counts["student without prediction heads"] == 23_491_200
    assert counts["student with prediction heads"] == 27_034_752
    assert counts["enhancement (training only)"] == 4_862_721


def test_released_initialisation_tensor_by_tensor(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, 2, (2, 4))
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
    assert student.config.activation_dropout == teacher.config.activation_dropout


_GATE = ("scale", "linear.weight", "linear.bias")


def _above(name: str, layers: int) -> bool:
    return name.startswith("transformer.layers.") and int(name.split(".")[2]) >= layers


def test_truncated_student_computes_the_teachers_layers(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, 3, (4,), init="truncated", relative_position="keep").eval()
    waveforms = torch.randn(2, 400)
    expected, found = teacher(waveforms).hidden_states, student(waveforms).hidden_states
    for layer in range(4):
        torch.testing.assert_close(found[layer], expected[layer], rtol=0, atol=0)
    plain = make_student(teacher, 3, (4,)).eval()(waveforms).hidden_states
    assert (plain[1] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("chosen", "sources"), [("every_other", [1, 3]), ((4, 2), [4, 2]), ("first", [1, 2])])
def test_layers_start_from_the_chosen_teacher_layers(teacher: SpeechEncoder, chosen, sources: list[int]) -> None:
    student = make_student(teacher, 2, (4,), source_layers=chosen, relative_position="keep")
    theirs, mine = teacher.state_dict(), student.state_dict()
    for layer, source in enumerate(sources):
        for name, value in mine.items():
            if name.startswith(f"transformer.layers.{layer}."):
                origin = name.replace(f"layers.{layer}.", f"layers.{source - 1}.")
                assert torch.equal(value, theirs[origin]), name
    assert torch.equal(mine["transformer.position_bias.table.weight"], theirs["transformer.position_bias.table.weight"])


def test_thin_and_deep_student_keeps_the_extractor_only(teacher: SpeechEncoder) -> None:
    student = make_student(teacher, None, (4,), init="truncated", embed_dim=8, num_heads=2, ffn_dim=12)
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
    student = make_student(teacher, 2, (4,), num_heads=2, ffn_dim=8)
    copied = copied_weights(teacher, student, [1, 2], with_norm=False)
    in_layers = {
        name.removeprefix("transformer.layers.0.") for name in copied if name.startswith("transformer.layers.0")
    }
    assert in_layers == {
        *("attention_norm.weight", "attention_norm.bias", "ffn_norm.weight", "ffn_norm.bias", "down.bias"),
    }


def test_student_from_a_file_keeps_its_shape_and_fitting_heads(teacher: SpeechEncoder, tmp_path) -> None:
    first = make_student(teacher, 1, (2, 4), ffn_dim=20)
    save_checkpoint(tmp_path / "student.ckpt", first, {})
    again = load_student(str(tmp_path / "student.ckpt"), (2, 4), 16, dropout=0.3)
    assert again.config == first.config.replace(dropout=0.3)
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    other = load_student(str(tmp_path / "student.ckpt"), (1, 3), 16)
    assert other.config.prediction_layers == (1, 3)
    assert not torch.equal(other.heads.weight, first.heads.weight)
    assert load_student(str(tmp_path / "student.ckpt"), (), 16).heads is None


def test_random_student_takes_nothing(teacher: SpeechEncoder) -> None:
    torch.manual_seed(2)
    student = make_student(teacher, 2, (2,), init="random")
    theirs = teacher.state_dict()
    same = [name for name, value in student.state_dict().items() if name in theirs and torch.equal(value, theirs[name])]
    assert same == []


def test_heads_start_as_in_s3prl(teacher: SpeechEncoder) -> None:
    heads = make_student(teacher, 1, (1, 2, 4)).heads
    bound = 16**-0.5
    assert heads.weight.shape == (3, 16, 16) and heads.weight.abs().max() <= bound
    assert heads.weight.abs().max() > 0.9 * bound and heads.bias.abs().max() <= bound


def test_pruned_teacher_shapes_are_followed() -> None:
    shape = SMALL.replace(num_heads=(4, 2, 4, 1), head_dim=4, ffn_dim=(32, 16, 8, 8), relative_position=False)
    shape = shape.replace(gated_relative_position=False)
    student = make_student(SpeechEncoder(shape), 2, (4,))
    assert (student.config.heads, student.config.ffn_dims) == ((4, 2), (32, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prediction_layers": (2, 5)}, r"prediction_layers: the teacher has layers 0 to 4, found \[5\]"),
        ({"num_layers": 3, "source_layers": "every_other"}, "every other of the teacher's 4 layers makes at most 2"),
        ({"num_layers": 2, "source_layers": (1, 5)}, r"a list of 2 teacher layers from 1 to 4, found \(1, 5\)"),
        ({"embed_dim": 18}, "embed_dim 18 is not divisible by"),
        ({"num_layers": 5}, "student.num_layers: found 5, expected 0 to 4"),
        ({"init": "copy"}, "student.init: found 'copy'"),
        ({"relative_position": "maybe"}, "student.relative_position: found 'maybe'"),
    ],
)
def test_what_does_not_fit_is_refused(teacher: SpeechEncoder, options: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_student(teacher, **{"prediction_layers": (2,), **options})
