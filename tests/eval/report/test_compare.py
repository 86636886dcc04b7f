"""Comparing two systems: paired differences, what is missing, published sides, and names that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.report.compare import CompareError, compare_sides, find_side, missing_cells
from robustdistiller.eval.report.measured import read_systems
from robustdistiller.eval.report.published import load_published
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import Metric

from . import boards

published = load_published()


@pytest.fixture
def folder(tmp_path) -> Path:
    boards.write_answers(tmp_path / "records", "teacher", gain=0.08)
    boards.write_answers(tmp_path / "records", "student")
    return tmp_path / "records"


def sides(folder: Path, *names: str):
    systems = read_systems([folder])
    return [find_side(name, systems, published) for name in names]


def run(*arguments: str):
    return CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "200"})


def test_differences_are_paired_and_in_the_order_of_conditions(folder):
    found = compare_sides(*sides(folder, "teacher", "student"), published)
    assert [one.condition for one in found] == ["clean", "noise:snr_db=10", "noise:snr_db=0", "reverb", "mean of 3"]
    hard = np.random.default_rng(0).random(200)
    for one in found[:4]:
        share = boards.CONDITIONS[one.condition]
        right = [(hard < share + gain).astype(int) for gain in (0.08, 0.0)]
        assert one.comparison.difference.value == pytest.approx(100 * (right[0] - right[1]).mean())
        # All items that differ are won by the first: the exact test's p is two tails of one.
        assert one.comparison.p_value == pytest.approx(min(1.0, 2 * 0.5 ** (right[0] - right[1]).sum()))
        assert one.comparison.difference.low <= one.comparison.difference.value <= one.comparison.difference.high
        assert one.winner == "first"
    mean = found[4].comparison
    assert mean.difference.value == pytest.approx(np.mean([one.comparison.difference.value for one in found[1:4]]))
    assert mean.test == "paired bootstrap" and mean.difference.low > 0


def test_the_other_way_round_is_the_negative(folder):
    one, other = sides(folder, "teacher", "student")
    there, back = compare_sides(one, other, published), compare_sides(other, one, published)
    for a, b in zip(there, back):
        assert a.comparison.difference.value == pytest.approx(-b.comparison.difference.value)
        assert a.comparison.p_value == pytest.approx(b.comparison.p_value, abs=2e-3)


def test_without_items_of_both_there_is_a_difference_and_no_interval(folder):
    write_record(folder, boards.record("student", "noise+reverb:snr_db=5", 30.0))
    write_record(folder, boards.record("teacher", "noise+reverb:snr_db=5", 40.0))
    found = {one.condition: one for one in compare_sides(*sides(folder, "teacher", "student"), published)}
    one = found["noise+reverb:snr_db=5"]
    assert one.comparison.difference.value == 10 and one.comparison.difference.low is None
    assert one.remark == "no results of single items: no interval"
    assert found["mean of 4"].comparison.p_value is None


def test_the_command_prints_verdicts(folder):
    result = run("teacher", "student", "--records", str(folder))
    assert result.exit_code == 0, result.output
    assert "teacher is better" in result.output and "McNemar" in result.output and "paired bootstrap" in result.output
    assert "<0.001" in result.output and "noise 10 dB" in result.output
    assert "to fill it" not in result.output


def test_missing_cells_come_with_the_command_that_fills_them(folder):
    sources = {"noise": {"name": "musan", "digest": "ff" * 32}}
    write_record(folder, boards.record("student", "noise:snr_db=5", 30.0, sources=sources, corruption_seed=3))
    ks = {"task": "KS", "downstream": "speech_commands", "metrics": [Metric("accuracy", 90.0, True, "%")]}
    write_record(folder, boards.record("student", **ks))
    missing = missing_cells(*sides(folder, "teacher", "student"), "records")
    assert [(one.name, one.task, one.conditions) for one in missing] == [
        ("teacher", "IC", ("noise:snr_db=5",)),
        ("teacher", "KS", ("clean",)),
    ]
    (evaluate,) = missing[0].commands
    assert evaluate == (
        "run_downstream.py -m evaluate -e HEAD_OF_teacher_ON_IC -t test --label teacher --condition noise:snr_db=5 "
        "--noise FOLDER_OF/musan --corruption-seed 3 --records records --overwrite reuse"
    )
    train, evaluate = missing[1].commands
    assert train == (
        "run_downstream.py -m train -u robustdistiller_local -k FOLDER_OF/student.ckpt -d KS -p HEAD_OF_teacher_ON_KS "
        "--seed 1337"
    )
    assert "--condition clean" in evaluate
    assert missing_cells(*sides(folder, "teacher", "student"), "records", only=["SID"]) == []
    result = run("teacher", "student", "--records", str(folder))
    assert "teacher has no KS under clean; to fill it:" in result.output and train in result.output


def test_two_published_systems_have_differences_only():
    result = run("DPHuBERT", "distilhubert", "--task", "ASR", "--task", "IC")
    assert result.exit_code == 0, result.output
    assert "DPHuBERT † minus DistilHuBERT †" in result.output
    assert "-2.90" in result.output and "+2.93" in result.output and "published: no interval" in result.output
    assert "† published by others" in result.output and "is better" not in result.output


def test_a_measured_system_meets_a_published_one_on_official_test_sets_only(folder, tmp_path):
    with pytest.raises(CompareError, match="'student' and 'DPHuBERT' have no cell in common"):
        compare_sides(*sides(folder, "student", "DPHuBERT"), published)
    boards.write_answers(tmp_path / "official", "student", items=3793)
    (found,) = compare_sides(*sides(tmp_path / "official", "student", "DPHuBERT"), published)
    assert (found.task, found.condition, found.second) == ("IC", "clean", 97.92)
    assert found.comparison.difference.value == pytest.approx(found.first - 97.92)
    assert found.remark == "published: no interval"


def test_a_label_with_a_published_name_is_the_measured_one_unless_said(folder, tmp_path):
    boards.write_answers(tmp_path / "same", "DPHuBERT", items=3793)
    systems = read_systems([tmp_path / "same"])
    assert find_side("dphubert", systems, published).measured is not None
    forced = find_side("published:DPHuBERT", systems, published)
    assert forced.measured is None
    (found,) = compare_sides(find_side("DPHuBERT", systems, published), forced, published)
    assert found.second == 97.92


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["teacher", "studnet"], "no system is called 'studnet'; did you mean 'student'"),
        (["teacher", "DistillHuBERT"], "did you mean 'DistilHuBERT'"),
        (["teacher", "teacher"], "'teacher' is on both sides"),
        (["teacher", "student", "--task", "KS"], "have no cell of KS in common"),
        (["teacher", "student", "--task", "XX"], "unknown task 'XX'"),
    ],
)
def test_errors_are_one_sentence(folder, arguments, message):
    result = run(*arguments, "--records", str(folder))
    assert result.exit_code == 1
    assert result.stderr.startswith("robustdistiller compare: ") and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_two_checkpoints_of_one_label_must_be_told_apart(folder):
    boards.write_answers(folder, "student", checkpoint_digest="dd" * 32)
    with pytest.raises(CompareError, match=r"'student' names 2 systems: .*bbbbbbbb.*dddddddd"):
        sides(folder, "student")
    (one,) = sides(folder, "student (robustdistiller_local dddddddd)")
    assert one.measured.identity[2] == "dd" * 32


def test_nothing_in_common_prints_the_way_out(tmp_path):
    boards.write_answers(tmp_path, "teacher", conditions={"clean": 0.9})
    boards.write_answers(tmp_path, "student", conditions={"reverb": 0.5})
    result = run("teacher", "student", "--records", str(tmp_path))
    assert result.exit_code == 1 and "have no cell in common" in result.stderr
    assert "teacher has no IC under reverb" in result.stdout and "student has no IC under clean" in result.stdout
