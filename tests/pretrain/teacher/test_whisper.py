"""Whisper as a teacher: runs with heads, maps and a cache of its targets; what does not fit is told before."""

from pathlib import Path

import pytest

from robustdistiller.pretrain import distill, load_config
from robustdistiller.pretrain.data.roots import load_teacher
from robustdistiller.pretrain.training.build import planned_costs
from robustdistiller.upstream import load_encoder
from robustdistiller.upstream.pretrained.whisper.encoder import WhisperEncoder
from tests.pretrain.conftest import run_overrides
from tests.upstream.pretrained.whisper.conftest import make_model


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "whisper"
    make_model(d_model=32).save_pretrained(path)
    return path


@pytest.fixture
def overrides(corpus, teacher_path, whisper, tmp_path) -> list[str]:
    """Of a run in which a small conv encoder from a file, five layers of width 24, learns from Whisper."""
    given = run_overrides(corpus, whisper, tmp_path / "run")
    dropped = ("student.num_layers", "targets.layers")
    kept = [one for one in given if not one.startswith(dropped)]
    return [*kept, f"student.checkpoint={teacher_path}", "targets.layers=[1,3]", "trainer.max_steps=3"]


def test_the_teacher_is_whisper(overrides):
    teacher, notes = load_teacher(load_config("robustdistiller", overrides).teacher)
    assert isinstance(teacher, WhisperEncoder) and not teacher.config.pad_to_30_s
    assert notes["format"] == "whisper_huggingface" and len(notes["sha256"]) == 64


@pytest.mark.parametrize("match", ["heads", "layers"])
def test_a_run(overrides, match, tmp_path):
    more = ["targets.student_layers=[2,5]"] if match == "layers" else []
    config = load_config("robustdistiller", [*overrides, f"targets.match={match}", *more, "targets.cache={}"])
    student = load_encoder(distill(config))
    heads = student.config.prediction_layers
    assert heads == ((1, 3) if match == "heads" else ()) and student.config.num_layers == 5
    assert all(weight.isfinite().all() for weight in student.parameters())
    assert any((tmp_path / "run" / "targets").glob("targets-*"))


def test_cost(overrides):
    teacher, _ = load_teacher(load_config("robustdistiller", overrides).teacher)
    costs = planned_costs(load_config("robustdistiller", overrides))
    assert costs["teacher"].parameters_used == teacher.count_parameters() and costs["teacher"].macs > 1e6


def test_a_student_takes_no_weights_from_it(overrides):
    without = [one for one in overrides if not one.startswith("student.checkpoint")]
    with pytest.raises(ValueError, match=r"WhisperEncoder has no layers like a student's; set student\.init=random"):
        distill(load_config("robustdistiller", without))
    shape = ["embed_dim=32", "num_heads=4", "ffn_dim=64", "num_layers=2", "init=random"]
    student = load_encoder(distill(load_config("robustdistiller", [*without, *(f"student.{one}" for one in shape)])))
    assert (student.config.embed_dim, student.config.num_layers) == (32, 2)
    assert student.config.prediction_dim == 32


def test_it_is_no_student(overrides, teacher_path, whisper):
    turned = [f"student.checkpoint={whisper}", f"teacher.checkpoint={teacher_path}"]
    with pytest.raises(ValueError, match=r"is a Whisper encoder, which can be a teacher .* but no student") as error:
        distill(load_config("robustdistiller", [*overrides, *turned]))
    assert "\n" not in str(error.value)


def test_layers_that_it_lacks(overrides):
    with pytest.raises(ValueError, match=r"teacher has layers 0 to 3, found \[4\]"):
        distill(load_config("robustdistiller", [*overrides, "targets.layers=[2,4]"]))
