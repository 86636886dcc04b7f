"""Runs of several stages: what is handed on, continued, extended, begun anew, refused."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from robustdistiller.common.locks import locked
from robustdistiller.pretrain import RunInterrupted, SettingsError, distill, load_config, stages_of
from robustdistiller.pretrain.training import launch, stages, stopping
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import checkpoint_digest, load_encoder, read_checkpoint, save_checkpoint

from ..conftest import Corpus, assert_equal_states, last_checkpoint

RECIPE = "robustdistiller_dpwavlm"


class Watch:
    """The state of maps and heads as each stage begins, and at its end; what each stage hears."""

    def __init__(self):
        self.begun, self.ended, self.heard = [], [], []

    def on_batch_start(self, distiller, batch, step) -> None:
        view = batch if batch.corrupted is None else batch.corrupted
        self.heard[-1].append((batch.position, dict(zip(batch.ids, view.waveforms.clone()))))

    def on_train_start(self, distiller) -> None:
        self.heard.append([])
        self.begun.append({name: value.clone() for name, value in distiller.handed_on().items()})

    def on_train_end(self, distiller) -> None:
        self.ended.append({name: value.clone() for name, value in distiller.handed_on().items()})


def options(corpus: Corpus, teacher_path: Path, out_dir: Path, *more: str) -> list[str]:
    """Two short stages with enhancement."""
    return [
        *(f"teacher.checkpoint={teacher_path}", f"data.speech={corpus.speech}", f"out_dir={out_dir}"),
        *(f"data.noise={corpus.noise}", f"data.rir={corpus.rir}", "data.num_workers=0", "data.min_samples=1600"),
        *("data.max_samples=40000", "trainer.accelerator=cpu", "trainer.batch_size=6", "trainer.batch_seconds=null"),
        *("trainer.accumulate=1", "trainer.log_every_steps=1", "trainer.save_every_steps=1", "optim.lr=1e-2"),
        *("objectives.enhancement.hidden_size=8", "objectives.enhancement.num_layers=1"),
        *("pruning.sparsity=0.3", "pruning.ramp_steps=1", "pruning.gate_lr=0.5", "targets.layers=[projected,2,5]"),
        *("trainer.max_steps=3", "stages.distil.trainer.max_steps=2", "optim.schedule_steps=9"),
        *("stages.distil.optim.schedule_steps=9", "targets.cache={}"),
        *more,
    ]


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory, corpus, teacher_path) -> tuple[Path, Watch]:
    """A run from start to end."""
    out_dir, watch = tmp_path_factory.mktemp("two"), Watch()
    distill(load_config(RECIPE, options(corpus, teacher_path, out_dir)), callbacks=[watch])
    return out_dir, watch


@pytest.fixture
def run(two_stages, corpus, teacher_path, tmp_path: Path):
    """Go on with a copy of that run, in another folder."""
    shutil.copytree(two_stages[0], tmp_path / "moved")

    def start(*more: str, callbacks=()) -> Path:
        return distill(load_config(RECIPE, options(corpus, teacher_path, tmp_path / "moved", *more)), callbacks)

    start.folder = tmp_path / "moved"
    return start


def test_the_second_stage_begins_with_the_maps_and_heads_of_the_first(two_stages) -> None:
    out_dir, watch = two_stages
    assert_equal_states(watch.begun[1], watch.ended[0])
    moved = [name for name in watch.begun[0] if not torch.equal(watch.begun[0][name], watch.begun[1][name])]
    assert any(name.startswith("targets.") for name in moved)
    assert any(name.startswith("heads.enhancement.") for name in moved)
    pruned, final = (load_encoder(out_dir / name) for name in ("student_prune.ckpt", "student.ckpt"))
    assert final.config.conv_layers == pruned.config.conv_layers and final.config.heads == pruned.config.heads
    lines = read_history(out_dir / "history.csv")
    assert [(line["stage"], line["step"]) for line in lines] == [
        *(("prune", step) for step in (1, 2, 3)),
        *(("distil", step) for step in (1, 2)),
    ]


def test_a_later_stage_hears_speech_in_another_order_with_other_noise(two_stages) -> None:
    first, second = two_stages[1].heard
    assert [place.step for place, _ in first] == [0, 1, 2] and [place.step for place, _ in second] == [0, 1]
    assert second[0][0].epoch == first[-1][0].epoch + 1 and second[0][0].batch_in_epoch == 0
    assert [list(noisy) for _, noisy in second] != [list(noisy) for _, noisy in first[:2]]
    once, again = ({name: wave for _, noisy in heard for name, wave in noisy.items()} for heard in (first, second))
    both = sorted(set(once) & set(again))
    lengths = [min(len(once[name]), len(again[name])) for name in both]
    same = [torch.equal(once[name][:samples], again[name][:samples]) for name, samples in zip(both, lengths)]
    assert len(both) >= 4 and sum(same) < len(both) / 2  # some are left clean


def test_what_was_heard_and_what_is_left_of_the_student_is_that_of_all_stages(two_stages) -> None:
    out_dir, _ = two_stages
    heard = {line["stage"]: line["audio_h"] for line in read_history(out_dir / "history.csv")}
    pruned, final = (read_checkpoint(out_dir / name) for name in ("student_prune.ckpt", "student.ckpt"))
    assert pruned.metadata["steps"] == {"prune": 3} and final.metadata["steps"] == {"prune": 3, "distil": 2}
    assert pruned.metadata["audio_hours"] == pytest.approx(heard["prune"], abs=1e-4)
    assert final.metadata["audio_hours"] == pytest.approx(sum(heard.values()), abs=1e-4) and heard["prune"] > 1e-3
    for one in (pruned, final):
        assert one.metadata["parameters"]["student with prediction heads"] == one.build().count_parameters()


def test_the_saved_configuration_is_that_of_every_stage(corpus, teacher_path, tmp_path: Path) -> None:
    own = ("stages.prune.trainer.batch_size=3", "stages.prune.trainer.max_steps=1", "stages.prune.optim.lr=1e-3")
    config = load_config(RECIPE, options(corpus, teacher_path, tmp_path, *own))
    distill(config)
    again = load_config(tmp_path / "config.yaml")
    for before, after in zip(stages_of(config), stages_of(again), strict=True):
        trainer = dataclasses.replace(before.config.trainer, precision="fp32")  # auto, resolved
        assert after.config.trainer == trainer and after.config.optim.lr == before.config.optim.lr
    before = checkpoint_digest(tmp_path / "student.ckpt")
    distill(again)  # finished, and not another run
    assert checkpoint_digest(tmp_path / "student.ckpt") == before


def test_the_best_student_is_there_whenever_the_last_one_is(make_config, tmp_path: Path, monkeypatch) -> None:
    config = make_config(tmp_path, "validation.every_steps=1", "trainer.max_steps=3")
    written = []

    def killed(path, *rest) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(save_checkpoint(path, *rest))

    monkeypatch.setattr(stages, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        distill(config)
    monkeypatch.undo()
    distill(config)
    assert (tmp_path / "student_best.ckpt").is_file() and (tmp_path / "student.ckpt").is_file()


def test_a_part_that_only_a_later_stage_has_begins_there(corpus, teacher_path, tmp_path: Path, caplog) -> None:
    recipe = tmp_path / "mask.yaml"
    recipe.write_text(
        "base: distilhubert\n"
        "targets: {layers: [2], match: layers, student_layers: [1]}\n"
        "stages: {warm: {}, distil: {student: {mask: {share: 0.5}}}}\n"
    )
    more = (f"teacher.checkpoint={teacher_path}", f"data.speech={corpus.speech}", f"out_dir={tmp_path / 'run'}")
    short = ("student.num_layers=1", "trainer.max_steps=1", "trainer.batch_size=2", "trainer.accelerator=cpu")
    with caplog.at_level("INFO"):
        distill(load_config(recipe, [*more, *short, "data.num_workers=0"]))
    assert "stage distil begins with new mask_embedding" in caplog.text


def test_recordings_shorter_than_a_frame_are_refused_before_the_first_step(corpus, teacher_path, tmp_path) -> None:
    with pytest.raises(SettingsError, match=r"stage prune: data\.min_samples=1 .* takes 400 samples; give data\.min"):
        distill(load_config(RECIPE, options(corpus, teacher_path, tmp_path, "data.min_samples=1")))


def test_caches_and_lists_are_there_once(two_stages) -> None:
    out_dir, _ = two_stages
    assert len(list((out_dir / "targets").glob("targets-*"))) == 1
    assert len(list(out_dir.rglob("manifests"))) == 1 and not (out_dir / "first").exists()


def test_a_finished_run_in_another_folder_is_finished(run) -> None:
    digest = checkpoint_digest(run.folder / "student.ckpt")
    watch = Watch()
    assert run(callbacks=[watch]) == run.folder / "student.ckpt"
    assert not watch.begun and checkpoint_digest(run.folder / "student.ckpt") == digest


def test_the_last_stage_can_be_made_longer(run) -> None:
    watch = Watch()
    run("stages.distil.trainer.max_steps=4", callbacks=[watch])
    assert len(watch.begun) == 1 and last_checkpoint(run.folder)["progress"]["step"] == 4
    assert read_checkpoint(run.folder / "student.ckpt").metadata["step"] == 4


def test_a_longer_first_stage_is_followed_by_a_new_second_one(run, two_stages, caplog) -> None:
    before = read_checkpoint(run.folder / "student.ckpt").state_dict
    watch = Watch()
    run("trainer.max_steps=5", callbacks=[watch])
    assert len(watch.begun) == 2 and "stage distil begins anew" in caplog.text
    assert_equal_states(watch.begun[1], watch.ended[0])
    after = read_checkpoint(run.folder / "student.ckpt")
    assert after.state_dict["projection.bias"].ne(before["projection.bias"]).any()
    lines = [(line["stage"], line["step"]) for line in read_history(run.folder / "history.csv")]
    assert sorted(lines) == sorted(set(lines)) and lines.count(("prune", 5)) == 1


def test_a_stage_whose_checkpoints_are_gone_is_not_trained_again(run) -> None:
    for path in run.folder.glob("checkpoints/prune-*"):
        path.unlink()
    with pytest.raises(SettingsError, match=r"holds checkpoints of stage distil, and none of stage prune before it"):
        run()


def test_what_another_library_has_left_is_not_read(run) -> None:
    (run.folder / "hpc_ckpt_1.ckpt").write_bytes(b"not ours")
    (run.folder / "checkpoints" / "hpc_ckpt_1.ckpt").write_bytes(b"not ours")
    run("stages.distil.trainer.max_steps=3")
    assert last_checkpoint(run.folder)["progress"]["step"] == 3


def test_a_second_run_in_the_same_folder_is_refused(run, two_stages) -> None:
    with locked(run.folder / ".lock"), pytest.raises(SettingsError, match=r"another run is at work in .*moved"):
        run()


def test_two_runs_at_once_do_not_mix(corpus, teacher_path, tmp_path: Path) -> None:
    program = "import typer; from robustdistiller.cli.distill import distill; typer.run(distill)"
    overrides = options(corpus, teacher_path, tmp_path, "trainer.max_steps=6")
    command = [sys.executable, "-c", program, RECIPE, *overrides]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate()[1] for one in runs]
    assert sorted(one.returncode == 0 for one in runs) == [False, True], said
    assert any("another run is at work in" in text for text in said)
    lines = [(line["stage"], line["step"]) for line in read_history(tmp_path / "history.csv")]
    assert len(lines) == len(set(lines)) == 8


def test_a_run_of_the_first_version_is_not_continued(run) -> None:
    notes = json.loads((run.folder / "run.json").read_text())
    del notes["format"]
    (run.folder / "run.json").write_text(json.dumps(notes))
    with pytest.raises(SettingsError, match=r"holds a run of an earlier version.*student\.checkpoint=.*config\.yaml"):
        run()


def test_no_more_checkpoints_are_kept_than_asked_for(corpus, teacher_path, tmp_path: Path) -> None:
    distill(load_config(RECIPE, options(corpus, teacher_path, tmp_path, "trainer.keep_checkpoints=0")))
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("*[0-9].ckpt"))
    assert names == ["distil-00000002.ckpt", "prune-00000003.ckpt"]


def test_the_time_limit_is_that_of_all_stages(corpus, teacher_path, tmp_path: Path, monkeypatch) -> None:
    clock = {"s": 0.0}
    monkeypatch.setattr(stopping, "time", type("Clock", (), {"monotonic": staticmethod(lambda: clock["s"])}))

    class Tick:
        def on_batch_start(self, distiller, batch, step) -> None:
            clock["s"] += 3600

    config = load_config(RECIPE, options(corpus, teacher_path, tmp_path, "trainer.max_hours=3.5"))
    with pytest.raises(RunInterrupted, match=r"max_hours=3\.5 at step 1 of 2 of stage distil") as stopped:
        distill(config, callbacks=[Tick()])
    assert stopped.value.exit_code == 0
    distill(config)
    assert last_checkpoint(tmp_path)["progress"]["step"] == 2


def test_an_oversized_student_is_never_the_best_and_told(corpus, teacher_path, tmp_path: Path, caplog) -> None:
    slow = ("validation.every_steps=1", "pruning.gate_lr=1e-4", "pruning.multiplier_lr=1e-4", "stages.distil=null")
    distill(load_config(RECIPE, options(corpus, teacher_path, tmp_path, *slow)))
    assert not (tmp_path / "student_best.ckpt").exists() and not list(tmp_path.glob("checkpoints/*best*"))
    assert re.search(r"stage prune: its gates .* leave out \d+\.\d % .* 30\.0 % were asked for", caplog.text)


def test_whether_the_average_is_small_enough_is_asked_of_the_average(corpus, teacher_path, tmp_path) -> None:
    """The average of the gates is behind the gates, and is what is exported."""
    reached = []

    class Look:
        def on_step_end(self, distiller, report) -> None:
            reached.append(distiller.can_be_best())

    settings = ("validation.every_steps=1", "stages.distil=null", "optim.schedule_steps=20", "trainer.ema_decay=0.999")
    for steps in (20, None):  # then up to where the gates themselves have just become small enough
        steps = steps or reached.index(True) + 1
        folder = tmp_path / str(steps)
        config = load_config(RECIPE, options(corpus, teacher_path, folder, *settings, f"trainer.max_steps={steps}"))
        distill(config, callbacks=[Look()])
    assert steps < 20 and reached[-1] and not reached[-2]
    assert (tmp_path / "20" / "student_best.ckpt").exists() and not (folder / "student_best.ckpt").exists()


def test_the_average_is_validated_exported_and_resumed(make_config, tmp_path: Path) -> None:
    more = ("trainer.ema_decay=0.5", "validation.every_steps=2", "trainer.max_steps=6")
    distill(make_config(tmp_path / "straight", *more))
    distill(make_config(tmp_path / "stopped", *more, "trainer.max_steps=3"))
    distill(make_config(tmp_path / "stopped", *more))
    one, other = (last_checkpoint(tmp_path / name) for name in ("straight", "stopped"))
    for part in ("model", "average", "progress"):
        assert_equal_states(one[part], other[part], part)
    student = dict(load_encoder(tmp_path / "straight" / "student.ckpt").state_dict())
    averages = {name: one["average"]["averages"][f"student.{name}"] for name in student}
    assert_equal_states(student, averages)
    assert not torch.equal(student["projection.weight"], one["model"]["student.projection.weight"])


def test_a_mistake_in_a_later_stage_is_told_before_the_first_step(corpus, teacher_path, tmp_path: Path) -> None:
    mistake = "stages.distil.objectives.enhancement.input=17"
    with pytest.raises(SettingsError, match=r"objectives\.enhancement: input: found layer 17"):
        distill(load_config(RECIPE, options(corpus, teacher_path, tmp_path, mistake)))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("setting", ["trainer.compile=true", "log.wandb=students"])
def test_what_a_later_stage_needs_is_asked_for_before_the_first(corpus, teacher_path, tmp_path, monkeypatch, setting):
    def fail(function):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(launch.torch, "compile", fail)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError, match=r"(compile=false|wandb=null)"):
        distill(load_config(RECIPE, options(corpus, teacher_path, tmp_path, f"stages.distil.{setting}")))
    assert not (tmp_path / "history.csv").exists()


def test_a_mistake_in_the_student_is_told_before_groups_are_found(corpus, teacher_path, tmp_path: Path) -> None:
    more = ["targets.layers=auto", "targets.student_layers=null", "student.num_layers=17"]
    with pytest.raises(SettingsError, match=r"student\.num_layers: found 17"):
        distill(load_config(RECIPE, options(corpus, teacher_path, tmp_path, *more)))
    assert not tmp_path.exists()


def test_other_batches_in_a_step_are_told(run, caplog) -> None:
    run("stages.distil.trainer.max_steps=3", "trainer.accumulate=3")
    assert "a step is made of 3 batches from here on (devices x accumulate), of 1 before" in caplog.text


def test_a_teacher_in_low_precision_teaches_two_stages(corpus, teacher_path, tmp_path: Path) -> None:
    more = ("teacher.autocast=true", "trainer.precision=bf16", "targets.cache=null")
    distill(load_config(RECIPE, options(corpus, teacher_path, tmp_path, *more)))
    assert last_checkpoint(tmp_path)["progress"]["step"] == 2


def test_weights_and_biases_is_told_everything(make_config, tmp_path: Path, monkeypatch) -> None:
    told: dict = {"lines": []}

    class Run:
        def log(self, values) -> None:
            told["lines"].append(values)

        def finish(self, exit_code) -> None:
            told["exit_code"] = exit_code

    fake, ids = types.ModuleType("wandb"), []
    fake.init = lambda id, **options: ids.append(id) or told.update(options) or Run()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    distill(make_config(tmp_path / "other", "log.wandb=students", "trainer.max_steps=1"))
    told["lines"].clear()
    for steps in (3, 6):
        options = ("log.wandb=students", "validation.every_steps=6", f"trainer.max_steps={steps}")
        distill(make_config(tmp_path / "run", *options))
    assert ids[0] != ids[1] == ids[2] and told["resume"] == "allow"  # a stop makes no new run there
    assert told["project"] == "students" and told["group"] == "run" and told["exit_code"] == 0
    assert [line["step"] for line in told["lines"] if "distil/loss" in line] == [2, 3, 4, 6]
    assert any("distil/validation/cosine/clean" in line for line in told["lines"])
    assert told["config"]["recipe"] == "robustdistiller"


def test_weights_and_biases_that_is_not_installed_is_told(make_config, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError, match=r"log\.wandb=students needs the package wandb.*pip install wandb"):
        distill(make_config(tmp_path, "log.wandb=students"))


class Ran(Watch):
    """Also how often layers of teacher and student were run in each stage, and what was trained."""

    def __init__(self):
        super().__init__()
        self.layers, self.trained = [], []

    def on_train_start(self, distiller) -> None:
        super().on_train_start(distiller)
        self.layers.append([0, 0])
        for whose, model in enumerate((distiller.teachings[0].model, distiller.student)):
            for layer in model.transformer.layers:
                layer.register_forward_hook(lambda *_, whose=whose, counts=self.layers[-1]: _add(counts, whose))
        self.trained.append({name for name, weight in distiller.named_parameters() if weight.requires_grad})


def _add(counts: list[int], which: int) -> None:
    counts[which] += 1


@pytest.mark.parametrize(("width", "layers"), [(24, "[projected,2]"), (16, "[projected,2]"), (16, "[2,projected]")])
def test_a_front_end_is_trained_alone(corpus, teacher_path, tmp_path: Path, width: int, layers: str) -> None:
    recipe = tmp_path / "front.yaml"
    recipe.write_text(
        "base: distilhubert\n"
        f"student: {{conv_layers: log_mel, num_layers: 2, embed_dim: {width}, num_heads: 2, ffn_dim: 20}}\n"
        f"targets: {{layers: {layers}, match: layers, share_maps: false}}\n"
        "stages: {warm: {student: {trains: front_end}}, distil: {}}\n"
    )
    short = ("trainer.max_steps=2", "trainer.batch_size=4", "trainer.accelerator=cpu", "data.num_workers=0")
    validated = ("validation.every_steps=2", "targets.cache={}", "optim.lr=1e-2")
    where = (f"teacher.checkpoint={teacher_path}", f"data.speech={corpus.speech}", f"out_dir={tmp_path / 'run'}")
    ran = Ran()
    distill(load_config(recipe, [*where, *short, *validated]), callbacks=[ran])
    warm, distilled = ran.layers
    assert warm == [0, 0] and min(distilled) > 0
    alone = {name for name in ran.trained[0] if not name.startswith("student.extractor.")}
    mapped = {"targets.0.maps.0.weight", "targets.0.maps.0.bias"} if width != 24 else set()
    assert alone == mapped | {name for name in alone if name.startswith("student.projection")}
    begun, ended = ran.begun[1]["targets.0.maps.0.weight"], ran.ended[0]["targets.0.maps.0.weight"]
    if width == 24:  # what the front end gives is the teacher's, without a map
        assert torch.equal(begun, torch.eye(24)) and torch.equal(ended, torch.eye(24))
    else:  # the map is that of the target, wherever it stands
        assert torch.equal(begun, ended) == layers.startswith("[projected")
    lines = (tmp_path / "run" / "validation.csv").read_text().splitlines()
    assert lines[1].startswith("warm,2,clean")
