"""The leaderboard: what stands in which column, and that nothing is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from robustdistiller.eval.cost.record import Profile, write_profile
from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.report.page.html import page_data
from robustdistiller.eval.report.published import load_published
from robustdistiller.eval.report.tables import clean_grid, grids
from robustdistiller.eval.results.files import record_path, write_record
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, write_outcomes
from robustdistiller.eval.results.record import Metric
from robustdistiller.eval.tasks import TASKS
from tests.records import published_value

from . import boards
from .boards import alone, cells

QUICKSTART = Path(__file__).parents[3] / "results" / "quickstart" / "records"
published = load_published()


def write_superb(root: Path, label: str = "ours", system: str = "DPHuBERT", without: str = "") -> None:
    """Records that claim a published system's scores on every task, on official test sets where they are known."""
    by_task: dict[str, list[Metric]] = {}
    for one in published.of(system):
        by_task.setdefault(one.task, []).append(Metric(one.metric, one.value, one.metric != "wer", "%"))
    for code, metrics in by_task.items():
        split = TASKS[code].splits[0]
        items = TASKS[code].item_counts.get(split, 77)
        if code != without:
            write_record(root, boards.record(label, task=code, split=split, metrics=metrics, items=items))


# What stands where


def test_reference_systems_are_there_from_the_first_table_on(folder):
    grid = clean_grid(leaderboard([folder]))
    names = [row[0] for row in grid.rows]
    assert names == [
        *("teacher", "student"),
        *("WavLM Base+ †", "HuBERT Base †", "DPWavLM †", "DPHuBERT †", "DistilHuBERT †"),
    ]
    assert "† published by others, not measured here." in grid.notes
    scores = {row[0]: row[-1] for row in grid.rows}
    assert (scores["WavLM Base+ †"], scores["DPHuBERT †"], scores["DistilHuBERT †"]) == ("1106", "866", "717")
    assert scores["teacher"] == "-"
    without = clean_grid(alone(folder))
    assert [row[0] for row in without.rows] == ["teacher", "student"]
    assert not any(note.startswith("†") for note in without.notes)


def test_other_test_sets_never_share_a_column_with_published_numbers(folder):
    board = leaderboard([folder])
    for column in board.columns:
        kinds = {row.published for row in board.rows if column in row.cells}
        assert len(kinds) == 1
    assert {"IC", "IC (200 items)"} <= set(clean_grid(board).header)
    assert any("scored on 200 items, which is not the official test set" in note for note in board.notes)


def test_the_official_test_set_shares_the_column(tmp_path):
    boards.write_answers(tmp_path, "student", items=3793)
    board = leaderboard([tmp_path])
    (column,) = [c for c in board.columns if (c.task, c.condition, c.test) == ("IC", "clean", "")]
    assert column in board.row("student").cells and board.row("DPHuBERT").cells[column].value == 97.92
    assert any("student has no superb_s" in note and "missing: PR, SID, KS" in note for note in board.notes)


def test_superb_s_of_measured_systems_needs_all_tasks_on_official_test_sets(tmp_path):
    unknown = [c for c in ("ER", "ASV", "SD", "QbE", "SF") if not TASKS[c].item_counts.get(TASKS[c].splits[0])]
    write_superb(tmp_path / "all")
    row = leaderboard([tmp_path / "all"], official=unknown).row("ours")
    assert round(row.superb_s) == 866 and round(row.overall, 1) == 78.9
    for missing in ("SF", "KS"):
        write_superb(tmp_path / missing, without=missing)
        board = leaderboard([tmp_path / missing], official=unknown)
        row = board.row("ours")
        assert row.superb_s is None and row.overall is None
        assert f"ours has no superb_s: it is the mean over ten tasks, and these are missing: {missing}" in board.notes
    if unknown:
        board = leaderboard([tmp_path / "all"])
        assert board.row("ours").superb_s is None
        assert any(f"--official {unknown[0]}" in note for note in board.notes)


def test_of_two_sources_of_one_number_the_first_counts_everywhere():
    for system in published.systems:
        for one in published.of(system):
            assert published_value(published, system, one.task, one.metric, one.condition) == one.value
    row = leaderboard([]).row("FBANK")
    for column, cell in row.cells.items():
        assert cell.value == published_value(published, "FBANK", column.task, column.metric, column.condition)


def test_values_intervals_and_summaries(folder):
    board = alone(folder, reference="teacher")
    _, grid = grids(board)
    assert grid.title == "IC (200 items): accuracy (%), higher is better"
    assert grid.header[:5] == ["system", "clean", "noise 10 dB", "noise 0 dB", "reverb"]
    assert grid.header[5:] == ["mean", "difference", "loss %", "% of teacher's", "worst", "area, noise"]
    student = cells(board, "student")
    low, high = student["clean"].estimate.interval
    assert low < student["clean"].value < high
    (summary,) = board.summaries(board.columns[0].group)
    corrupted = [cell.value for title, cell in student.items() if title != "clean"]
    assert summary.rows["student"]["mean"].value == pytest.approx(sum(corrupted) / 3)
    assert summary.rows["teacher"]["% of teacher's"].value == pytest.approx(100)
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]", grid.rows[1][1])
    assert (0, 1) in grid.best and (1, 1) not in grid.best  # the teacher is better


def test_seeds_are_averaged_and_widen_the_interval(tmp_path):
    for seed in (1, 2, 3):
        boards.write_answers(tmp_path, "student", gain=0.1 * seed, seed=seed, conditions={"reverb": 0.4})
    cell = cells(alone(tmp_path), "student")["reverb"]
    assert sorted(cell.values) == [1, 2, 3] and cell.spread > 5
    assert cell.estimate.value == pytest.approx(sum(cell.values.values()) / 3)
    one = dataclasses.replace(cell, values={1: cell.values[1]}, parts={1: cell.parts[1]})
    assert cell.estimate.standard_error > 1.5 * one.estimate.standard_error


def test_intervals_are_over_speakers_where_they_are_known(tmp_path):
    """Ten speakers, half of them always right: utterances alone would make it look certain."""
    right = np.repeat([1, 0] * 5, 20)
    for label, folder in (("known", "wavs/speakers"), ("unknown", "wavs/somewhere")):
        names = [f"{folder}/{speaker:02d}/{i}.wav" for speaker in range(10) for i in range(20)]
        kept = Outcomes.sort(names, {"accuracy": ItemScores(right, np.ones(200, int))})
        one = boards.record(label)
        pointer = write_outcomes(record_path(tmp_path, one).with_suffix(".npz"), kept)
        write_record(tmp_path, dataclasses.replace(one, outcomes=pointer))
    known, unknown = (cells(alone(tmp_path), name)["clean"] for name in ("known", "unknown"))
    assert (len(known.units), len(unknown.units)) == (10, 200)
    assert known.estimate.standard_error == pytest.approx(50 / 3)  # ten numbers of 0 or 100
    assert known.estimate.standard_error > 4 * unknown.estimate.standard_error


# Nothing is refused


def test_an_unfinished_sweep_over_seeds_has_a_board(folder):
    boards.write_answers(folder, "student", seed=2, conditions={"clean": 0.9, "noise:snr_db=10": 0.7})
    board = alone(folder)
    assert {title: len(cell.values) for title, cell in cells(board, "student").items()} == {
        **{"clean": 2, "noise 10 dB": 2},
        **{"noise 0 dB": 1, "reverb": 1},
    }
    assert "student, IC (200 items): 2 seeds, but fewer of noise 0 dB 1, reverb 1" in board.notes
    _, grid = grids(board)
    assert "§" in grid.rows[1][3] and "§" not in grid.rows[1][1] and any(n.startswith("§") for n in grid.notes)
    # Summaries are over the seed that all conditions have.
    (summary,) = board.summaries(board.columns[0].group)
    first = [cell.values[1337] for title, cell in cells(board, "student").items() if title != "clean"]
    assert summary.rows["student"]["mean"].value == pytest.approx(sum(first) / 3)


def test_conditions_that_not_all_have_are_shown_but_not_summed_up(folder):
    boards.write_answers(folder, "late", conditions={"clean": 0.95, "noise:snr_db=10": 0.9})
    board = alone(folder)
    (summary,) = board.summaries(board.columns[0].group)
    assert [column.title for column in summary.columns] == ["noise 10 dB"]
    assert set(summary.rows) == {"teacher", "student", "late"}
    _, grid = grids(board)
    assert "Summaries of teacher, late, student: over what these systems share: noise 10 dB." in grid.notes


def test_a_published_system_of_the_same_name_has_no_summaries_of_ours(tmp_path):
    boards.write_answers(tmp_path, "DPHuBERT", items=3793)
    board = leaderboard([tmp_path])
    _, grid, *_ = grids(board)
    means = {row[0]: row[grid.header.index("mean")] for row in grid.rows}
    assert means["DPHuBERT †"] == "-" != means["DPHuBERT"]
    robust = {row["published"]: row["robust"] for row in page_data(board)["rows"] if row["name"] == "DPHuBERT"}
    assert robust[False] and not robust[True]


def test_a_small_test_set_stands_beside_the_official_one(tmp_path):
    boards.write_answers(tmp_path, "student", items=3793)
    boards.write_answers(tmp_path, "student", items=50, seed=5)
    board = alone(tmp_path)
    assert {column.test for column in board.row("student").cells} == {"", "50 items"}
    assert len(grids(board)) == 3


def test_standard_and_other_runs_share_a_column_and_only_one_is_marked(folder):
    boards.write_answers(folder, "short", non_standard=["runner.total_steps is 10, not 200000"])
    board = alone(folder)
    clean, *_ = grids(board)
    marked = {row[0]: "‡" in row[3] for row in clean.rows}
    assert marked == {"teacher": False, "student": False, "short": True}
    assert any(note.startswith("short, IC (200 items): not a standard run, runner.total_steps") for note in board.notes)


def test_runs_under_other_rules_are_shown_and_none_is_called_the_best(folder):
    boards.write_answers(folder, "other", gain=0.3, **boards.OTHER_RULES)
    board = alone(folder)
    _, grid = grids(board)
    assert len(grid.rows) == 3 and not grid.best
    assert any("these runs follow different rules" in note for note in board.notes)


def test_of_one_systems_runs_under_other_rules_the_standard_ones_count(tmp_path):
    short = {"non_standard": ["runner.total_steps is 10, not 200000"], **boards.OTHER_RULES}
    for seed, changes in ((1, {"non_standard": []}), (2, {"non_standard": []}), (2, short), (3, short)):
        boards.write_answers(tmp_path, "student", gain=0.01 * seed, seed=seed, conditions={"clean": 0.5}, **changes)
    board = alone(tmp_path)
    cell = cells(board, "student")["clean"]
    assert list(cell.values) == [1, 2] and not cell.non_standard
    assert "student, IC (200 items): clean: 2 runs under other rules are not shown" in board.notes


def test_names_of_folders_make_no_column(folder):
    for label, place in (("teacher", "musan"), ("student", '"my noise, new"')):
        sources = {"noise": {"name": place, "digest": "ff" * 32}}
        one = boards.record(label, f"noise:noise={place},snr_db=5", 40.0, sources=sources)
        write_record(folder, one)
    board = alone(folder)
    (column,) = [column for column in board.columns if "snr_db=5" in column.condition]
    assert all(column in row.cells for row in board.rows) and not column.tag


def test_other_noise_under_one_condition_is_another_column(folder):
    for label, draws, digest in (("teacher", "11", "aa"), ("student", "22", "bb")):
        sources = {"noise": {"name": "noise", "digest": digest * 32}}
        one = boards.record(label, "noise:snr_db=5", 40.0, sources=sources, manifest_digest=draws * 32)
        write_record(folder, one)
    board = alone(folder)
    titles = [column.title for column in board.columns if column.condition == "noise:snr_db=5"]
    assert len(titles) == 2 and all(re.fullmatch(r"noise 5 dB \[\w{6}\]", title) for title in titles)
    assert any("noise:snr_db=5 was drawn in 2 ways" in note for note in board.notes)
    (summary,) = board.summaries(board.columns[0].group)
    assert all(column.condition != "noise:snr_db=5" for column in summary.columns)


def test_heads_trained_otherwise_have_columns_of_their_own(folder):
    boards.write_answers(folder, "noisy", train_condition="noise:snr_db=5")
    board = alone(folder)
    assert {c.test for c in board.row("noisy").cells} == {"200 items, heads trained on noise:snr_db=5"}


def test_partial_and_failed_cells_are_not_shown_but_said(folder):
    partial = boards.record("student", "noise+reverb:snr_db=5", 99.25, status="partial", reason="stopped at 3 of 200")
    write_record(folder, dataclasses.replace(partial, items_scored=3))
    board = leaderboard([folder])
    assert any(
        "student, IC test, noise+reverb:snr_db=5, seed 1337 is not shown: partial, stopped" in n for n in board.notes
    )
    everything = board.frame.to_csv() + board.to_html() + board.to_markdown()
    assert "99.25" not in everything


def test_a_record_without_its_number_is_said(folder):
    metric = Metric("mtwv", None, True, "", "there is no ground truth")
    changes = {"task": "QbE", "downstream": "quesst14_dtw", "split": "eval"}
    write_record(folder, boards.record("student", metrics=[metric], **changes))
    (note,) = [note for note in alone(folder).notes if "QbE" in note]
    assert note == "student, QbE eval, clean, seed 1337 is not shown: it has no number, there is no ground truth"


def test_a_profile_that_cannot_be_read_hides_its_own_macs_only(folder):
    parameters, machine = {"stored": 1, "used": 1, "used_without_heads": None}, {"processor": "p", "cores": 1}
    for label, digest in boards.DIGESTS.items():
        given = ("robustdistiller_local", label, "student.ckpt", digest, "file", "", parameters)
        profile = Profile(*given, {"superb": {"macs": 10**12}}, [], machine, "2026-01-01T00:00:00+00:00")
        path = write_profile(folder, profile)
    path.write_text(path.read_text().replace('"version": 1', '"version": 0'))
    board = alone(folder)
    assert {row.name: row.macs_g for row in board.rows} == {"teacher": 1000.0, "student": None}
    (note,) = [note for note in board.notes if "profile" in note]
    assert note.startswith(f"{path} is not a valid profile: version 0") and note.endswith("are not shown")


def test_a_failed_task_makes_no_row_and_hides_no_size(folder):
    failed = {"status": "failed", "reason": "out of memory", "items": 0, "metrics": [], "task": "KS"}
    write_record(folder, boards.record("student", parameters=None, **failed))
    write_record(folder, boards.record("never", parameters=None, **failed))
    board = alone(folder)
    assert {row.name: row.size for row in board.rows} == {"teacher": "94.70", "student": "23.50"}
    assert any(
        note.startswith("never, KS test, clean, seed 1337 is not shown: failed, out of memory") for note in board.notes
    )


def test_a_record_that_cannot_be_read_is_a_note(folder):
    path = next(folder.rglob("*.json"))
    path.write_text(re.sub(r'"value": [\d.]+', '"value": 99.9', path.read_text()))
    board = alone(folder)
    assert sum(len(row.cells) for row in board.rows) == 7
    assert any(str(path) in note and "cannot be read" in note and "changed after" in note for note in board.notes)


def test_items_that_were_lost_cost_the_interval_only(folder):
    path = next(folder.rglob("*.npz"))
    path.unlink()
    board = alone(folder)
    without = [cell for row in board.rows for cell in row.cells.values() if cell.estimate.interval is None]
    assert len(without) == 1
    assert any(note.startswith("no interval for") and path.name in note for note in board.notes)


def test_a_task_that_nobody_knows_here_has_its_columns(folder):
    for condition in ("clean", "noise:snr_db=5"):
        metric = Metric("f0_error", 12.5, False, "Hz")
        write_record(folder, boards.record("student", condition, task="PITCH", metrics=[metric], items=40))
    board = alone(folder)
    titles = {column.task_title: column.metric_title for column in board.row("student").cells}
    assert titles["PITCH (40 items)"] == "f0_error Hz ↓"
    assert not any("PITCH" in note for note in board.notes)
    assert "PITCH (40 items)" in board.to_html() and "PITCH (40 items)" in board.to_markdown()


def test_the_same_folder_twice_is_no_harm(folder):
    assert alone(folder, folder).frame.equals(alone(folder).frame)


def test_equal_labels_are_told_apart(folder):
    boards.write_answers(folder, "student", checkpoint_digest="dd" * 32)
    names = [row.name for row in alone(folder).rows]
    assert names == ["teacher", "student (robustdistiller_local bbbbbbbb)", "student (robustdistiller_local dddddddd)"]


def test_heads_that_read_one_layer_are_a_system_of_their_own(folder):
    """Their records differ in the rules only; each keeps its name, its cells and its row."""
    for layer in (3, -1):
        one_layer = {
            "non_standard": [f"upstream_layer_selection is {layer}, not None"],
            "rules_digest": f"{abs(layer):064d}",
        }
        boards.write_answers(folder, "student", gain=0.01 * layer, **one_layer)
    board = alone(folder)
    assert [row.name for row in board.rows] == ["teacher", "student", "student, layer -1", "student, layer 3"]
    assert all(len(row.cells) == 4 and not any(cell.remarks for cell in row.cells.values()) for row in board.rows)
    assert board.row("student, layer 3").detail.endswith("layer 3") and board.row("student").is_standard
    assert not any("are not shown" in note for note in board.notes)


def test_layers_that_a_task_leaves_free_are_told_apart_where_there_are_several(tmp_path):
    def write(split, layer, value):
        mtwv = {"task": "QbE", "split": split, "metrics": [Metric("mtwv", value, True)]}
        how = {"settings": {"upstream_layer_selection": layer}, "head_digest": f"{layer or 0:064x}"}
        write_record(tmp_path, boards.record("student", **mtwv, **how))

    for layer in (None, 8, 9):
        write("dev", layer, 0.01 * (layer or 1))
    write("eval", 9, 0.05)
    board = alone(tmp_path)
    found = {row.name: {column.split: cell.value for column, cell in row.cells.items()} for row in board.rows}
    assert found == {
        "student": {"dev": 0.01, "eval": 0.05},
        "student, layer 8": {"dev": 0.08},
        "student, layer 9": {"dev": 0.09},
    }


def test_an_unfinished_cross_validation_shows_its_folds(tmp_path):
    er = {"task": "ER", "downstream": "emotion", "conditions": {"clean": 0.6}}
    for fold in TASKS["ER"].folds:
        boards.write_answers(tmp_path, "whole", fold=fold, items=50, prefix=fold, **er)
    boards.write_answers(tmp_path, "part", fold="fold2", items=50, prefix="fold2", **er)
    board = alone(tmp_path)
    (mean,) = board.row("whole").cells.items()
    assert "fold" not in mean[0].test and mean[1].estimate.interval is not None and len(mean[1].units) == 250
    assert [column.test.partition(",")[0] for column in board.row("part").cells] == ["fold2"]
    assert any("ER is scored by the mean over all its folds" in note for note in board.notes)
