"""Multi-task runs: both tasks, one task, frozen encoders, exact resume, export and test."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import soundfile
import torch
import typer
from typer.testing import CliRunner

from robustdistiller.cli.distill import distill as distill_command
from robustdistiller.pretrain import DistillConfig, RunInterrupted, SettingsError, distill, load_config
from robustdistiller.pretrain.data.unreadable import UnreadableAudioError
from robustdistiller.pretrain.multitask import run, tuning
from robustdistiller.pretrain.multitask.data import load_tasks
from robustdistiller.pretrain.multitask.heads import load_heads
from robustdistiller.pretrain.training.log import read_history
from robustdistiller.upstream import UpstreamExpert, checkpoint_digest, load_encoder, read_checkpoint

from ..conftest import assert_equal_states
from .conftest import Labelled, run_options

APP = typer.Typer()
APP.command()(distill_command)


@pytest.fixture(autouse=True)
def no_page(monkeypatch) -> None:
    """Drawing takes longer than training here; `straight` does draw."""
    monkeypatch.setattr("robustdistiller.pretrain.page.run.write_run_page", lambda folder: None)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, labelled: Labelled) -> Path:
    """Ten steps without interruption, through the command line."""
    out_dir = tmp_path_factory.mktemp("straight")
    done = CliRunner().invoke(APP, ["multitask", *run_options(labelled, out_dir)])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out_dir / "student.ckpt")
    return out_dir


def assert_same_run(found: Path, expected: Path) -> None:
    """Encoder, heads, optimizer, scheduler, both places in the data, the best step, and the test scores."""
    one, other = last_checkpoint_of(found), last_checkpoint_of(expected)
    for part in ("model", "optimizer", "progress"):
        assert_equal_states(one[part], other[part], part)
    assert set(one["progress"]["positions"]) == {"keywords", "speakers"}
    assert_equal_states(*(read_checkpoint(path / "student.ckpt").state_dict for path in (found, expected)), "student")
    heads = [torch.load(path / "heads.ckpt", weights_only=True)["state_dict"] for path in (found, expected)]
    assert_equal_states(*heads, "heads")
    assert (found / "dev.csv").read_text() == (expected / "dev.csv").read_text()
    assert results(found)["tests"] == results(expected)["tests"]


def last_checkpoint_of(out_dir: Path) -> dict:
    return torch.load(max(out_dir.glob("checkpoints/tune-*[0-9].ckpt")), weights_only=True)


def results(out_dir: Path) -> dict:
    return json.loads((out_dir / "results.json").read_text())


def test_both_tasks_are_learnt_and_tested(straight: Path, labelled: Labelled) -> None:
    lines = read_history(straight / "history.csv")
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10]
    assert lines[-1]["keywords_loss"] < lines[0]["keywords_loss"]
    assert lines[-1]["speakers_loss"] < lines[0]["speakers_loss"]
    assert lines[0]["loss"] == pytest.approx(lines[0]["keywords_loss"] + lines[0]["speakers_loss"], rel=1e-4)
    dev = read_history(straight / "dev.csv")
    assert [line["step"] for line in dev] == [2, 4, 6, 8, 10]
    for line in dev:
        error = (100 - line["keywords_accuracy"] + line["speakers_eer"]) / 2
        assert line["mean_error"] == pytest.approx(error, rel=1e-4)
    found = results(straight)
    best = min(dev, key=lambda line: (line["mean_error"], line["step"]))
    assert found["step"] == best["step"]
    assert found["student"] == checkpoint_digest(straight / "student.ckpt")
    page = (straight / "run.html").read_text(encoding="utf-8")
    assert "Finished." in page and "keywords accuracy" in page and "<td>10</td>" in page
    (clean,) = found["tests"]
    assert clean["condition"] == "clean" and clean["keywords"]["num_utterances"] == 6
    assert clean["keywords"]["accuracy"] == pytest.approx(100 * clean["keywords"]["num_correct"] / 6)
    counts = {key: clean["speakers"][key] for key in ("num_trials", "num_same_speaker", "num_utterances")}
    assert counts == {"num_trials": 5, "num_same_speaker": 2, "num_utterances": 6}
    assert clean["speakers"]["num_speakers_also_in_training"] == 0
    assert {path.name for path in (straight / "checkpoints").iterdir()} == {
        "tune-00000010.ckpt",
        "tune-best.ckpt",
    }


def test_what_comes_out_can_be_loaded_and_gives_the_same_answers(straight: Path, labelled: Labelled) -> None:
    encoder, heads = load_encoder(straight / "student.ckpt").eval(), load_heads(straight / "heads.ckpt")
    assert heads.config.labels == {"keywords": ["no", "stop", "yes"], "speakers": ["id0", "id1", "id2", "id3"]}
    right = 0
    for name in (labelled.keywords / "testing_list.txt").read_text().split():
        waveform = torch.from_numpy(soundfile.read(labelled.keywords / name, dtype="float32")[0])
        logits = heads["keywords"](encoder(waveform[None]))
        right += heads.config.labels["keywords"][logits.argmax()] == name.split("/")[0]
    assert right == results(straight)["tests"][0]["keywords"]["num_correct"]
    upstream = UpstreamExpert(straight / "student.ckpt")
    assert len(upstream([torch.zeros(8000)])["hidden_states"]) >= 3
    metadata = read_checkpoint(straight / "student.ckpt").metadata
    assert metadata["start"]["metadata"]["recipe"] == "untrained" and metadata["recipe"] == "multitask"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, labelled: Labelled) -> Path:
    """The same run, stopped after five steps."""
    out_dir = tmp_path_factory.mktemp("stopped")
    with pytest.raises(RunInterrupted, match="step 5 of 10"):
        distill(load_config("multitask", run_options(labelled, out_dir)), callbacks=[StopAt(5)])
    assert last_checkpoint_of(out_dir)["progress"]["step"] == 5 and not (out_dir / "student.ckpt").exists()
    return out_dir


def test_five_steps_and_five_more_equal_ten(make_run, straight: Path, stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    distill(make_run(tmp_path))
    assert_same_run(tmp_path, straight)


class StopAt:
    """Asks the run to stop, as a signal would."""

    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, tuner, report) -> None:
        if report.step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("lost", ["generators", "one place in the data", "the best step"])
def test_a_resume_that_loses_something_is_noticed(make_run, straight, stopped, tmp_path, monkeypatch, lost) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    if lost == "generators":
        original = tuning.seed_of
        monkeypatch.setattr(tuning, "seed_of", lambda seed, *place: original(seed + 1, *place))
    else:
        path = next((tmp_path / "checkpoints").glob("tune-*.ckpt"))
        saved = torch.load(path, weights_only=True)
        if lost == "the best step":
            saved["progress"]["best"] = {}
        else:
            saved["progress"]["positions"]["speakers"] = dataclasses.asdict(tuning.Position())
        torch.save(saved, path)
    distill(make_run(tmp_path))
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path, straight)


def test_each_step_updates_for_keywords_then_for_speakers(make_run, tmp_path: Path) -> None:
    updates: list[tuple[str, set[str]]] = []
    modes: list[bool] = []
    parts_of_interest = ("heads.keywords", "heads.speakers", "encoder.transformer")

    class Watch:
        def on_before_optimizer_step(self, tuner, task, step) -> None:
            reached = [name for name, one in tuner.named_parameters() if one.grad is not None]
            parts = {name for name in parts_of_interest if any(one.startswith(name) for one in reached)}
            updates.append((task, parts))
            modes.append(tuner.encoder.training)

    distill(make_run(tmp_path, "trainer.max_steps=2"), callbacks=[Watch()])
    one, other = {"heads.keywords", "encoder.transformer"}, {"heads.speakers", "encoder.transformer"}
    assert all(modes)  # with dropout
    assert updates == [("keywords", one), ("speakers", other)] * 2
    steps = last_checkpoint_of(tmp_path)["optimizer"]["state"]
    assert {int(state["step"]) for state in steps.values()} == {2, 4}  # heads, encoder


def test_a_frozen_encoder_stays_bit_for_bit(make_run, labelled: Labelled, tmp_path: Path) -> None:
    frozen = ("multitask.encoder=frozen", "multitask.features=weighted_sum", "multitask.dev_every_steps=9")
    distill(make_run(tmp_path, *frozen, "trainer.max_steps=4"))
    start, end = (read_checkpoint(path).state_dict for path in (labelled.student, tmp_path / "student.ckpt"))
    assert_equal_states(dict(end), dict(start))
    lines = read_history(tmp_path / "history.csv")
    assert lines[-1]["loss"] < lines[0]["loss"]
    heads = load_heads(tmp_path / "heads.ckpt")
    assert heads["keywords"].pool.layer_weights.abs().min() > 0
    assert not torch.equal(heads["keywords"].pool.layer_weights, heads["speakers"].pool.layer_weights)


def test_a_trainable_encoder_changes_everywhere(straight: Path, labelled: Labelled) -> None:
    start, end = (read_checkpoint(path).state_dict for path in (labelled.student, straight / "student.ckpt"))
    same = [name for name in start if torch.equal(start[name], end[name])]
    assert not same, same


@pytest.mark.parametrize("task", ["keywords", "speakers"])
def test_single_tasks(make_run, labelled: Labelled, teacher_path: Path, tmp_path: Path, task: str) -> None:
    other = {"keywords": "speakers", "speakers": "keywords"}[task]
    options = ["student.checkpoint=null", f"teacher.checkpoint={teacher_path}", "multitask.features=last_hidden"]
    limit = ["trainer.max_steps=2", "multitask.export=last", "multitask.speakers.margin=0.2"][
        : 3 if task == "speakers" else 2
    ]
    distill(make_run(tmp_path, *options, *limit, f"multitask.{other}=null"))
    (test,) = results(tmp_path)["tests"]
    assert task in test and other not in test
    assert results(tmp_path)["step"] == 2 and list(load_heads(tmp_path / "heads.ckpt")) == [task]
    assert load_encoder(tmp_path / "student.ckpt").config.num_layers == 5


def test_corrupted_training_and_conditions_added_to_a_finished_run(make_run, corpus, straight, tmp_path: Path) -> None:
    policy = 'corruption.tables=[{"noise:snr_db=0..20": 0.7, "noise:snr_db=0..20,noise=white": 0.3}]'
    options = ["trainer.max_steps=2", policy, f"data.noise={corpus.noise}"]
    distill(make_run(tmp_path, *options, 'multitask.conditions=["noise:snr_db=0,noise=white"]'))
    one, other = (read_history(path / "history.csv")[0] for path in (tmp_path, straight))
    assert one["keywords_loss"] != other["keywords_loss"]
    assert read_checkpoint(tmp_path / "student.ckpt").metadata["corruption"]["tables"][0]["noise:snr_db=0..20"] == 0.7
    digest, first = checkpoint_digest(tmp_path / "student.ckpt"), results(tmp_path)["tests"]
    assert [test["condition"] for test in first] == ["clean", "noise:snr_db=0,noise=white"]
    distill(make_run(tmp_path, *options, 'multitask.conditions=["noise:snr_db=-5", "clean"]'))
    tests = results(tmp_path)["tests"]
    assert tests[:2] == first and tests[2]["condition"] == "noise:snr_db=-5"
    assert len(tests) == 3 and checkpoint_digest(tmp_path / "student.ckpt") == digest
    assert tests[2]["corruption"]["sources"]["noise"]


def test_music_is_a_source_of_corruption_here_too(make_run, corpus, tmp_path: Path) -> None:
    policy = 'corruption.tables=[{"music:music_snr_db=5": 1}]'
    with pytest.raises(SettingsError, match=r"data\.music: .*give data\.music="):
        distill(make_run(tmp_path, policy))
    distill(make_run(tmp_path, policy, f"data.music={corpus.noise}", "trainer.max_steps=1"))
    assert read_checkpoint(tmp_path / "student.ckpt").metadata["identity"]["corruption"]["sources"]["music"]


def test_recordings_that_break_are_left_out_and_counted(labelled: Labelled, tmp_path: Path) -> None:
    """As many as the budget allows; a batch of which nothing is left makes no step; a run that goes on counts on."""
    words, lists = tmp_path / "keywords", f"data.manifest_dir={tmp_path / 'lists'}"
    shutil.copytree(labelled.keywords, words)
    own = Labelled(words, labelled.speakers, labelled.student)
    more = ["multitask.keywords.batch_size=1", "trainer.max_steps=20", lists]

    def config(out_dir: Path, *overrides: str) -> DistillConfig:
        options = [one for one in run_options(own, out_dir) if ".speakers." not in one]
        return load_config("multitask_keywords", [*options, *more, *overrides])

    load_tasks(config(tmp_path), tmp_path)
    for file in (words / "yes" / "0.wav", words / "no" / "1.wav"):
        stamp = file.stat()
        file.write_bytes(bytes(stamp.st_size))
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(UnreadableAudioError, match=r"2 recordings .*data\.unreadable_budget=1 allows"):
        distill(config(tmp_path / "a", "data.unreadable_budget=1", "trainer.save_every_steps=1"))
    distill(config(tmp_path / "a"))
    distill(config(tmp_path / "b"))
    one, other = (last_checkpoint_of(tmp_path / name) for name in "ab")
    assert_equal_states(one, other)
    assert one["progress"]["step"] == 20 and one["progress"]["positions"]["keywords"]["batches"] > 20
    assert len(one["unreadable"]) == 2 and len((tmp_path / "a" / "unreadable.txt").read_text().splitlines()) == 2


def test_the_best_step_is_exported_not_the_last(make_run, tmp_path: Path, monkeypatch) -> None:
    errors = iter([30.0, 10.0, 10.0])
    monkeypatch.setattr(run, "named_scores", lambda scores: {"mean_error": next(errors)})
    snapshots = {}

    class Keep:
        def on_step_end(self, tuner, report) -> None:
            snapshots[report.step] = tuner.encoder.state_dict()["projection.weight"].clone()

    distill(make_run(tmp_path, "trainer.max_steps=6"), callbacks=[Keep()])
    exported = read_checkpoint(tmp_path / "student.ckpt").state_dict["projection.weight"]
    assert torch.equal(exported, snapshots[4]) and not torch.equal(exported, snapshots[6])
    assert results(tmp_path)["step"] == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["student.checkpoint=null"], r"found 0 models to fine-tune.*student\.checkpoint=NAME"),
        (["teacher.checkpoint=x.pt"], "found 2 models to fine-tune"),
        (["objectives.l1=2", "student.num_layers=3"], r"objectives\.l1.*student\.num_layers: means nothing"),
        (["trainer.devices=2"], r"trainer\.devices: means nothing"),
        (["multitask.conditions=[noise:snr=3]"], r"conditions: unknown key 'snr'"),
        (["multitask.conditions=[noise:snr_db=3]"], r"data\.noise: .*there are none"),
        (
            ['multitask.conditions=["noise:snr_db=3,noise=/a", "noise:snr_db=3,noise=/b"]'],
            "expected different conditions",
        ),
        (["multitask.speakers=null", "multitask.keywords=null"], "at least one task"),
    ],
)
def test_settings_that_cannot_work_are_refused(make_run, tmp_path: Path, overrides, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        distill(make_run(tmp_path, *overrides))


def test_predictions_need_prediction_heads(make_run, teacher_path: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no prediction heads.*multitask\.features=last_hidden or weighted_sum"):
        distill(make_run(tmp_path, "student.checkpoint=null", f"teacher.checkpoint={teacher_path}"))


def test_another_run_in_the_same_folder_is_refused(make_run, straight: Path, labelled: Labelled) -> None:
    with pytest.raises(SettingsError, match=r"(?s)multitask\.speakers\.margin: 0\.0 there, 0\.2 now.*speech: "):
        distill(make_run(straight, "multitask.speakers.margin=0.2", "multitask.speakers.dev_share=0.2"))
