"""Every shipped recipe trains on the tiny corpus, gives a student that loads, and resumes exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustdistiller.pretrain import SettingsError, distill, list_recipes, load_config
from robustdistiller.pretrain.student.build import build_student
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, load_encoder, read_checkpoint, save_checkpoint

from .conftest import TEACHER, assert_equal_states, last_checkpoint
from .option_reads import OptionReads

RECIPES = list_recipes()
DISTILLING = sorted(name for name, recipe in RECIPES.items() if recipe.multitask is None)
PRUNING = sorted(name for name in DISTILLING if RECIPES[name].pruning is not None)
RESUMED = ["correlation", "dice", "anchor", "robustdistiller_curriculum", "robustdistiller_dpwavlm", "skill_heads"]
RESUMED += ["fast50"]
STAGES = {name: tuple(RECIPES[name].stages) or ("distil",) for name in DISTILLING}


def _overrides(recipe: str, teacher_path: Path, corpus, out_dir: Path, steps: int = 3) -> list[str]:
    """A recipe on the tiny teacher of five layers, as short as it can be."""
    config = load_config(recipe)
    short = [
        f"teacher.checkpoint={teacher_path}",
        f"data.speech={corpus.speech}",
        f"out_dir={out_dir}",
        *("data.num_workers=0", "data.min_samples=1600"),
        f"data.max_samples={40000 if config.data.long_files == 'drop' else 16000}",
        *("trainer.accelerator=cpu", "trainer.batch_size=6", "trainer.batch_seconds=null", "trainer.accumulate=1"),
        *(f"trainer.max_steps={steps}", "optim.schedule_steps=3", "trainer.log_every_steps=1", "optim.lr=1e-3"),
    ]
    if config.corruption is not None:
        short += [f"data.noise={corpus.noise}", f"data.rir={corpus.rir}"]
    if config.objectives.enhancement.weight:
        short += ["objectives.enhancement.hidden_size=8", "objectives.enhancement.num_layers=1"]
    if config.objectives.cross_correlation.weight:
        short += ["objectives.cross_correlation.frames=10", "objectives.self_correlation.frames=10"]
    if config.targets.layers == "auto":
        short += ["targets.groups.count=2", "targets.groups.calibration_utterances=8"]
    else:
        short += ["targets.layers=[projected,2,5]" if config.targets.match == "layers" else "targets.layers=[2,5]"]
    if isinstance(config.targets.student_layers, list | tuple):
        short += ["targets.student_layers=[projected,1,2]"]
    if config.student.embed_dim is not None:
        short += ["student.num_layers=5", "student.embed_dim=16", "student.num_heads=2", "student.ffn_dim=20"]
    if "warm" in config.stages:
        short += ["stages.warm.trainer.max_steps=2", "stages.warm.optim.schedule_steps=2"]
    if config.student.attention_reuse is not None:
        short += ["student.attention_reuse=[2,4]", "objectives.l2.target_weights=[0.1,0.1,1]"]
    if config.targets.units is not None:
        short += ["targets.units.layer=3", "targets.units.count=7", "targets.units.calibration_utterances=8"]
    for name in config.teachers:
        short += [f"teachers.{name}.checkpoint={teacher_path}", f"teachers.{name}.layers=[1,2]"]
        short += [f"teachers.{name}.student_layers=[2,3]"]
    if config.pruning is not None:
        short += ["pruning.sparsity=0.4", "pruning.ramp_steps=2", "pruning.gate_lr=0.5"]
    if config.stages:
        short += ["stages.distil.trainer.max_steps=2", "stages.distil.optim.schedule_steps=2"]
    return short


@pytest.fixture(scope="module")
def straight_runs(tmp_path_factory, corpus, teacher_path) -> dict[str, Path]:
    """One uninterrupted run of every recipe; those that only train need no more than two steps."""
    root = tmp_path_factory.mktemp("recipes")
    for name in DISTILLING:
        steps = 3 if name in (*RESUMED, *PRUNING) else 2
        distill(load_config(name, _overrides(name, teacher_path, corpus, root / name, steps)))
    return {name: root / name for name in DISTILLING}


def test_every_option_is_read_by_what_trains(corpus, teacher_path: Path, tmp_path: Path) -> None:
    """Objectives, corruption and fine-tuning have tests of their own, of what each option changes."""
    table = tmp_path / "labels.csv"
    rows = [f"{path},{path.parent.name}" for path in sorted(corpus.speech.rglob("*.*"))]
    table.write_text("\n".join(["path,label", *rows]))
    other = "{checkpoint: " + str(teacher_path) + ", layers: [3], student_layers: [2], share_maps: false}"
    recipe = tmp_path / "several.yaml"
    recipe.write_text(f"base: dphubert\nteachers: {{other: {other}}}\n")
    more = {
        "distilhubert": ["validation.every_steps=2", "targets.cache={}", "trainer.ema_decay=0.9"],
        "robustdistiller": [
            "student.feature_dropout=0.5",
            "probe.every_steps=2",
            f"probe.data={table}",
            "student.squeeze=2",
        ],
        str(recipe): ["stages.distil.trainer.max_steps=1"],
        "skill": ["stages=null"],
        "dice": ["targets.cache={}", "objectives.l1=1"],
    }
    with OptionReads("objectives", "corruption", "multitask") as reads:
        for name, overrides in more.items():
            folder = tmp_path / Path(name).stem
            distill(load_config(name, [*_overrides(name, teacher_path, corpus, folder, 2), *overrides]))
    assert reads.unread == {"source", "stages"}  # words; and what `config` makes stages of


@pytest.mark.parametrize("recipe", DISTILLING)
def test_recipe_trains_every_weight_and_exports_a_student(recipe: str, straight_runs, teacher_path: Path) -> None:
    out_dir = straight_runs[recipe]
    student = load_encoder(out_dir / "student.ckpt").eval()
    assert read_checkpoint(out_dir / "student.ckpt").metadata["recipe"] == recipe
    states = student(torch.randn(2, 4000)).hidden_states
    assert all(torch.isfinite(state).all() for state in states)
    lines = read_history(out_dir / "history.csv")
    weights = RECIPES[recipe].objectives
    for name in vars(weights):
        assert (name in lines[-1]) == (getattr(weights, name).weight > 0), name
    if recipe in PRUNING:
        built = build_student(load_config(str(out_dir / "config.yaml")), load_encoder(teacher_path))
        before = built.count_parameters()
        assert student.count_parameters() < 0.95 * before
        assert {line["stage"] for line in lines if "sparsity" in line} == {"prune"} and lines[-1]["stage"] == "distil"
        pruned, final = (read_checkpoint(out_dir / name).state_dict for name in ("student_prune.ckpt", "student.ckpt"))
        assert ("extractor.scale" in final) == ("conv" in RECIPES[recipe].pruning.units)
        moved = {name for name, weight in final.items() if not torch.equal(pruned[name], weight)}
        assert "extractor.scale" not in moved and len(moved) > len(final) / 2  # student.train_feature_scale: false
    first = "layer_input" if recipe in ("arm", "thin", "star", "dice") else "projected"
    assert student.state_names()[0] == first  # as of the released models: student.first_state
    dropout = RECIPES[recipe].student.feature_dropout
    expected = 0.05 if recipe in ("arm", "star") else 0.1 if recipe in PRUNING else 0.0
    assert student.config.feature_dropout == dropout == expected


class Stop:
    """Breaks a run in the middle of a step of a stage."""

    def __init__(self, step: int, stage: int = 0):
        self.step, self.stage, self.begun = step, stage, -1

    def on_train_start(self, distiller) -> None:
        self.begun += 1

    def on_before_optimizer_step(self, distiller, step) -> None:
        if step == self.step and self.begun == self.stage:
            raise OSError("the power went out")


@pytest.mark.parametrize(
    ("recipe", "stage"), [(recipe, number) for recipe in RESUMED for number in range(len(STAGES[recipe]))]
)
def test_recipe_resumes_exactly(recipe, stage, straight_runs, corpus, teacher_path, tmp_path: Path) -> None:
    overrides = [*_overrides(recipe, teacher_path, corpus, tmp_path), "trainer.save_every_steps=1"]
    with pytest.raises(OSError, match="power"):
        distill(load_config(recipe, overrides), callbacks=[Stop(2, stage)])
    distill(load_config(recipe, overrides))
    folders = [tmp_path, straight_runs[recipe]]
    for name in STAGES[recipe]:
        one, other = (last_checkpoint(folder, name) for folder in folders)
        for key in ("model", "optimizer", "progress", "begins_with"):
            assert_equal_states(one[key], other[key], key)
        file = "student.ckpt" if name == STAGES[recipe][-1] else f"student_{name}.ckpt"
        assert_equal_states(*(read_checkpoint(folder / file).state_dict for folder in folders))
        assert any("log_alpha" in weight for weight in one["model"]) == (name == "prune")


def test_the_warm_up_trains_the_front_end_alone(straight_runs, teacher_path) -> None:
    folder = straight_runs["fast50"]
    built = build_student(load_config(str(folder / "config.yaml")), load_encoder(teacher_path)).state_dict()
    warm = read_checkpoint(folder / "student_warm.ckpt").state_dict
    assert built.keys() == warm.keys()
    moved = {name: float((weight - warm[name]).abs().max()) for name, weight in built.items()}
    assert max(change for name, change in moved.items() if name.startswith("extractor")) > 1e-4
    assert {change for name, change in moved.items() if name.startswith("transformer")} == {0.0}
    pruned = read_checkpoint(folder / "student_prune.ckpt").state_dict
    norm = "transformer.layers.0.attention_norm.weight"
    assert norm in pruned and not torch.equal(pruned[norm], warm[norm])


def test_wavlm_position_bias_is_kept_or_dropped_by_choice(corpus, tmp_path: Path) -> None:
    teacher = SpeechEncoder(TEACHER.replace(relative_position=True, gated_relative_position=True, num_buckets=8))
    save_checkpoint(tmp_path / "wavlm.ckpt", teacher, {})
    for recipe, kept in (("robustdistiller", False), ("robustdistiller_dpwavlm", True)):
        overrides = _overrides(recipe, tmp_path / "wavlm.ckpt", corpus, tmp_path / recipe)
        distill(load_config(recipe, overrides))
        assert load_encoder(tmp_path / recipe / "student.ckpt").config.relative_position == kept


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("dphubert", ["pruning.sparsity=0.999"], "sparsity"),
        ("skill", ["targets.groups.count=9"], "9 groups of 5 layers"),
        ("skill", ["targets.layers=[[1,2],[7]]"], r"targets.layers: the teacher has layers 0 to 5, found \[7\]"),
        ("distilhubert", ["objectives.l1=0", "objectives.cosine=0"], "objectives: none has a weight"),
        ("distilhubert", ["student.source_layers=every_other", "student.num_layers=4"], "makes at most 3"),
        ("correlation", ["data.noise=[]"], "data.noise: the corruption adds noise from files and there are none"),
        ("robustdistiller", ["objectives.enhancement.input=7"], "objectives.enhancement"),
        ("robustdistiller", ["objectives.l1.target_weights=[1,2,3]"], "objectives.l1: target_weights: found 3 values"),
        ("robustdistiller", ["objectives.units=1"], "objectives.units: the teacher's frames are not divided"),
        ("ours", ["objectives.invariance=1"], "objectives.invariance: features: predictions are those of heads"),
        ("distilhubert", ["objectives.anchor=1"], "objectives.anchor: the student hears no corruption"),
        ("distilhubert", ["objectives.relations=1"], "objectives.relations: the student's last state cannot"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    recipe: str, overrides: list[str], message: str, corpus, teacher_path: Path, tmp_path: Path
) -> None:
    config = load_config(recipe, [*_overrides(recipe, teacher_path, corpus, tmp_path), *overrides])
    with pytest.raises(SettingsError, match=message):
        distill(config)
    assert not list(tmp_path.glob("checkpoints/*.ckpt"))


def test_published_sizes_of_the_pruning_recipes() -> None:
    """0.75 of HuBERT Base: 23.59 M in the paper."""
    with torch.device("meta"):
        base = SpeechEncoder(EncoderConfig()).count_parameters()
    config = load_config("dphubert")
    assert config.pruning.sparsity == 0.75
    assert base * (1 - config.pruning.sparsity) == pytest.approx(23.59e6, rel=0.005)
