"""The study as it runs: students that are trained once, a sweep that asks for the right things, pages from records."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from research.recipe_study import __main__ as study
from research.recipe_study import distil
from research.recipe_study.comparisons import open_test_sets
from research.recipe_study.distil import distil_all, runs_of, settings_of
from research.recipe_study.plan import Comparison, Student, Way, load_plan
from research.recipe_study.report import board_of, write_finalists, write_screening
from research.recipe_study.sweep import write_sweep
from robustdistiller.common.settings import SettingsError
from robustdistiller.eval.results.files import record_path, write_record
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, write_outcomes
from robustdistiller.eval.results.record import Metric
from robustdistiller.eval.sweep import load
from robustdistiller.eval.sweep.cells import expand
from robustdistiller.eval.sweep.engine import InProcess
from robustdistiller.pretrain import load_config, stages_of
from robustdistiller.pretrain.student.build import build_student
from robustdistiller.upstream import (
    EncoderConfig,
    SpeechEncoder,
    checkpoint_digest,
    load_encoder,
    read_checkpoint,
    save_checkpoint,
)
from tests.records import example_record

PARAMETERS = "student without prediction heads"

HERE = Path(distil.__file__).parent


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(distil, "Pool", lambda workers: InProcess())


def test_every_student_of_the_plans_can_be_built_and_has_as_many_steps():
    plan = load_plan(HERE / "fast_plan.yaml")
    assert plan.students.keys() == load_plan(HERE / "plan.yaml").students.keys()
    steps = {"untrained": 1}
    teacher = distil.teacher_of(plan)
    encoder = load_encoder(teacher)
    for name, student in plan.students.items():
        settings = [*settings_of(plan, name), "probe.data=words.csv", f"teacher.checkpoint={teacher}"]
        stages = stages_of(load_config(student.recipe, settings))
        assert sum(stage.config.trainer.max_steps for stage in stages) == steps.get(name, plan.steps)
        assert {stage.config.trainer.precision for stage in stages} == {"fp32"}
        built = build_student(stages[0].config, encoder)
        assert built.config.downsample_rate == encoder.config.downsample_rate


def test_students_are_trained_once_and_measured(plan, materials, tmp_path):
    said = []
    runs = runs_of(dataclasses.replace(plan, finalists={}), "screening", materials)
    assert [(run.name, run.seed) for run in runs] == [("plain", 0), ("robust", 0)]
    assert distil_all(runs, 1, said.append) == []
    assert all(run.finished for run in runs) and len(said) == 2
    heard = [read_checkpoint(run.checkpoint).metadata["corruption"] for run in runs]
    assert heard[0] is None and heard[1] is not None
    for run in runs:
        assert PARAMETERS in read_checkpoint(run.checkpoint).metadata["parameters"], "the page shows it"
        table = pd.read_csv(run.folder / "validation.csv")
        assert table.step.unique().tolist() == [2, 3] and table.probe_accuracy.notna().all()
        assert set(table.condition) == {"clean", "noise:snr_db=5", "reverb", "noise+reverb:snr_db=10"}
    assert distil_all(runs, 1, said.append) == [] and len(said) == 2, "trained again"

    changed = runs_of(dataclasses.replace(plan, steps=4), "screening", materials)
    assert not any(run.finished for run in changed), "another number of steps is another student"


def test_one_that_fails_does_not_stop_the_others_and_goes_on_later(plan, materials, tmp_path, monkeypatch):
    other = dataclasses.replace(plan, steps=2, settings=[*plan.settings, "optim.lr=3e-4"])
    runs = runs_of(other, "screening", materials)
    kept = load_config
    monkeypatch.setattr(
        distil, "load_config", lambda recipe, *rest: {}[recipe] if recipe == "distilhubert" else kept(recipe, *rest)
    )
    failures = distil_all(runs, 1, print)
    assert len(failures) == 1 and failures[0].startswith("plain, seed 0 failed: KeyError") and "log.txt" in failures[0]
    assert [run.finished for run in runs] == [False, True]
    monkeypatch.undo()
    monkeypatch.setattr(distil, "Pool", lambda workers: InProcess())
    assert distil_all(runs, 1, print) == [] and all(run.finished for run in runs)


def test_settings_that_a_recipe_does_not_take_name_the_student(plan, materials):
    plan.students["robust"].settings.append("student.num_layer=3")
    with pytest.raises(SettingsError, match=r"students.robust: unknown key 'student.num_layer'; did you mean"):
        runs_of(plan, "screening", materials)


@pytest.fixture
def runs(plan, materials):
    """Runs of finalists, students made up."""
    found = runs_of(plan, "finalists", materials)
    for place, run in enumerate(found):
        run.folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(place)
            metadata = {
                "config": {"trainer": {"precision": "fp32"}},
                "parameters": {PARAMETERS: 1e6},
            }
            save_checkpoint(run.checkpoint, SpeechEncoder(EncoderConfig.tiny(num_layers=5)), metadata)
        run.job.folder.mkdir(exist_ok=True)
        distil.Outcome("done", wall_s=60.0).write(run.job.folder)
        lines = ["step,condition,l1,cosine,probe_accuracy"]
        lines += [f"{step},clean,{1 / step},{1 / (step + place)},{step / 10 + place / 100}" for step in (1, 2, 3)]
        (run.folder / "validation.csv").write_text("\n".join(lines))
        lines = ["stage,step,audio_h", "prune,1,0.1", "prune,2,0.25", "distil,1,0.05"]
        (run.folder / "history.csv").write_text("\n".join(lines))
    return found


def test_finalists_are_scored_on_test_sets_and_screening_on_development_sets(plan, runs, materials):
    finalists = load(write_sweep(plan, "finalists", runs, materials, 2))
    groups = expand(finalists)
    assert [(group.system.upstream.label, group.seed) for group in groups] == [
        *(("teacher", 1), ("teacher", 2), ("fbank", 1), ("fbank", 2), ("plain / seed 1", 1), ("robust / seed 1", 1)),
        *(("plain / seed 2", 2), ("robust / seed 2", 2)),
    ]
    assert {cell.split for group in groups for cell in group.cells} == {"test"}
    screening = load(write_sweep(plan, "screening", runs[:2], materials, 2))
    assert {cell.split for group in expand(screening) for cell in group.cells} == {"dev"}
    digests = []
    for config in (finalists, screening):
        drawn = [kinds for group in expand(config) for kinds in group.sources.values()]
        digests.append({one["digest"] for kinds in drawn for one in kinds.values()})
    assert digests[0] and not digests[0] & digests[1], "what is chosen by is heard in the tests"


@pytest.mark.slow
def test_what_is_made_of_students_is_scored_beside_them(plan, runs, materials, tmp_path):
    ways = {
        "int8": Way(["plain"], export="onnx-int8-dynamic"),
        "in chunks": Way(["plain"], options={"chunk_frames": 8}),
        "half robust": Way(["plain"], merge="robust"),
    }
    plan = dataclasses.replace(plan, ways=ways)
    found = {
        group.system.upstream.label: group for group in expand(load(write_sweep(plan, "finalists", runs, materials, 2)))
    }
    assert {name.partition(" / ")[0] for name in found} == set(plan.systems())
    assert {name for name in found if name.startswith("plain, ")} == {
        f"plain, {way} / seed {seed}" for way in ways for seed in (1, 2)
    }
    chunked, int8 = (found[f"plain, {way} / seed 2"].system.upstream for way in ("in chunks", "int8"))
    assert int8.name == "robustdistiller_onnx" and Path(int8.checkpoint).parent == runs[2].folder
    assert yaml.safe_load(Path(chunked.options).read_text()) == {"chunk_frames": 8}
    write_answers(tmp_path, "a", checkpoint_digest(int8.checkpoint), 2, (0.9, 0.9, 0.9), "test")
    write_answers(tmp_path, "b", checkpoint_digest(chunked.checkpoint), 2, (0.5, 0.5, 0.5), "test", chunked.options)
    write_answers(tmp_path, "c", checkpoint_digest(chunked.checkpoint), 2, (0.1, 0.1, 0.1), "test")
    means = {
        row.name: np.mean([cell.value for cell in row.cells.values()]) for row in board_of(tmp_path, plan, runs).rows
    }
    assert list(means) == ["plain", "plain, int8", "plain, in chunks"]
    half, plain, robust = (
        next(load_encoder(path).parameters()).detach()
        for path in (
            found["plain, half robust / seed 2"].system.upstream.checkpoint,
            *(found[f"{name} / seed 2"].system.upstream.checkpoint for name in ("plain", "robust")),
        )
    )
    torch.testing.assert_close(half, (plain + robust) / 2)
    assert means["plain, int8"] > 80 and 40 < means["plain, in chunks"] < 60 and means["plain"] < 20
    Comparison("Does int8 cost?", "plain, int8", "plain").check(plan)
    with pytest.raises(ValueError, match="there is no 'robust, int8'"):
        Comparison("?", "robust, int8", "plain").check(plan)


def test_a_checkpoint_from_elsewhere_is_scored_with_heads_of_every_seed(plan, runs, materials, tmp_path):
    path = tmp_path / "other.ckpt"
    shutil.copy(runs[1].checkpoint, path)
    save_checkpoint(path, load_encoder(path), {"name": "other"})
    plan = dataclasses.replace(plan, others={"other": str(path)})
    groups = expand(load(write_sweep(plan, "finalists", runs, materials, 2)))
    assert [group.seed for group in groups if group.system.upstream.label == "other"] == [1, 2]
    write_answers(tmp_path, "other", checkpoint_digest(path), 1, (0.9, 0.9, 0.9), "test")
    assert [row.name for row in board_of(tmp_path, plan, runs).rows] == ["other"]
    Comparison("Is it better?", "other", "plain").check(plan)
    with pytest.raises(ValueError, match="cannot have the same name"):
        dataclasses.replace(plan, others={"plain": str(path)})


def test_a_way_is_one_thing():
    with pytest.raises(ValueError, match="either export, options or merge"):
        Way(["plain"], "onnx", {"chunk_frames": 8})
    with pytest.raises(ValueError, match="either export, options or merge"):
        Way(["plain"])


def test_a_task_that_is_not_there_is_named(plan, runs, materials):
    with pytest.raises(SettingsError, match="tasks: there is no 'letters', expected some of finals, initials"):
        write_sweep(dataclasses.replace(plan, tasks={"letters": 1e-2}), "finalists", runs, materials, 1)


def write_answers(
    folder: Path, label: str, digest: str, seed: int, shares: tuple[float, ...], split: str, options: str | None = None
) -> None:
    names = [f"word/{i}.wav" for i in range(200)]
    for place, (condition, share) in enumerate(zip(("clean", "noise:snr_db=5", "reverb"), shares)):
        right = np.random.default_rng([seed, place, len(label)]).random(200) < share
        kept = Outcomes.sort(names, {"accuracy": ItemScores(right.astype(int), np.ones(200, int))})
        one = example_record(
            upstream="fbank" if digest == "none" else "robustdistiller_local",
            label=label,
            checkpoint_digest=digest,
            checkpoint_digest_of="none" if digest == "none" else "file",
            upstream_options=Path(options).read_text() if options else "",
            task="pool_words",
            downstream="robustdistiller_csv",
            split=split,
            condition=condition,
            manifest_digest="none" if condition == "clean" else "ee" * 32,
            metrics=[Metric("accuracy", kept.metrics["accuracy"].value, True, "%")],
            items_expected=200,
            items_scored=200,
            seed=seed,
            learning_rate=1e-2,
        )
        pointer = write_outcomes(record_path(folder / "records", one).with_suffix(".npz"), kept)
        write_record(folder / "records", dataclasses.replace(one, outcomes=pointer))


@pytest.fixture
def records(plan, runs, teacher, tmp_path):
    shares = {"plain": (0.7, 0.4, 0.5), "robust": (0.7, 0.6, 0.6)}
    for run in runs:
        digest = checkpoint_digest(run.checkpoint)
        write_answers(tmp_path, f"{run.name} / seed {run.seed}", digest, run.seed, shares[run.name], "test")
    for seed in (1, 2):
        write_answers(tmp_path, "teacher", checkpoint_digest(teacher), seed, (0.8, 0.5, 0.5), "test")
        write_answers(tmp_path, "fbank", "none", seed, (0.5, 0.2, 0.3), "test")
    write_answers(tmp_path, "robust / seed 1", "ff" * 32, 1, (0.0, 0.0, 0.0), "test")  # of a plan before this one
    return tmp_path


def test_a_student_is_one_row_whatever_its_seeds(plan, runs, records):
    board = board_of(records, plan, runs)
    assert [row.name for row in board.rows] == ["plain", "robust", "teacher", "fbank"]
    assert all(set(cell.values) == {1, 2} for row in board.rows for cell in row.cells.values())
    assert min(cell.value for cell in board.row("robust").cells.values()) > 50, "another student's records are in it"
    assert any("3 records are of other students" in note for note in board.notes)


def test_the_page_of_finalists_answers_what_was_listed(plan, runs, records, tmp_path):
    with pytest.raises(SettingsError, match="run the stage finalists, which opens the test sets"):
        write_finalists(plan, runs, records, tmp_path / "out")
    listed = [Comparison("Noise?", "robust", "plain"), Comparison("Clean?", "robust", "teacher", "clean")]
    path = tmp_path / "comparisons.yaml"
    path.write_text(yaml.safe_dump([dataclasses.asdict(one) for one in listed]))
    shutil.copy(open_test_sets(tmp_path / "before", path, plan), records)
    page = write_finalists(plan, runs, records, tmp_path / "out", [Comparison("Rooms?", "robust", "plain", ["reverb"])])
    text = page.read_text()
    answers, _, exploratory = text.partition("## Exploratory: not in the list")
    assert "Noise?" in answers and "Clean?" in answers and "Rooms?" not in answers
    assert "| Rooms? | robust - plain | reverb |" in exploratory and "(one test)" in exploratory
    table = pd.read_csv(tmp_path / "out" / "comparisons.csv").set_index("question")
    assert f"{table.gain['Noise?']:+.2f} ({table.low['Noise?']:+.2f} to {table.high['Noise?']:+.2f})" in answers
    assert table.seeds.eq(2).all() and table.gain["Noise?"] > 8
    assert "rank students alike" in text and "| robust | `robustdistiller` |" in text
    assert "| 1.00 | 0.30 |" in text, "hours of all stages"
    assert "| robust | " in text.partition("## Means over tasks")[2]
    assert all((page.parent / link).is_file() for link in _pictures(text))


def test_the_page_of_screening_sets_measures_beside_scores(plan, runs, records, tmp_path):
    page = write_screening(plan, runs, records, tmp_path / "out")
    line = next(line for line in page.read_text().splitlines() if line.startswith("| robust |"))
    values = dict(zip(["clean", "corrupted", "cosine", "l1", "probe"], line.strip("| ").split(" | ")[1:]))
    assert 60 < float(values["clean"]) < 80 and 50 < float(values["corrupted"]) < 70
    assert float(values["probe"]) == pytest.approx(np.mean([0.31, 0.33]), abs=1e-3), "the last step, both seeds"


def _pictures(text: str) -> list[str]:
    return [line.partition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]


def test_test_sets_stay_closed_without_a_list(plan, materials, pool, tmp_path, caplog):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(plan)))
    options = ["--plan", str(path), "--pool", str(pool), "--work", str(materials.work), "--out", str(tmp_path / "out")]
    assert study.main(["finalists", *options, "--comparisons", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: no such file" in caplog.text
    path.write_text(yaml.safe_dump({**dataclasses.asdict(plan), "finalists": {}}))
    assert study.main(["finalists", *options]) == 2
    assert "finalists is empty" in caplog.text


def test_a_recipe_that_warms_up_has_the_steps_of_the_others(plan):
    plan = dataclasses.replace(
        plan, steps=100, students={"fast": Student("fast50"), "ours": Student("ours")}, finalists={}
    )
    for name, shares in (("fast", {"warm": 50, "prune": 33, "distil": 17}), ("ours", {"prune": 67, "distil": 33})):
        config = load_config(
            plan.students[name].recipe, [*settings_of(plan, name), "probe.data=words.csv", "data.min_samples=1"]
        )
        assert {stage.name: stage.config.trainer.max_steps for stage in stages_of(config)} == shares
