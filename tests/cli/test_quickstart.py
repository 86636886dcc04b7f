"""The quickstart in a tiny setting: stopped, continued, its table and picture, its sweep's file run again."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.cli.quickstart_plan import Quickstart
from robustdistiller.common.files import write_text
from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.sweep import load
from robustdistiller.eval.sweep.engine import Outcome
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint
from tests.waiting import HANG_S, wait_until

CONDITIONS = ["clean", "noise+reverb:snr_db=10"]
TASKS = {"initials": 346}  # the smallest
LABELS = ["shipped student", "teacher", "plain student", "robust student", "filter bank"]  # by size: teacher is tiny


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A tiny random teacher with as many layers as the shipped one."""
    torch.manual_seed(0)
    config = EncoderConfig(
        conv_layers=((16, 10, 5), *((16, 3, 2),) * 4, *((16, 2, 2),) * 2),
        embed_dim=16,
        num_layers=5,
        num_heads=2,
        ffn_dim=32,
        position_groups=4,
    )
    path = tmp_path_factory.mktemp("teacher") / "teacher.ckpt"
    save_checkpoint(path, SpeechEncoder(config), {})
    return path


@pytest.fixture(scope="module")
def finished(teacher, corpus, tmp_path_factory) -> tuple[Path, str, str]:
    """The folder after it was stopped once and continued, and what both calls printed."""
    out = tmp_path_factory.mktemp("job") / "quickstart"
    shutil.copytree(corpus.root, out / "corpus", copy_function=os.link)  # takes half a minute to make
    options = ["--out", str(out), "--teacher", str(teacher), "--steps", "3", "--head-steps", "1", "--jobs", "2"]
    options += [part for task in TASKS for part in ("--task", task)]
    options += [part for condition in CONDITIONS for part in ("--condition", condition)]
    command = [sys.executable, "-m", "robustdistiller.cli", "quickstart", *options]
    log = out.parent / "first.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        wait_until(lambda: list(out.glob("heads/*/*/lr-*")), process)  # corpus and students are there
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(HANG_S) == 130, log.read_text()
    made = {path: path.stat().st_mtime_ns for path in (out / "corpus" / "corpus.json", *out.glob("students/*/*.ckpt"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(made) == 3 and {path: path.stat().st_mtime_ns for path in made} == made, "what was finished is reused"
    return out, log.read_text(), done.stdout


def test_stopping_is_announced_and_what_was_finished_is_not_done_again(finished):
    _, first, second = finished
    assert "mini corpus: done" in first
    took = re.search(r"distil plain student: done \((\d+) s\)", first)
    assert took and int(took[1]) >= 1, "a process that imports PyTorch takes more than a second"
    assert "what is finished is kept: the same command goes on from here" in first
    assert "distil" not in second.split("Done in")[0] and "teacher / initials / seed 1337: evaluating: done" in second


def test_one_record_per_upstream_and_condition(finished):
    out, _, _ = finished
    records = read_records(out)
    every = sorted((u, t, c) for u in LABELS for t in TASKS for c in CONDITIONS)
    assert sorted((r.label, r.task, r.condition) for r in records) == every
    for task, items in TASKS.items():
        assert {(r.status, r.items_scored, r.items_expected) for r in records if r.task == task} == {
            ("ok", items, items)
        }
        for condition in CONDITIONS:  # everybody heard the same
            assert len({r.manifest_digest for r in records if (r.task, r.condition) == (task, condition)}) == 1
    digests = {r.label: r.checkpoint_digest for r in records}
    assert len(set(digests.values())) == 5 and digests["filter bank"] == "none"


def test_table_and_picture(finished):
    out, _, printed = finished
    for task, items in TASKS.items():
        _, heading, table = printed.partition(f"{task} ({items} items): accuracy (%), higher is better")
        assert heading
        positions = [re.search(rf"^ *{label}\s", table, re.MULTILINE).start() for label in LABELS]
        assert positions == sorted(positions)
        assert (out / f"{task}-test-{items}_items.png").stat().st_size > 20_000
    assert len((out / "leaderboard.csv").read_text().splitlines()) == 1 + len(LABELS) * len(TASKS) * len(CONDITIONS)
    assert str(out / "records") in printed and "Everything is in" in printed


def test_started_once_more_it_only_shows_the_table(finished, teacher):
    out, _, _ = finished
    options = ["--teacher", str(teacher), "--steps", "3", "--head-steps", "1", "--jobs", "2"]
    options += [part for task in TASKS for part in ("--task", task)]
    options += [part for condition in CONDITIONS for part in ("--condition", condition)]
    result = CliRunner().invoke(app, ["quickstart", "--out", str(out), *options])
    assert result.exit_code == 0, result.output
    assert "distil plain" not in result.output.split("Done in")[0] and "evaluating" not in result.output


def test_the_table_can_be_made_again(finished, tmp_path):
    out, _, _ = finished
    options = ["--no-published", "--reference", "teacher", "--out", str(tmp_path), "--format", "csv"]
    result = CliRunner().invoke(app, ["leaderboard", str(out), *options])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "leaderboard.csv").read_bytes() == (out / "leaderboard.csv").read_bytes()


def test_its_sweep_is_a_file_that_can_be_run_again(finished):
    out, _, _ = finished
    result = CliRunner().invoke(app, ["sweep", str(out / "quickstart.yaml"), "--dry-run"])
    assert result.exit_code == 0 and "0 cells to run, 10 not; 0 heads to train." in result.output


def test_a_missing_teacher_is_said_at_once(tmp_path):
    result = CliRunner().invoke(
        app, ["quickstart", "--out", str(tmp_path / "q"), "--teacher", str(tmp_path / "no.ckpt")]
    )
    assert result.exit_code == 2 and "no teacher at" in result.output and not (tmp_path / "q").exists()


@pytest.mark.parametrize(("option", "given", "meant"), [("--condition", "noise:snr=5", "snr_db"),
                                                        ("--task", "word", "words")])  # fmt: skip
def test_what_does_not_exist_is_refused_before_anything_is_made(tmp_path, teacher, option, given, meant):
    options = ["--out", str(tmp_path / "q"), "--teacher", str(teacher), option, given]
    result = CliRunner().invoke(app, ["quickstart", *options])
    assert result.exit_code == 2 and f"did you mean '{meant}'?" in result.output and not (tmp_path / "q").exists()


def test_other_settings_make_other_students(tmp_path, teacher):
    plan = Quickstart(tmp_path / "a", teacher, 3, 0, 2, "cpu", 1337, ("words",), ("clean",))
    for job in plan.distillations():
        Outcome("done").write(job.folder)
    for checkpoint in plan.students.values():
        write_text(checkpoint, "")
    assert plan.distillations() == []
    more = dataclasses.replace(plan, steps=4)
    assert len(more.distillations()) == 2 and not set(more.students.values()) & set(plan.students.values())
    (tmp_path / "a").rename(tmp_path / "b")
    moved = dataclasses.replace(plan, out=tmp_path / "b")
    assert moved.distillations() == [], "a folder may be moved"
    moved.students["plain student"].unlink()
    assert [job.title for job in moved.distillations()] == ["distil plain student"]


def test_the_sweep_s_file_says_what_the_quickstart_was_asked_for(tmp_path, teacher):
    tables = tmp_path / "007 #1" / "corpus" / "tasks"
    tables.mkdir(parents=True)
    lines = ["path,label,split"]
    for split in ("train", "dev", "test"):
        soundfile.write(tables / f"{split}.wav", np.ones(800), 16_000)
        lines.append(f"{split}.wav,yes,{split}")
    for task in ("words", "voices"):
        (tables / f"{task}.csv").write_text("\n".join(lines))
    plan = Quickstart(tmp_path / "007 #1", teacher, 500, 80, 2, "auto", 3, ("words", "voices"), ("clean",))
    config = load(plan.write_sweep())
    assert config.out == str(tmp_path / "007 #1") and config.seeds == [3] and config.conditions == ["clean"]
    assert config.tasks[0].override["runner.eval_step"] == 10 and config.tasks[0].learning_rates == [1e-2]
    assert [task.name for task in config.tasks] == ["words", "voices"] and config.upstreams[0].label == "teacher"


@pytest.mark.parametrize(("has_matrix_unit", "precision"), [(True, "bf16"), (False, "fp32")])
def test_bfloat16_is_for_processors_with_a_matrix_unit(tmp_path, teacher, monkeypatch, has_matrix_unit, precision):
    # A processor that computes in bfloat16 without one (AVX-512) takes twice as long as in float32.
    found = {"avx512_bf16": True, "amx_bf16": has_matrix_unit}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    plan = Quickstart(tmp_path, teacher, 3, 0, 2, "cpu", 1337, ("words",), ("clean",))
    settings = [job.work.args[1] for job in plan.distillations()]
    assert len(settings) == 2 and all(f"trainer.precision={precision}" in one for one in settings)
