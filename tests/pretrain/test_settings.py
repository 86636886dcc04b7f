"""Settings: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from robustdistiller import pretrain
from robustdistiller.acoustics import CorruptionPolicy
from robustdistiller.common.settings import read
from robustdistiller.common.written import dump_yaml, flatten
from robustdistiller.pretrain import DistillConfig, SettingsError, list_recipes, load_config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr'; did you mean 'lr'?"),
        ("trainr.max_steps=1", "unknown key 'trainr'; did you mean 'trainer'?"),
        ("objectives.enhancement.wait=1", "unknown key 'objectives.enhancement.wait'; did you mean 'weight'?"),
        ("corruption.table=[]", "unknown key 'corruption.table'; did you mean 'tables'?"),
        ("corruption.tables=[{noise: 1}]", r"corruption: tables\[0\]: noise needs snr_db, as in 'noise:snr_db=5'"),
        ("data.batch_size=6", "unknown key 'data.batch_size'; known: .*; elsewhere there is trainer.batch_size"),
        ("corruption.clean_probability=0.5", "corruption: the probabilities .* must add up to 1, found 1.25"),
        ("trainer.max_steps=many", "trainer.max_steps: found 'many', expected a whole number"),
        ("trainer.max_steps=1.5", "trainer.max_steps: found 1.5, expected a whole number"),
        ("trainer.progress=1", "trainer.progress: found 1, expected true or false"),
        ("student.init=copy", "student.init: found 'copy', expected 'distilhubert', 'truncated' or 'random'"),
        ("optim.betas=[0.9]", r"optim.betas: found \[0.9\], expected 2 values"),
        ("optim=fast", "optim: found 'fast', expected keys and values"),
        ("seed", "override 'seed': expected key=value"),
        ("data.speech=[a", "override .* not valid YAML"),
    ],
)
def test_bad_override_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config("robustdistiller", [override])


def test_precedence_is_command_line_then_file_then_base_then_default(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("base: robustdistiller\noptim: {lr: 1e-3, clip_norm: 3}\nseed: 5\n")
    (tmp_path / "high.yaml").write_text("base: low.yaml\noptim: {clip_norm: 4}\n")
    config = load_config(tmp_path / "high.yaml", ["seed=6", "optim.eps=1e-8"])
    assert config.optim.lr == 1e-3  # low.yaml, and 1e-3 is a number although YAML says text
    assert config.optim.clip_norm == 4.0  # high.yaml over low.yaml
    assert config.seed == 6  # command line over low.yaml
    assert config.optim.eps == 1e-8
    assert config.objectives.enhancement.weight == 2.0  # robustdistiller
    assert config.trainer.num_buckets == DistillConfig().trainer.num_buckets  # default
    assert config.recipe == "high"


def test_circular_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(SettingsError, match="is its own base"):
        load_config(tmp_path / "a.yaml")


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"unknown recipe 'robustdistiler'; did you mean 'robustdistiller'\?"):
        load_config("robustdistiler")
    with pytest.raises(SettingsError, match=r"recipe file nowhere\.yaml does not exist"):
        load_config("nowhere.yaml")


def test_saved_configuration_is_a_recipe(tmp_path: Path) -> None:
    config = load_config("robustdistiller", ["optim.lr=3e-4", "data.noise=[a, b]", "student.num_layers=3"])
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config


def test_one_folder_is_a_list_of_one() -> None:
    assert load_config("distilhubert", ["data.speech=LibriSpeech"]).data.speech == ["LibriSpeech"]


def test_recipes_hold_the_published_settings() -> None:
    recipes = list_recipes()
    robust = recipes["robustdistiller"]
    assert robust.targets.layers == (4, 8, 12)
    assert (robust.student.num_layers, robust.student.feature_grad_mult) == (2, 0.1)
    terms = robust.objectives
    assert (terms.l1.weight, terms.cosine.weight, terms.feature_penalty.weight) == (1.0, 1.0, 0.0)
    assert terms.cosine.form == "log_sigmoid"
    head = robust.objectives.enhancement
    assert (head.weight, head.loss, head.input) == (2.0, "l1", "extractor")
    assert (head.hidden_size, head.num_layers, head.dropout) == (256, 3, 0.1)
    policy = robust.corruption
    assert policy == CorruptionPolicy() == recipes["robustdistiller_dpwavlm"].corruption
    assert recipes["robustdistiller_curriculum"].corruption == CorruptionPolicy(curriculum_steps=40000)
    assert recipes["correlation"].corruption == CorruptionPolicy.from_dict({"mode": "double", "snr_db": [10, 19]})
    optim, trainer = robust.optim, robust.trainer
    assert (optim.lr, optim.betas, optim.eps, optim.weight_decay) == (2e-4, (0.9, 0.98), 1e-6, 1e-6)
    assert (optim.warmup_fraction, optim.schedule, optim.clip_norm) == (0.07, "linear", 15.0)
    assert (trainer.max_steps, trainer.batch_size, robust.data.max_samples) == (200_000, 24, 250_000)
    plain = recipes["distilhubert"]
    assert (plain.corruption, plain.objectives.enhancement.weight, plain.optim.clip_norm) == (None, 0.0, 5.0)
    for recipe in recipes.values():
        assert recipe.about and recipe.source


def test_every_option_is_read_somewhere() -> None:
    folder = Path(pretrain.__file__).parent
    left_out = ("config.py", "sections.py")
    code = "\n".join(path.read_text() for path in folder.rglob("*.py") if path.name not in left_out)
    settings = flatten(dataclasses.asdict(read(DistillConfig, {})))
    # Objectives take theirs as arguments: an option that a constructor does not have would be refused there.
    settings = [key for key in settings if not key.startswith("objectives.")]
    unread = [key for key in settings if not re.search(rf"[.\"]{key.rsplit('.', 1)[-1]}\b", code)]
    assert [key for key in unread if key not in ("about", "source")] == []


def test_settings_of_a_second_stage_are_read_by_their_type() -> None:
    config = load_config("dphubert", ["then.out_dir=007 #2", "then.optim.lr=1e-3", "then.data.speech=0x1f"])
    assert config.then["out_dir"] == "007 #2"
    assert (config.then["optim"]["lr"], config.then["data"]["speech"]) == (1e-3, ["0x1f"])


def test_names_on_the_command_line_stay_as_they_are_typed() -> None:
    for name in ("4711_3", "007", "1.10", "12:30", "0x1f", "exp/run #3", "a: b"):
        config = load_config("distilhubert", [f"out_dir={name}", f"teacher.checkpoint={name}"])
        assert (config.out_dir, config.teacher.checkpoint) == (name, name)


def test_configurations_of_the_first_version_are_read(tmp_path: Path) -> None:
    """A recipe over a shipped one, and a whole configuration that a run has saved."""
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: correlation\ncorruption: {snr_db: [0, 5], reverb_weight: 0}\ndata: {decoded_gib: 2.5}\n")
    config = load_config(recipe, ["corruption.babble_weight=1"])
    assert config.corruption.tables == [
        {
            "noise:snr_db=0..5": 2.0,
            "noise:snr_db=0..5,noise=white": 1.0,
            "noise:snr_db=0..5,noise=babble,talkers=3..7": 1.0,
            "clean": 1.0,
        },
        {
            "pitch_shift:pitch_cents=-500..500": 1.0,
            "band_reject:band_width_mel=0..150,band_range_hz=0..8000": 1.0,
            "clean": 1.0,
        },
    ]
    saved = tmp_path / "config.yaml"
    old = {"clean_probability": 1.0, "noise_probability": 0.0, "reverb_probability": 0.0, "curriculum_steps": 3}
    saved.write_text(dump_yaml({"corruption": {**old, "noise_reverb_probability": 0.0}, "data": {"decoded_gib": 4.0}}))
    assert load_config(saved).corruption == CorruptionPolicy([{"clean": 1.0}], 3)
    with pytest.raises(SettingsError, match=r"^corruption: the probabilities .* must add up to 1, found 1.25"):
        load_config("robustdistiller", ["corruption.clean_probability=0.5"])
    with pytest.raises(SettingsError, match=r"^corruption: snr_db is an option of the first version"):
        load_config("robustdistiller", ["corruption.tables=[{clean: 1}]", "corruption.snr_db=[0,5]"])
