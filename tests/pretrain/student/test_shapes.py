"""Shapes of students: what the papers publish of their size and work, and what the recipes say."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import torch

from robustdistiller.pretrain import load_config
from robustdistiller.pretrain.config.schema import StudentConfig
from robustdistiller.pretrain.student.pruning.gates import pruned_evenly
from robustdistiller.pretrain.student.shapes import extractor, student_shape
from robustdistiller.upstream import EncoderConfig, SpeechEncoder
from robustdistiller.upstream.model.cost import encoder_cost

BASE = EncoderConfig.hubert_base()
SQUEEZED = {"conv_layers": "squeezed", "num_layers": 12, "init": "random", "feature_norm": True}
REUSED = {"attention_reuse": tuple(range(2, 13, 2)), "num_heads": 12}
#: Settings, whether linear maps to the teacher's width are counted, parameters in millions, MACs in 1e9 if published.
PUBLISHED = {
    "ARMHuBERT-S": ({**REUSED, "embed_dim": 432, "ffn_dim": 816}, True, 22.39, 449.4),
    "ARMHuBERT": ({**REUSED, "embed_dim": 480, "ffn_dim": 864}, True, 26.45, None),
    "MaskHuBERT": ({"num_heads": 12, "embed_dim": 480, "ffn_dim": 640}, True, 26.64, None),
    "STaRHuBERT": ({"num_heads": 8, "embed_dim": 432, "ffn_dim": 976}, False, 22.31, 463.5),
}
TEACHER_MACS = 1669.0  # of HuBERT Base in the same tables, in 1e9


def shape_of(options: dict, teacher: EncoderConfig = BASE) -> EncoderConfig:
    return student_shape(teacher, StudentConfig(**options))


def cost_of(shape: EncoderConfig):
    with torch.device("meta"):
        return encoder_cost(SpeechEncoder(shape))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_and_work(name: str) -> None:
    """Their counts hold a mask embedding, ARM's the maps of all layers too; work is compared as a share of HuBERT's."""
    options, with_maps, millions, macs = PUBLISHED[name]
    shape = shape_of({**SQUEEZED, **options})
    width, cost = shape.embed_dim, cost_of(shape)
    maps = 12 * (width + 1) * BASE.embed_dim if with_maps else 0
    assert round((cost.parameters_used + maps + width) / 1e6, 2) == millions
    if macs is not None:
        frames_per_s = 49.9
        map_macs = 12 * width * BASE.embed_dim * frames_per_s if with_maps else 0
        share = (cost.macs_per_s + map_macs) / cost_of(BASE).macs_per_s
        assert share == pytest.approx(macs / TEACHER_MACS, rel=0.01)


def test_the_recipe_of_armhubert_has_its_shape() -> None:
    shape = student_shape(BASE, load_config("arm").student)
    published = shape_of({**SQUEEZED, **PUBLISHED["ARMHuBERT-S"][0]})
    names = ("conv_layers", "feature_norm", "embed_dim", "num_heads", "ffn_dim", "attention_reuse", "has_projection")
    for name in names:
        assert getattr(shape, name) == getattr(published, name), name
    assert shape.conv_layers[-1] == (432, 2, 2) and not shape.has_projection
    assert shape.width_per_head == 36


def _table() -> list[tuple[float, float, list[str]]]:
    """Millions of parameters, 1e9 MACs a second and the settings of each line in the table of recipe thin."""
    text = (resources.files("robustdistiller.pretrain") / "recipes" / "thin.yaml").read_text()
    lines = re.findall(r"^#   (\d\d\.\d\d)  (\d\.\d\d)    (.*)$", text, re.MULTILINE)
    return [(float(size), float(work), re.findall(r"student\.\S+=\S+", what)) for size, work, what in lines]


@pytest.mark.parametrize(("millions", "giga_macs", "settings"), _table())
def test_what_the_recipe_of_thin_students_says_they_cost(millions: float, giga_macs: float, settings: list) -> None:
    cost = cost_of(student_shape(BASE, load_config("thin", settings).student))
    assert (round(cost.parameters_used / 1e6, 2), round(cost.macs_per_s / 1e9, 2)) == (millions, giga_macs)


def test_the_table_is_read() -> None:
    assert len(_table()) == 5


def _fast_table() -> list[tuple[str, list[str], tuple[float, float, float]]]:
    """Recipe, settings, and millions of parameters, 1e9 MACs a second and speed of each line in the table of fast50."""
    text = (resources.files("robustdistiller.pretrain") / "recipes" / "fast50.yaml").read_text()
    lines = re.findall(r"^#   (\d+\.\d\d) +(\d\.\d\d) +(\d+\.\d) +(.*)$", text, re.MULTILINE)
    recipes = [re.search(r"recipe (fast25|small)", what) for *_, what in lines]
    return [
        (found[1] if found else "fast50", re.findall(r"(?:student|pruning)\.\S+=\S+", what), tuple(map(float, numbers)))
        for found, (*numbers, what) in zip(recipes, lines)
    ]


@pytest.mark.parametrize(("recipe", "settings", "numbers"), _fast_table())
def test_what_the_fast_recipes_say_they_cost(recipe: str, settings: list, numbers: tuple) -> None:
    config = load_config(recipe, settings)
    student = SpeechEncoder(student_shape(BASE, config.student))
    cost = cost_of(student.config if config.pruning is None else pruned_evenly(student, config.pruning))
    found = round(cost.parameters_used / 1e6, 2), round(cost.macs_per_s / 1e9, 2), round(cost.predicted_speed, 1)
    assert found == numbers
    assert len(_fast_table()) == 5


def test_predicted_speed_is_against_wavlm_base_plus() -> None:
    assert cost_of(EncoderConfig.wavlm_base_plus()).predicted_speed == pytest.approx(1, abs=1e-3)


def test_a_log_mel_front_end_needs_no_waveform_of_a_certain_level() -> None:
    large = EncoderConfig.hubert_large()
    assert large.normalize_waveform
    shape = shape_of({"conv_layers": "log_mel", "squeeze": 2}, large)
    assert (shape.front_end, shape.normalize_waveform, shape.conv_layers[0]) == ("log_mel", False, (1024, 3, 1))
    assert (shape.downsample_rate, shape.receptive_field, shape.squeeze, shape.has_projection) == (320, 400, 2, False)
    assert shape.conv_norm == "half_group"  # a norm over channels would leave the level in
    assert shape_of({"conv_layers": "sew"}, shape).front_end == "conv"
    assert shape_of({}, shape).squeeze == 2


@pytest.mark.parametrize("name", ["squeezed", "sew"])
@pytest.mark.parametrize("samples", [400, 719, 720, 16000, 250_001])
def test_cheaper_extractors_have_the_frames_of_the_teacher(name: str, samples: int) -> None:
    with torch.device("meta"):
        one = SpeechEncoder(BASE.replace(num_layers=0, conv_layers=extractor(name, 480), projection=None))
        other = SpeechEncoder(BASE.replace(num_layers=0))
    assert one.num_frames(samples) == other.num_frames(samples)
    assert one.config.receptive_field == other.config.receptive_field == 400


def test_what_is_not_set_is_the_teachers() -> None:
    teacher = EncoderConfig.wavlm_large(first_state="projected", attention_reuse=())
    shape = shape_of({"num_layers": None, "init": "truncated", "relative_position": "keep"}, teacher)
    trained = ("feature_grad_mult", "feature_dropout", "dropout", "attention_dropout", "activation_dropout")
    assert shape.replace(**{name: getattr(teacher, name) for name in trained}) == teacher


def test_a_teacher_without_projection_gives_a_student_of_another_width_one() -> None:
    teacher = EncoderConfig.tiny(projection=False)
    assert shape_of({"embed_dim": 8}, teacher).has_projection
    assert not shape_of({}, teacher).has_projection


def test_reused_attention_of_a_teacher_is_that_of_the_chosen_layers() -> None:
    teacher = EncoderConfig.tiny(num_layers=4, attention_reuse=(1, 3))
    assert shape_of({"num_layers": 4}, teacher).attention_reuse == (1, 3)
    assert shape_of({"num_layers": 2, "source_layers": (3, 4)}, teacher).attention_reuse == (1,)
    assert shape_of({"num_layers": 4, "attention_reuse": ()}, teacher).attention_reuse == ()
