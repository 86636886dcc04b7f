"""Only what was written down before the test sets were opened is tested, all of it together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from research.recipe_study import plan as plans
from research.recipe_study.comparisons import compare, gain, open_test_sets, read_opened
from research.recipe_study.plan import Comparison, load_comparisons, load_plan
from robustdistiller.common.settings import SettingsError
from robustdistiller.eval.report.board import Board
from robustdistiller.eval.report.cells import Cell, Column
from robustdistiller.eval.report.rows import Row
from robustdistiller.eval.report.significance import adjust

SHIPPED = Path(plans.__file__).parent
CONDITIONS = ("clean", "noise:snr_db=5", "reverb")
UNITS = tuple(map(str, range(300)))
ACCURACY = [Column("words", "test", "accuracy", "%", True, condition, "300 items") for condition in CONDITIONS]
ERRORS = [Column("letters", "test", "cer", "%", False, condition, "300 items") for condition in CONDITIONS]


def row(name: str, rates: tuple[float, ...], seeds=(1, 2), lacking: tuple = ()) -> Row:
    """Wrong items at these rates, of both tasks alike."""
    cells = {}
    for place, rate in enumerate(rates):
        parts = {s: 100.0 * (np.random.default_rng([s, place, len(name)]).random(300) < rate) for s in seeds}
        for column, flip in ((ACCURACY[place], True), (ERRORS[place], False)):
            own = {seed: 100 - wrong if flip else wrong for seed, wrong in parts.items()}
            if column not in lacking:
                cells[column] = Cell({seed: float(x.mean()) for seed, x in own.items()}, own, UNITS)
    return Row(name, False, None, None, cells)


@pytest.fixture
def board() -> Board:
    rows = (
        row("plain", (0.3, 0.6, 0.5)),
        row("robust", (0.3, 0.4, 0.3), seeds=(1, 2, 3)),
        row("teacher", (0.2, 0.6, 0.5), lacking=(ACCURACY[2],)),
    )
    return Board(rows, tuple(sorted([*ACCURACY, *ERRORS], key=lambda column: column.order)), (), {}, pd.DataFrame())


@pytest.fixture
def two_tasks(plan):
    return dataclasses.replace(plan, tasks={"words": 1e-2, "letters": 1e-2})


def test_gains_are_positive_where_better_for_error_rates_too(board):
    accuracy, errors = (gain(board, "robust", "plain", [task], CONDITIONS[1:]) for task in ("words", "letters"))
    assert accuracy.value > 15 and accuracy.p < 0.001
    assert (errors.value, errors.standard_error) == pytest.approx((accuracy.value, accuracy.standard_error))
    assert accuracy.seeds == 2, "the seeds that both have"
    expected = [np.mean([one.cells[c].parts[s].mean() for s in (1, 2) for c in ACCURACY[1:]]) for one in board.rows[:2]]
    assert accuracy.value == pytest.approx(expected[1] - expected[0])


def test_a_missing_cell_is_missing_and_no_mean_of_fewer(board):
    assert gain(board, "robust", "teacher", ["words"], CONDITIONS[1:]) is None
    assert gain(board, "robust", "teacher", ["words"], CONDITIONS[:1]) is not None
    assert gain(board, "robust", "plain", ["words"], ["noise:snr_db=0"]) is None
    assert gain(board, "robust", "nobody", ["words"], CONDITIONS) is None


def test_heads_of_other_settings_are_not_compared(board):
    first, *others = board.rows
    cells = {column: dataclasses.replace(cell, rules="other") for column, cell in first.cells.items()}
    board = dataclasses.replace(board, rows=(dataclasses.replace(first, cells=cells), *others))
    assert gain(board, "robust", "plain", ["words"], CONDITIONS) is None


def test_holm_is_over_the_whole_list_whatever_is_missing(board, two_tasks):
    listed = [
        Comparison("noise?", "robust", "plain"),
        Comparison("clean?", "robust", "plain", "clean"),
        Comparison("teacher?", "robust", "teacher", ["reverb"]),
    ]
    later = Comparison("rooms?", "robust", "plain", ["reverb"], ["words"])
    table = compare(board, two_tasks, listed, [listed[0], later]).set_index("question")
    assert table.exploratory.tolist() == [False, False, False, True]
    p = table.p[["noise?", "clean?"]]
    assert table.p_holm[["noise?", "clean?"]].tolist() == pytest.approx(adjust([*p, 1.0])[:2])
    assert np.isnan(table.p_holm["rooms?"]) and table.p["rooms?"] < 0.05, "an answer, but no test of the list"
    assert np.isnan(table.gain["teacher?"]) and np.isnan(table.p_holm["teacher?"])


def test_the_list_is_closed_when_the_test_sets_are_opened(tmp_path, plan):
    path = tmp_path / "comparisons.yaml"
    with pytest.raises(SettingsError, match="no such file"):
        open_test_sets(tmp_path, path, plan)
    path.write_text(yaml.safe_dump([{"question": "?", "treatment": "robust", "reference": "plain"}]))
    open_test_sets(tmp_path, path, plan)
    first = read_opened(tmp_path)
    path.write_text(yaml.safe_dump([{"question": "!", "treatment": "plain", "reference": "robust"}]))
    open_test_sets(tmp_path, path, plan)
    listed = Comparison("?", "robust", "plain", list(CONDITIONS[1:]), list(plan.tasks))
    assert read_opened(tmp_path) == first == (first[0], [listed])


def test_a_later_change_of_the_plan_changes_nothing_that_is_tested(tmp_path, plan):
    path = tmp_path / "comparisons.yaml"
    path.write_text(yaml.safe_dump([{"question": "?", "treatment": "robust", "reference": "plain"}]))
    open_test_sets(tmp_path, path, plan)
    fewer = dataclasses.replace(plan, conditions=plan.conditions[:2])
    open_test_sets(tmp_path, path, fewer)
    assert read_opened(tmp_path)[1][0].conditions(fewer) == list(CONDITIONS[1:])
    with pytest.raises(SettingsError, match="seeds that are added until a difference shows are no test"):
        open_test_sets(tmp_path, path, dataclasses.replace(plan, finalists={**plan.finalists, "robust": 9}))


def test_a_list_that_is_lost_is_not_written_again_after_scoring(tmp_path, plan):
    path = tmp_path / "comparisons.yaml"
    path.write_text(yaml.safe_dump([{"question": "?", "treatment": "robust", "reference": "plain"}]))
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "one.json").touch()
    with pytest.raises(SettingsError, match=r"has test scores and no opened.yaml"):
        open_test_sets(tmp_path, path, plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treatment": "robuts"}, "there is no 'robuts'; did you mean 'robust'"),
        ({"over": ["noise:snr_db=0"]}, "no condition 'noise:snr_db=0'"),
        ({"over": "noise"}, "over: found 'noise'"),
        ({"tasks": ["letters"]}, "there is no 'letters'"),
        ({"referenc": "plain"}, "unknown key 'referenc'"),
        (None, "no comparisons"),
    ],
)
def test_what_finalists_cannot_answer_is_refused(tmp_path, plan, change, message):
    path = tmp_path / "comparisons.yaml"
    asked = {"question": "?", "treatment": "robust", "reference": "plain"}
    path.write_text(yaml.safe_dump([] if change is None else [{**asked, **change}]))
    with pytest.raises(SettingsError, match=message):
        load_comparisons(path, plan)


@pytest.mark.parametrize("name", ["", "fast_"])
def test_what_the_shipped_plans_compare_their_finalists_can_answer(name):
    plan = load_plan(SHIPPED / f"{name}plan.yaml")
    for one in load_comparisons(SHIPPED / f"{name}comparisons.yaml", plan):
        assert one.conditions(plan)


def test_a_plan_over_another_changes_what_it_names_and_adds_its_students(tmp_path):
    (tmp_path / "plan.yaml").write_text(
        "{students: {plain: distilhubert}, steps: 7, tasks: {words: 0.01}, conditions: [clean], finalists: {plain: 5}}"
    )
    (tmp_path / "more.yaml").write_text(
        "{over: plan.yaml, students: {fast: fast50}, conditions: [reverb], finalists: {fast: 3}}"
    )
    plan = load_plan(tmp_path / "more.yaml")
    assert list(plan.students) == ["plain", "fast"] and plan.steps == 7
    assert plan.conditions == ["reverb"] and plan.finalists == {"fast": 3}
    (tmp_path / "more.yaml").write_text("over: plans.yaml")
    with pytest.raises(SettingsError, match=r"plans.yaml: no such file"):
        load_plan(tmp_path / "more.yaml")
    (tmp_path / "more.yaml").write_text("")
    with pytest.raises(SettingsError, match=r"more.yaml: no settings"):
        load_plan(tmp_path / "more.yaml")


def test_finalists_have_seeds_that_chose_nothing(plan):
    chose = {seed for seeds in plan.seeds("screening").values() for seed in seeds}
    scored = {seed for seeds in plan.seeds("finalists").values() for seed in seeds}
    assert scored == {1, 2} and not chose & scored


def test_a_finalist_must_be_a_student(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        "{students: {plain: distilhubert}, steps: 1, tasks: {words: 0.01}, conditions: [clean], finalists: {plan: 2}}"
    )
    with pytest.raises(SettingsError, match=r"plan.yaml: .*there is no 'plan'; did you mean 'plain'"):
        load_plan(path)
