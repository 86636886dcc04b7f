"""Stages: what each of them has for settings, and what is refused before the first one begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustdistiller.common.written import dump_yaml
from robustdistiller.pretrain import DistillConfig, SettingsError, load_config
from robustdistiller.pretrain.config.stages import stages_of

HERE = Path(__file__).parent


def _stages(config: DistillConfig) -> dict[str, DistillConfig]:
    return {stage.name: stage.config for stage in stages_of(config)}


def test_a_recipe_without_stages_is_one_stage() -> None:
    config = load_config("robustdistiller")
    assert _stages(config) == {"distil": config}


def test_a_stage_is_laid_over_the_recipe_and_not_over_the_stage_before(tmp_path: Path) -> None:
    recipe = tmp_path / "three.yaml"
    recipe.write_text(
        "base: dphubert\n"
        "stages:\n"
        "  distil: {optim: {eps: 1e-7}}\n"
        "  polish: {objectives: {cosine: 0.5}, trainer: {max_steps: 10}}\n"
    )
    stages = _stages(load_config(recipe, ["stages.distil.optim.lr=3e-5", "optim.lr=1e-3", "seed=4"]))
    assert list(stages) == ["prune", "distil", "polish"]
    assert [stage.optim.lr for stage in stages.values()] == [1e-3, 3e-5, 1e-3]
    assert [stage.optim.eps for stage in stages.values()] == [1e-8, 1e-7, 1e-8]
    assert [stage.trainer.max_steps for stage in stages.values()] == [50_000, 25_000, 10]
    assert [stage.objectives.cosine.weight for stage in stages.values()] == [1.0, 1.0, 0.5]
    assert stages["polish"].objectives.cosine.form == "raw"
    assert {(stage.seed, stage.student.init, stage.data.long_files) for stage in stages.values()} == {
        (4, "truncated", "drop")
    }


def test_a_recipe_that_names_all_stages_orders_them(tmp_path: Path) -> None:
    first, child = tmp_path / "first.yaml", tmp_path / "child.yaml"
    first.write_text(
        "base: dphubert\nstages: {warm: {pruning: null, trainer: {max_steps: 7}}, prune: {}, distil: {}}\n"
    )
    child.write_text(f"base: {first}\nstages: {{distil: {{trainer: {{max_steps: 9}}}}}}\n")
    for recipe, steps in ((first, [7, 50_000, 25_000]), (child, [7, 50_000, 9])):
        stages = _stages(load_config(recipe))
        assert list(stages) == ["warm", "prune", "distil"]
        assert [stage.trainer.max_steps for stage in stages.values()] == steps
        assert [stage.pruning is not None for stage in stages.values()] == [False, True, False]


def test_a_student_is_pruned_once(tmp_path: Path) -> None:
    assert [stage.pruning is not None for stage in _stages(load_config("dphubert")).values()] == [True, False]
    late = tmp_path / "late.yaml"
    late.write_text("base: distilhubert\nstages: {warm: , prune: {pruning: {sparsity: 0.5}}, distil: {}}\n")
    assert [stage.pruning and stage.pruning.sparsity for stage in _stages(load_config(late)).values()] == [
        None,
        0.5,
        None,
    ]
    with pytest.raises(SettingsError, match=r"^stages.distil.pruning: the student is pruned in stage prune already"):
        load_config("dphubert", ["stages.distil.pruning.sparsity=0.8"])


def test_the_length_of_a_schedule_is_not_taken_over() -> None:
    stages = _stages(load_config("dphubert", ["optim.schedule_steps=60000"]))
    assert [stage.optim.schedule_steps for stage in stages.values()] == [60_000, None]
    stages = _stages(
        load_config("dphubert", ["optim.schedule_steps=60000", "stages.distil.optim.schedule_steps=30000"])
    )
    assert [stage.optim.schedule_steps for stage in stages.values()] == [60_000, 30_000]


def test_a_stage_can_be_left_out() -> None:
    assert list(_stages(load_config("dphubert", ["stages.distil=null"]))) == ["prune"]
    assert list(_stages(load_config("dphubert", ["stages=null"]))) == ["distil"]


def test_settings_of_a_stage_are_read_by_their_type() -> None:
    config = load_config("dphubert", ["stages.distil.data.noise=0x1f", "stages.distil.optim.lr=1e-3"])
    assert config.stages["distil"]["data"] == {"noise": ["0x1f"]}
    assert _stages(config)["distil"].data.noise == ["0x1f"]
    assert _stages(config)["distil"].optim.lr == 1e-3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.distil.optim.lrr=1e-4"], r"^unknown key 'stages.distil.optim.lrr'; did you mean 'lr'\?"),
        (["stages.distl.optim.lr=1e-4"], r"^unknown stage 'distl'; did you mean 'distil'\?"),
        (["stages.distil.trainer.max_steps=many"], "^stages.distil.trainer.max_steps: found 'many', expected a whole"),
        (["stages.distil.optim.lr=-1"], "^stages.distil.optim.lr: found -1, expected more than 0"),
        (["stages.distil=fast"], "^stages.distil: found 'fast', expected keys and values"),
        (["stages.distil.optim=fast"], "^stages.distil.optim: found 'fast', expected keys and values"),
        (["stages.distil.optim=null"], "^stages.distil.optim: found None, expected keys and values"),
        (["stages.distil.trainer.batch_seconds=null"], "^stages.distil: trainer: give batch_size"),
        (["stages.distil.optim.schedule_steps=20000"], "^stages.distil: trainer.max_steps=25000 goes beyond"),
        (["stages.distil.probe.criterion=true"], "^stages.distil: probe.criterion=true"),
        (["stages.distil.stages.x.seed=1"], "^stages.distil.stages.x.seed: all stages of a run have the same stages"),
        *(
            ([f"stages.{stage}.{key}"], rf"^stages.{stage}.{key.split('=')[0]}: all stages of a run have the same")
            for stage in ("prune", "distil")
            for key in (
                *("teacher.checkpoint=x", "teacher.hears=independent", "targets.layers=[1]", "seed=1", "out_dir=x"),
                *("student.num_layers=3", "student.init=random", "student.checkpoint=x", "data.speech=[x]"),
                *("teachers.x.layers=[1]", "targets.cache.max_gb=3", "recipe=x"),
                *("trainer.precision=bf16", "trainer.max_hours=1", "trainer.deterministic=true"),
                *("trainer.accelerator=cpu", "trainer.devices=2", "trainer.num_nodes=2", "trainer.strategy=ddp"),
            )
        ),
    ],
)
def test_mistakes_in_a_stage_are_told_at_load(overrides: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_config("dphubert", overrides)


def test_a_stage_may_change_how_the_student_is_trained() -> None:
    overrides = ["stages.distil.student.dropout=0", "stages.distil.student.train_feature_scale=true"]
    stages = _stages(load_config("dphubert", overrides))
    assert [stage.student.dropout for stage in stages.values()] == [0.1, 0.0]
    assert [stage.student.train_feature_scale for stage in stages.values()] == [False, True]


def test_fine_tuning_has_one_stage(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("base: multitask\nstages: {a: {}, b: {}}\n")
    with pytest.raises(SettingsError, match=r"^stages: fine-tuning .* has one stage"):
        load_config(tmp_path / "two.yaml")


def test_a_stage_is_not_called_as_the_best_student_is(tmp_path: Path) -> None:
    """Its student would be `student_best.ckpt`, too."""
    (tmp_path / "two.yaml").write_text("base: distilhubert\nstages: {best: {}, distil: {}}\n")
    with pytest.raises(SettingsError, match=r"^stages: found the name 'best'"):
        load_config(tmp_path / "two.yaml")


def test_a_saved_configuration_is_a_recipe_of_the_same_stages(tmp_path: Path) -> None:
    config = load_config("skill", ["stages.distil.optim.lr=7e-5", "optim.schedule_steps=70000", "out_dir=007"])
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    again = load_config(tmp_path / "config.yaml")
    assert again == config and stages_of(again) == stages_of(config)
    assert load_config(tmp_path / "config.yaml", ["stages.distil.optim.lr=1e-5"]) != config


def test_a_saved_configuration_of_the_first_version_has_two_stages() -> None:
    """Written by the first version of `robustdistiller_dpwavlm`, with `then.optim.lr=5e-5`."""
    config = load_config(HERE / "first_version_config.yaml")
    stages = _stages(config)
    assert list(stages) == ["first", "distil"]
    assert [stage.optim.lr for stage in stages.values()] == [3e-4, 5e-5]
    assert [stage.optim.warmup_fraction for stage in stages.values()] == [0.3, 0.2]
    assert [stage.trainer.max_steps for stage in stages.values()] == [50_000, 25_000]
    assert [stage.pruning is not None for stage in stages.values()] == [True, False]
    for stage in stages.values():  # what it meant then, not what the recipe is today
        assert (stage.targets.layers, stage.optim.betas, stage.optim.eps) == ((0, 4, 8, 12), (0.9, 0.98), 1e-6)
        assert (stage.optim.clip_gates, stage.optim.decay_norms, stage.student.activation_dropout) == (
            False,
            False,
            0.1,
        )
        assert "noise+reverb:snr_db=0..20" in stage.corruption.tables[0]


def test_then_over_a_shipped_recipe_is_its_last_stage(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: dphubert\nthen: {optim: {lr: 5e-5}, corruption: {snr_db: [0, 5]}}\n")
    stages = _stages(load_config(recipe, ["then.trainer.max_steps=77"]))
    assert list(stages) == ["prune", "distil"]
    distil = stages["distil"]
    assert (distil.optim.lr, distil.optim.warmup_fraction, distil.trainer.max_steps) == (5e-5, 0.2, 77)
    assert stages["prune"].corruption is None and "noise:snr_db=0..5" in distil.corruption.tables[0]
    recipe.write_text("base: dphubert\nthen: null\n")
    assert list(_stages(load_config(recipe))) == ["prune"]
    with pytest.raises(SettingsError, match=r"unknown key 'stages.distil.optim.lrr'"):
        load_config("dphubert", ["then.optim.lrr=1"])


def test_a_validation_that_never_takes_place_is_refused(tmp_path: Path) -> None:
    given = {"speech": "[dev]", "noise": "[noise]", "rir": "[rooms]", "conditions": "[clean]"}
    for key, value in given.items():
        with pytest.raises(SettingsError, match=rf"validation\.{key} is given and validation\.every_steps is not"):
            load_config("dphubert", [f"validation.{key}={value}"])
    probe = ["probe.every_steps=9", "probe.data=words.csv"]
    load_config("dphubert", ["validation.conditions=[clean]", "validation.noise=[noise]", *probe])
    with pytest.raises(SettingsError, match=r"validation\.speech is given"):
        load_config("dphubert", ["validation.speech=[dev]", *probe])
    load_config("dphubert", ["validation.speech=[dev]", "stages.distil.validation.every_steps=9"])


def test_a_front_end_that_is_trained_alone_has_the_projected_features_for_a_target() -> None:
    warm, prune, distil = _stages(load_config("fast50", ["targets.normalize=layer_norm"])).values()
    assert warm.targets.layers == ("projected",) and warm.targets.normalize == "none"
    assert prune.targets == distil.targets and prune.targets.normalize == "layer_norm"
    given = ["student.trains=front_end", "targets.layers=[2,3]", "targets.student_layers=[1,2]", "pruning=null"]
    (alone,) = stages_of(load_config("dphubert", [*given, "stages.prune=null", "stages.distil=null"]))
    assert (alone.config.targets.layers, alone.config.targets.student_layers) == (("projected",), None)
