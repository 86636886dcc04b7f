"""Settings: what is accepted, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustdistiller.acoustics import CorruptionPolicy
from robustdistiller.common.written import dump_yaml
from robustdistiller.pretrain import DistillConfig, SettingsError, load_config


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
        ("optim.lr=0", "optim.lr: found 0, expected more than 0"),
        ("optim.betas=[0.9,1]", r"optim.betas\[1\]: found 1, expected less than 1"),
        ("trainer.max_steps=0", "trainer.max_steps: found 0, expected at least 1"),
        ("student.dropout=1.5", "student.dropout: found 1.5, expected at most 1"),
        ("targets.units.count=65537", "targets.units.count: found 65537, expected at most 65536"),
        ("student.mask.share=0", "student.mask.share: found 0, expected more than 0"),
        ("student.mask.share=1.5", "student.mask.share: found 1.5, expected at most 1"),
        ("student.mask.length_frames=0", "student.mask.length_frames: found 0, expected at least 1"),
        ("objectives.cross_correlation.frames=0", "objectives.cross_correlation.frames: found 0, expected at least 1"),
        ("objectives.l1=-1", "objectives.l1.weight: found -1, expected at least 0"),
        ("objectives.relations.layer_wise=-1", "objectives.relations.layer_wise: found -1, expected at least 0"),
        ("objectives.units.unmasked_weight=-1", "objectives.units.unmasked_weight: found -1, expected at least 0"),
        ("objectives.enhancement.num_layers=0", "objectives.enhancement.num_layers: found 0, expected at least 1"),
        ("trainer.ema_decay=1", "trainer.ema_decay: found 1, expected less than 1.0 or null"),
        ("targets.layers=[projectd,4]", r"targets.layers\[0\]: found 'projectd', expected .*'projected'"),
        ("stages.distil.optim.lr=1", "unknown stage 'distil'; the recipe has no stages"),
    ],
)
def test_bad_override_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config("robustdistiller", [override])


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("distilhubert", ["trainer.batch_size=null"], "give batch_size .* or batch_seconds, both are null"),
        (
            "distilhubert",
            ["optim.schedule_steps=5"],
            "max_steps=200000 goes beyond optim.schedule_steps=5, ",
        ),
        ("distilhubert", ["data.min_samples=300000"], "data.min_samples=300000 is more than data.max_samples=250000"),
        ("distilhubert", ["teacher.hears=independent"], "teacher.hears=independent asks for a corruption .*is null"),
        ("distilhubert", ["targets.student_layers=[2]"], "everything is predicted from the last layer"),
        ("distilhubert", ["targets.layers=[projected,4]"], "found 'projected' with targets.match=heads"),
        ("dphubert", ["targets.student_layers=[0,2]"], "targets.student_layers: found 2 entries for 4 targets"),
        ("skill", ["targets.student_layers=[0,2]"], "targets.student_layers: found 2 entries for 3 targets"),
        (
            "dphubert",
            ["student.checkpoint=x.ckpt"],
            "brings its own shape, so student.num_layers, student.init",
        ),
        ("fast50", ["student.squeeze_by=conv"], "student.squeeze_by=conv means nothing without student.squeeze"),
        ("fast50", ["student.expand_by=repeat"], "student.expand_by=repeat means nothing without student.squeeze"),
        ("distilhubert", ["student.trains=front_end"], "trains=front_end runs no layers, .*set targets.match=layers"),
        (
            "dphubert",
            ["student.trains=front_end", "student.feature_grad_mult=0"],
            "student.feature_grad_mult=0 freezes what is left",
        ),
        ("dphubert", ["student.trains=front_end"], "and pruning is about them; give pruning=null there"),
        ("fast50", ["stages.warm.pruning={}"], "stages.warm: student.trains=.* pruning is about them"),
        (
            "small",
            ["stages.warm.objectives.enhancement={weight: 1, input: last_hidden}", "stages.warm.objectives.anchor=1"],
            "objectives.anchor is about them; give objectives.anchor=0 objectives.enhancement=0 there",
        ),
        ("small", ["student.trains=front_endd"], "student.trains"),
        ("distilhubert", ["probe.every_steps=5"], "probe.every_steps is given and probe.data is not"),
        ("distilhubert", ["probe.data=words.csv"], "probe.data is given and probe.every_steps is not"),
        ("distilhubert", ["probe.criterion=true"], "a probe that is never made"),
        ("multitask", ["log.wandb=x"], "log.wandb: means nothing when fine-tuning"),
        (
            "distilhubert",
            ["teachers.two.layers=[4]", "teachers.two.checkpoint=a"],
            "teachers: found two .*=layers",
        ),
        ("dphubert", ["teachers.two.layers=[4]"], "teachers.two.checkpoint: which model"),
        ("dphubert", ["teachers.two.checkpoint=a"], "teachers.two.layers: found none"),
        (
            "dphubert",
            ["teachers.2:b.layers=[4]", "teachers.2:b.checkpoint=a"],
            "found the name '2:b', expected",
        ),
        ("dphubert", ["teachers.two.layers=[]", "teachers.two.checkpoint=a"], "teachers.two.layers: found none"),
        ("dphubert", ["teachers.two.layer=[1]"], "unknown key 'teachers.two.layer'; did you mean 'layers'?"),
        (
            "dphubert",
            ["teachers.two.layers=[4]", "teachers.two.checkpoint=a", "teachers.two.student_layers=[1,2]"],
            "teachers.two.student_layers: found 2 entries for 1 targets",
        ),
        (
            "dphubert",
            ["teachers.two.layers=[4]", "teachers.two.checkpoint=a", "teachers.two.hears=independent"],
            "teachers.two.hears=independent asks for a corruption",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(recipe: str, overrides: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config(recipe, overrides)


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


def test_later_bases_are_laid_over_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "noise.yaml").write_text("corruption: {tables: [{clean: 1}]}\noptim: {lr: 1e-3, eps: 1e-3}\n")
    (tmp_path / "slow.yaml").write_text("base: distilhubert\noptim: {lr: 1e-5}\n")
    (tmp_path / "both.yaml").write_text("base: [noise.yaml, slow.yaml]\nseed: 3\n")
    config = load_config(tmp_path / "both.yaml")
    assert config.corruption == CorruptionPolicy([{"clean": 1.0}])
    assert (config.optim.lr, config.optim.eps, config.seed, config.recipe) == (1e-5, 1e-6, 3, "both")
    config = load_config("robustdistiller_dpwavlm")
    assert config.corruption == load_config("robustdistiller").corruption
    assert config.to_dict() | {"optim": load_config("dpwavlm").to_dict()["optim"]} == config.to_dict()


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
            "noise:snr_db=0..5,noise_added=first": 2.0,
            "noise:snr_db=0..5,noise=white,noise_added=first": 1.0,
            "noise:snr_db=0..5,noise=babble,talkers=3..7,noise_added=first": 1.0,
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
