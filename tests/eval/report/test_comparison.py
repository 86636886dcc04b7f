"""Comparing two systems: paired differences, what is missing, published sides, and names that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.report.comparison import compare
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, write_outcomes
from robustdistiller.eval.results.record import Metric

from . import boards


@pytest.fixture
def folder(tmp_path) -> Path:
    boards.write_answers(tmp_path / "records", "teacher", gain=0.08)
    boards.write_answers(tmp_path / "records", "student")
    return tmp_path / "records"


def lines(folder: Path, first: str = "teacher", second: str = "student", **settings) -> dict[str, object]:
    """Condition to the line of a comparison."""
    return {line.condition: line for line in compare(first, second, [folder], **settings).frame.itertuples()}


def run(*arguments: str):
    return CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "200"})


def test_differences_are_paired_and_in_the_order_of_conditions(folder):
    found = lines(folder)
    assert list(found) == ["clean", "noise:snr_db=10", "noise:snr_db=0", "reverb", "mean of 3 conditions"]
    hard = np.random.default_rng(0).random(200)
    for condition, share in boards.CONDITIONS.items():
        right = [(hard < share + gain).astype(int) for gain in (0.08, 0.0)]
        one = found[condition]
        assert one.difference == pytest.approx(100 * (right[0] - right[1]).mean())
        # All items that differ are won by the first: the exact test's p is two tails of one.
        assert one.p == pytest.approx(min(1.0, 2 * 0.5 ** (right[0] - right[1]).sum())) and one.test_used == "McNemar"
        assert one.low <= one.difference <= one.high and one.better == "teacher"
    mean = found["mean of 3 conditions"]
    assert mean.difference == pytest.approx(np.mean([found[c].difference for c in list(boards.CONDITIONS)[1:]]))
    assert mean.test_used == "t-test over items and seeds" and mean.low > 0


def test_draws_of_one_condition_count_as_one_in_the_mean_as_they_do_on_a_board(tmp_path):
    for label, gain in (("teacher", 0.1), ("student", 0.0)):
        boards.write_answers(tmp_path, label, gain, conditions={"reverb": 0.6})
        for name, share in (("first", 0.4), ("second", 0.2)):
            drawn = {"sources": {"noise": {"name": name, "digest": name}}, "manifest_digest": name}
            boards.write_answers(tmp_path, label, gain * share, conditions={"noise:snr_db=0": share}, **drawn)
    *_, mean = compare("teacher", "student", [tmp_path]).frame.itertuples()
    summaries = boards.alone(tmp_path).robustness.query("summary == 'mean'").set_index("system").value
    assert mean.condition == "mean of 2 conditions"
    assert (mean.first, mean.second) == pytest.approx((summaries["teacher"], summaries["student"]))
    assert mean.difference == pytest.approx(mean.first - mean.second) and mean.low < mean.difference < mean.high
    for path in tmp_path.rglob("*/reverb@*/*.json"):
        path.unlink()
    *_, mean = compare("teacher", "student", [tmp_path]).frame.itertuples()
    assert mean.condition == "mean of 2 draws"


def test_the_other_way_round_is_the_negative(folder):
    there, back = lines(folder), lines(folder, "student", "teacher")
    for condition, one in there.items():
        other = back[condition]
        assert (one.difference, one.low, one.p) == pytest.approx((-other.difference, -other.high, other.p))


def test_p_values_are_corrected_within_a_task(folder):
    """Twenty equal cells of another task take nothing from a task's verdicts."""
    before = lines(folder)
    many = {f"noise:snr_db={snr}": 0.5 for snr in range(20)}
    for label in ("teacher", "student"):
        boards.write_answers(folder, label, conditions=many, task="KS", downstream="speech_commands")
    found = compare("teacher", "student", [folder]).frame
    own = found[found.task == "IC"]
    assert own.p_adjusted.tolist() == pytest.approx([line.p_adjusted for line in before.values()])
    assert (own.p_adjusted >= own.p).all() and own.p_adjusted.iloc[0] > own.p.iloc[0]
    assert (found[found.task == "KS"].p_adjusted == 1).all()


def test_a_real_difference_of_error_rates_is_found_among_many_conditions(tmp_path):
    generator = np.random.default_rng(0)
    words = generator.integers(10, 30, 200)
    errors = generator.binomial(words, 0.3)
    names = [f"s/{i}.wav" for i in range(200)]
    for condition in (f"noise:snr_db={snr}" for snr in range(60)):
        for label, more in (("worse", 5), ("better", 0)):
            kept = Outcomes.sort(names, {"wer": ItemScores(errors + more, words)})
            pointer = write_outcomes(tmp_path / f"{label}{condition[-2:].strip('=')}.npz", kept)
            metric = Metric("wer", kept.metrics["wer"].value, False, "%")
            one = boards.record(label, condition, task="ASR", split="test-clean", metrics=[metric], outcomes=pointer)
            path = write_record(tmp_path, one)
            (tmp_path / pointer.file).rename(path.with_name(pointer.file))
    found = compare("worse", "better", [tmp_path]).frame
    assert len(found) == 61 and (found.better == "better").all() and found.p_adjusted.max() < 1e-12


def test_seeds_count_as_chance(tmp_path):
    """Systems that differ by what their seeds differ by: a test over items alone would be sure."""
    for label, gains in (("one", (0.0, 0.2, 0.1)), ("other", (0.12, 0.01, 0.05))):
        for seed, gain in enumerate(gains):
            boards.write_answers(tmp_path, label, gain=gain, seed=seed, items=2000, conditions={"clean": 0.5})
    found = lines(tmp_path, "one", "other")["clean"]
    assert found.p > 0.2 and found.better == "" and found.low < 0 < found.high
    assert found.test_used == "t-test over items and seeds"


def test_unequal_seeds_are_compared_on_those_that_both_have(folder):
    before = lines(folder)["clean"]
    boards.write_answers(folder, "student", gain=0.3, seed=2)
    found = lines(folder)["clean"]
    assert found.difference == before.difference and found.remark == "over 1 seed of each"
    boards.write_answers(folder, "third", gain=0.1, seed=9)
    assert (
        lines(folder, "third", "teacher")["clean"].test_used == "McNemar"
    )  # no seed in common: one is as good as another


def test_what_seeds_a_difference_is_over_is_said_without_items_too(tmp_path):
    """As of equal error rates, which have no results of single items."""
    eer = {"task": "ASV", "downstream": "sv_voxceleb1"}
    values = {("teacher", "clean", 1): 5.0, ("teacher", "clean", 2): 9.0, ("student", "clean", 1): 6.0}
    values |= {(label, "reverb", seed): 10.0 for label, seed in (("teacher", 1), ("student", 7))}
    values |= {(label, "noise:snr_db=0", 3): 20.0 for label in ("teacher", "student")}
    for (label, condition, seed), value in values.items():
        metrics = [Metric("eer", value, False, "%")]
        write_record(tmp_path, boards.record(label, condition, seed=seed, metrics=metrics, **eer))
    found = lines(tmp_path)
    assert (found["clean"].first, found["clean"].difference) == (5, -1)
    assert found["clean"].remark == "over 1 seed of each; no results of single items: no interval"
    assert found["mean of 2 conditions"].remark == "no seed under all of these conditions: no interval"


def test_without_items_of_both_there_is_a_difference_and_no_interval(folder):
    write_record(folder, boards.record("student", "noise+reverb:snr_db=5", 30.0))
    write_record(folder, boards.record("teacher", "noise+reverb:snr_db=5", 40.0))
    found = lines(folder)
    one = found["noise+reverb:snr_db=5"]
    assert one.difference == 10 and np.isnan(one.low) and np.isnan(one.p)
    assert one.remark == "no results of single items: no interval"
    assert np.isnan(found["mean of 4 conditions"].p)


def test_runs_under_other_rules_get_no_verdict_but_a_reason(folder):
    why = "runner.total_steps is 4, not 200000"
    boards.write_answers(folder, "other", gain=-0.3, non_standard=[why], **boards.OTHER_RULES)
    found = lines(folder, "teacher", "other")["clean"]
    assert found.p < 0.001 and found.better == ""
    assert found.remark == f"run under different rules; the rules: of one only, {why}"


def test_the_command_prints_verdicts(folder):
    result = run("teacher", "student", "--records", str(folder))
    assert result.exit_code == 0, result.output
    assert "teacher is better" in result.output and "McNemar" in result.output and "t-test" in result.output
    assert "<0.001" in result.output and "noise 10 dB" in result.output and "(Holm)" in result.output
    assert "lacks" not in result.output
    found = json.loads(run("teacher", "student", "--records", str(folder), "--json").output)
    assert found["first"] == "teacher" and len(found["lines"]) == 5 and found["missing"] == []


def test_the_cells_that_one_lacks_are_listed(folder):
    write_record(folder, boards.record("student", "noise:snr_db=5", 30.0))
    ks = {"task": "KS", "downstream": "speech_commands", "metrics": [Metric("accuracy", 90.0, True, "%")]}
    write_record(folder, boards.record("student", **ks))
    (missing,) = compare("teacher", "student", [folder]).missing
    assert missing.name == "teacher"
    assert [(column.task, column.title) for column in missing.columns] == [("KS", "clean"), ("IC", "noise 5 dB")]
    assert compare("teacher", "student", [folder], tasks=["SID"]).missing == ()
    result = run("teacher", "student", "--records", str(folder))
    assert "teacher lacks KS (200 items) under clean; IC (200 items) under noise 5 dB." in result.output
    found = json.loads(run("teacher", "student", "--records", str(folder), "--json").output)
    listed = ["KS (200 items), clean", "IC (200 items), noise 5 dB"]
    assert found["missing"] == [{"system": "teacher", "columns": listed}]


def test_a_task_of_ones_own_is_compared_where_only_its_records_are_known(folder):
    own = {"task": "words", "downstream": "robustdistiller_csv", "metrics": [Metric("accuracy", 90.0, True, "%")]}
    for label, condition in (("teacher", "clean"), ("student", "clean"), ("student", "reverb")):
        write_record(folder, boards.record(label, condition, **own))
    found = compare("teacher", "student", [folder], tasks=["Words"])
    assert found.frame.task.tolist() == ["words"]
    assert [(column.task, column.title) for column in found.missing[0].columns] == [("words", "reverb")]


def test_a_difference_that_is_the_same_for_all_items_has_no_verdict(tmp_path):
    for seed in (1, 2):
        for label, share in (("teacher", 2.0), ("student", -1.0)):  # all right, and all wrong
            boards.write_answers(tmp_path, label, items=2, seed=seed, conditions={"clean": share})
    (one,) = lines(tmp_path).values()
    assert one.difference == 100 and (one.p, one.low, one.test_used, one.better) == (None, None, "", "")
    assert one.remark == "the same for all items: no interval"
    assert "the same for all items" in run("teacher", "student", "--records", str(tmp_path)).output


def test_a_difference_of_rates_is_at_most_100_points(tmp_path):
    hard = {1: {"teacher": 2.0, "student": 0.0}, 2: {"teacher": 0.5, "student": 0.5}}
    for seed, shares in hard.items():
        for label, share in shares.items():
            boards.write_answers(tmp_path, label, items=4, seed=seed, conditions={"clean": share})
    (one,) = lines(tmp_path).values()
    assert (one.difference, one.low, one.high) == (50, -100, 100)


def test_two_published_systems_have_differences_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("DPHuBERT", "distilhubert", "--task", "ASR", "--task", "IC")
    assert result.exit_code == 0, result.output
    assert "DPHuBERT † minus DistilHuBERT †" in result.output
    assert "-2.90" in result.output and "+2.93" in result.output and "published: no interval" in result.output
    assert "† published by others" in result.output and "is better" not in result.output


def test_a_measured_system_meets_a_published_one_on_official_test_sets_only(folder, tmp_path):
    result = run("student", "DPHuBERT", "--records", str(folder))
    assert result.exit_code == 1 and "'student' and 'DPHuBERT' have no cell in common" in result.stderr
    assert compare("student", "DPHuBERT", [folder], official=["IC"]).frame.task.tolist() == ["IC"]
    boards.write_answers(tmp_path / "official", "student", items=3793, non_standard=["runner.total_steps is 4000"])
    found = lines(tmp_path / "official", "student", "DPHuBERT")
    assert list(found) == ["clean"] and found["clean"].second == 97.92
    assert found["clean"].remark == "published: no interval" and found["clean"].marks == ["‡", ""]
    result = run("student", "DPHuBERT", "--records", str(tmp_path / "official"))
    assert "‡ student: not a standard run, runner.total_steps is 4000" in result.output


def test_a_label_with_a_published_name_is_the_measured_one_unless_said(tmp_path):
    boards.write_answers(tmp_path, "DPHuBERT", items=3793)
    found = compare("dphubert", "published:DPHuBERT", [tmp_path])
    assert not found.first.published and found.second.published
    assert found.frame.second.tolist() == [97.92]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["teacher", "studnet"], "no system is called 'studnet'; did you mean 'student'"),
        (["teacher", "DistillHuBERT"], "did you mean 'DistilHuBERT'"),
        (["teacher", "teacher"], "'teacher' is on both sides"),
        (["teacher", "student", "--task", "XX"], "unknown task 'XX'"),
        (["teacher", "nobody"], "no system is called 'nobody' (measured: "),
    ],
)
def test_errors_are_one_sentence(folder, arguments, message):
    result = run(*arguments, "--records", str(folder))
    assert result.exit_code == 2
    assert result.stderr.startswith("robustdistiller compare: ") and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_tasks_of_the_records_are_suggested_too():
    result = run(
        "teacher",
        "plain student",
        "--task",
        "wrods",
        "--records",
        str(Path(__file__).parents[3] / "results" / "quickstart" / "records"),
    )
    assert result.exit_code == 2 and "unknown task 'wrods'; did you mean 'words'?" in result.stderr


def test_a_system_that_has_failed_runs_only_is_no_system_yet(tmp_path):
    write_record(tmp_path, boards.record("student", status="failed", reason="out of memory", metrics=[]))
    result = run("student", "DPHuBERT", "--records", str(tmp_path))
    assert "no system is called 'student'" in result.stderr and "(measured: none that has a number)" in result.stderr


def test_two_checkpoints_of_one_label_must_be_told_apart(folder):
    boards.write_answers(folder, "student", checkpoint_digest="dd" * 32)
    with pytest.raises(ValueError, match=r"'student' names 2 systems: .*bbbbbbbb.*dddddddd"):
        compare("teacher", "student", [folder])
    assert len(lines(folder, second="student (robustdistiller_local dddddddd)")) == 5


def test_labels_that_differ_in_case_are_two_systems(tmp_path):
    for label, gain in (("Student", 0.0), ("student", 0.05), ("published:x", 0.08)):
        boards.write_answers(tmp_path, label, gain=gain)
    for first, second in (("Student", "student"), ("student", "Student"), ("published:x", "student")):
        found = compare(first, second, [tmp_path])
        assert (found.first.name, found.second.name) == (first, second)
    with pytest.raises(ValueError, match="'STUDENT' names 2 systems: Student; student; say which"):
        compare("STUDENT", "published:x", [tmp_path])


def test_nothing_in_common_prints_the_way_out(tmp_path):
    boards.write_answers(tmp_path, "teacher", conditions={"clean": 0.9})
    boards.write_answers(tmp_path, "student", conditions={"reverb": 0.5})
    result = run("teacher", "student", "--records", str(tmp_path))
    assert result.exit_code == 1 and "have no cell in common" in result.stderr
    assert "teacher lacks IC (200 items) under reverb" in result.stdout
    assert "student lacks IC (200 items) under clean" in result.stdout
    result = run("teacher", "student", "--records", str(tmp_path), "--json")
    assert result.exit_code == 1 and "have no cell in common" in result.stderr
    assert json.loads(result.stdout)["lines"] == []
