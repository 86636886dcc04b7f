"""Emotion recognition: five runs, one number, and none before all five are there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.results.files import record_path, write_record
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, write_outcomes
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
    board = leaderboard([tmp_path])
    (mine,) = board.measured
    (column,) = mine.cells
    assert column.task_title == "ER" and any(column in row.cells for row in board.rows if row.published)
    mean = sum(accuracies.values()) / 5
    assert mine.cells[column].value == pytest.approx(mean, abs=1e-9)
    pooled = 100 * sum(SIZES[f] * a / 100 for f, a in accuracies.items()) / sum(SIZES.values())
    assert abs(pooled - mean) > 0.05, "folds count the same, whatever their size"
    low, high = mine.cells[column].estimate.interval
    assert low < mean < high


def test_without_all_folds_there_is_no_mean_and_the_folds_stand_alone(tmp_path):
    write_folds(tmp_path)
    write_folds(tmp_path, "teacher")
    for path in tmp_path.rglob("test-fold[25]-*.json"):
        if "bbbb" in str(path.parent):  # the student's digest
            path.unlink()
    board = leaderboard([tmp_path], published=False)
    assert [column.test for column in board.row("teacher").cells] == [""]
    assert [column.test.partition(",")[0] for column in board.row("student").cells] == ["fold1", "fold3", "fold4"]
    assert any("where some are missing" in note for note in board.notes)


def test_seeds_are_averaged_after_folds(tmp_path):
    first, second = write_folds(tmp_path, seed=1), write_folds(tmp_path, seed=2)
    (cell,) = leaderboard([tmp_path], published=False).rows[0].cells.values()
    assert cell.value == pytest.approx(np.mean([*first.values(), *second.values()]))
    assert list(cell.values) == [1, 2] and len(cell.units) == 5531
