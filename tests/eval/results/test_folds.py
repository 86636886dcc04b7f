"""Emotion recognition: five runs, one number, and none before all five are there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.report.compare import Side, missing_cells
from robustdistiller.eval.report.measured import measured_systems, read_systems
from robustdistiller.eval.report.published import load_published
from robustdistiller.eval.report.rows import build_board
from robustdistiller.eval.report.table import build_tables
from robustdistiller.eval.report.tables import clean_grid
from robustdistiller.eval.results.files import read_records, record_path, write_record
from robustdistiller.eval.results.folds import mean_over_folds
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, write_outcomes
from robustdistiller.eval.results.record import RecordError
from tests.eval.report import boards

SIZES = {"fold1": 1085, "fold2": 1023, "fold3": 1151, "fold4": 1031, "fold5": 1241}


def write_folds(root, label="student", seed=1337, gain=0.0):
    """Answers to a test set as large as the benchmark's, one record per fold; returns the accuracy of each."""
    accuracies = {}
    for number, (fold, size) in enumerate(SIZES.items()):
        right = (np.random.default_rng([number, seed]).random(size) < 0.6 + 0.02 * number + gain).astype(int)
        items = Outcomes.sort([f"{fold}/{i}" for i in range(size)], {"accuracy": ItemScores(right, np.ones(size, int))})
        accuracies[fold] = items.metrics["accuracy"].value
        one = boards.record(label, value=accuracies[fold], items=size, task="ER", fold=fold, seed=seed)
        pointer = write_outcomes(record_path(root, one).with_suffix(".npz"), items)
        write_record(root, dataclasses.replace(one, outcomes=pointer))
    return accuracies


def test_the_leaderboard_shows_the_mean_of_five_folds_beside_published_numbers(tmp_path):
    accuracies = write_folds(tmp_path)
    board = build_board(read_systems([tmp_path]), load_published(), draws=200)
    (mine,) = [row for row in board.rows if not row.published]
    (column,) = mine.cells
    assert column.task_title == "ER" and any(column in row.cells for row in board.rows if row.published)
    mean = sum(accuracies.values()) / 5
    assert mine.cells[column].value == pytest.approx(mean, abs=1e-9)
    pooled = 100 * sum(SIZES[f] * a / 100 for f, a in accuracies.items()) / sum(SIZES.values())
    assert abs(pooled - mean) > 0.05, "folds count the same, whatever their size"
    assert mine.cells[column].low < mean < mine.cells[column].high


def test_without_all_folds_there_is_no_number_but_a_note(tmp_path):
    write_folds(tmp_path)
    write_folds(tmp_path, "teacher")
    for path in tmp_path.rglob("test-fold[25]-*.json"):
        if "bbbb" in str(path.parent):  # the student's digest
            path.unlink()
    board = build_board(read_systems([tmp_path]), None)
    sentence = (
        "student, ER test, clean, seed 1337 is not shown: it is the mean over 5 folds, and fold2, fold5 are missing"
    )
    assert sentence in board.notes
    assert {row.name: len(row.cells) for row in board.rows} == {"teacher": 1, "student": 0}


def test_seeds_are_averaged_after_folds(tmp_path):
    first, second = write_folds(tmp_path, seed=1), write_folds(tmp_path, seed=2)
    (system,) = read_systems([tmp_path])
    (cell,) = system.cells.values()
    assert cell.values["accuracy"] == pytest.approx(np.mean([*first.values(), *second.values()]))
    assert [record.seed for record in cell.records] == [1, 2] and cell.items_scored == 5531


def test_tables_show_each_fold_and_the_mean(tmp_path):
    accuracies = write_folds(tmp_path)
    titles = {table.title: table.values.iloc[0, 0] for table in build_tables(read_records(tmp_path))}
    assert len(titles) == 6
    assert titles["ER test (fold3): accuracy (%), higher is better, 1151 items"] == pytest.approx(accuracies["fold3"])
    mean = titles["ER test (mean of 5 folds): accuracy (%), higher is better, 5531 items"]
    assert mean == pytest.approx(sum(accuracies.values()) / 5)


def test_a_fold_twice_is_refused(tmp_path):
    write_folds(tmp_path)
    records = read_records(tmp_path)
    with pytest.raises(RecordError, match="needs each of its folds once, found fold1, fold1, fold2"):
        mean_over_folds([*records, records[0]])


def test_what_is_missing_is_listed_fold_by_fold(tmp_path):
    write_folds(tmp_path)
    (have,) = read_systems([tmp_path])
    lack = measured_systems({tmp_path / "x.json": boards.record("other")})[0]
    (missing, _) = missing_cells(Side("other", lack), Side("student", have), "records")
    trained = [command for command in missing.commands if "-m train" in command]
    assert len(trained) == 5 and len(missing.commands) == 10
    assert "test_fold='\"'\"'fold4'\"'\"''" in trained[3] and "HEAD_OF_other_ON_ER_fold4" in missing.commands[7]


@pytest.mark.usefixtures("bridge")
def test_a_sweep_runs_all_folds(tmp_path, toy_corpora):
    override = toy_corpora.build("ER", tmp_path / "corpus")
    data = {name: override.pop(f"config.downstream_expert.datarc.{name}") for name in ("root", "meta_data")}
    override |= {f"runner.{name}": 1 for name in ("total_steps", "eval_step", "save_step", "log_step")}
    settings = {
        "out": str(tmp_path / "out"),
        "upstreams": ["fbank"],
        "tasks": [{"task": "ER", "data": data, "override": override}],
        "learning_rates": ["1e-3"],
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(app, ["sweep", str(file)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "5 cells to run, 0 not; 5 heads to train" in result.output
    records = read_records(tmp_path / "out" / "records")
    assert sorted(record.fold for record in records) == list(SIZES)
    assert len({record.rules_digest for record in records}) == 1, "folds share their configuration"
    tested = {record.fold: list((tmp_path / "out").rglob(f"test_{record.fold}_predict.txt")) for record in records}
    for fold, (predictions,) in tested.items():
        lines = predictions.read_text().split()
        assert lines and all(f"Session{fold[-1]}" in name or f"Ses0{fold[-1]}" in name for name in lines[::2])
    grid = clean_grid(build_board(read_systems([tmp_path / "out"]), None))
    mean = sum(record.main_metric.value for record in records) / 5
    items = sum(record.items_scored for record in records)
    assert grid.rows[0][3].split() == [f"{mean:.2f}", "‡"] and grid.header[3] == f"ER ({items} items)"
    assert any(f"the test set has {items} items, not 5531" in note for note in grid.notes)
    assert not any("items" in phrase for record in records for phrase in record.non_standard), "a fold is no test set"
    again = CliRunner().invoke(app, ["sweep", str(file), "--dry-run"], catch_exceptions=False)
    assert "0 cells to run, 5 not" in again.output
