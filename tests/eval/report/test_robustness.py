"""Summaries over conditions, intervals and paired tests against closed forms; results of single items on disk."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from robustdistiller.eval import tasks
from robustdistiller.eval.report.robustness import Measured, area_under_curve, curves, summarise
from robustdistiller.eval.report.significance import bootstrap, compare, mcnemar, resample, significant
from robustdistiller.eval.results.item_scores import (
    ItemScores,
    NoOutcomes,
    Outcomes,
    outcomes_of,
    read_outcomes,
    write_outcomes,
)
from robustdistiller.eval.results.record import RecordError, example_record


def answers(right: np.ndarray) -> ItemScores:
    return ItemScores(right.astype(int), np.ones(len(right), int))


def test_interval_is_as_wide_as_the_binomial_says():
    right = np.random.default_rng(0).random(800) < 0.3
    found = bootstrap(answers(right), draws=4000)
    half = 1.96 * 100 * np.sqrt(right.mean() * (1 - right.mean()) / 800)
    assert found.value == pytest.approx(100 * right.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)
    assert (found.low + found.high) / 2 == pytest.approx(found.value, abs=0.3)


def test_word_errors_are_summed_before_they_are_divided():
    cell = ItemScores(np.array([1, 0, 9]), np.array([2, 8, 10]))
    assert cell.value == 50.0  # not the mean of 50, 0 and 90 per cent
    drawn = resample([cell], draws=500)[:, 0]
    possible = {
        round(100 * (cell.numerator[list(c)].sum() / cell.denominator[list(c)].sum()), 6) for c in np.ndindex(3, 3, 3)
    }
    assert {round(float(one), 6) for one in drawn} <= possible


def test_the_same_items_are_drawn_for_both_sides():
    hard = np.random.default_rng(1).random(300)
    first, second = hard < 0.5, hard < 0.45  # the second is wrong wherever the first is, and a little more
    same = compare(answers(first), answers(first))
    assert (same.difference.low, same.difference.high, same.p_value) == (0, 0, 1)
    paired = compare(answers(first), answers(second)).difference
    alone = [bootstrap(answers(one)) for one in (first, second)]
    assert paired.high - paired.low < 0.6 * max(one.high - one.low for one in alone)
    assert paired.low > 0


def test_mcnemar_is_the_binomial_test_of_the_items_that_differ():
    first = np.array([True] * 12 + [False] * 3 + [True] * 20 + [False] * 5)
    second = np.array([False] * 12 + [True] * 3 + [True] * 20 + [False] * 5)
    assert mcnemar(first, second) == pytest.approx(2 * stats.binom.cdf(3, 15, 0.5))
    assert mcnemar(first, first) == 1.0
    found = compare(answers(first), answers(second))
    assert found.test == "McNemar" and found.p_value == mcnemar(first, second)


def test_rates_are_tested_by_the_bootstrap():
    generator = np.random.default_rng(2)
    words = generator.integers(5, 20, 400)
    errors = generator.binomial(words, 0.2)
    worse, equal = np.minimum(words, errors + (generator.random(400) < 0.4)), generator.permutation(errors)
    found = compare(ItemScores(errors, words), ItemScores(worse, words))
    assert found.test == "paired bootstrap" and found.p_value < 0.01 and found.difference.high < 0
    assert compare(ItemScores(errors, words), ItemScores(equal, words)).p_value > 0.05


def test_few_false_discoveries_among_many_tests():
    assert significant([0.01, 0.02, 0.03, 0.04]) == [True] * 4
    assert significant([0.011, 0.5, 0.6, None, 0.7, 0.8]) == [False] * 6
    assert significant([0.009, 0.5, 0.6, None, 0.7, 0.8]) == [True] + [False] * 5
    assert significant([None]) == [False]


def test_cells_of_other_items_are_refused():
    with pytest.raises(ValueError, match=r"same items, found \[3, 4\] items"):
        resample([answers(np.ones(3)), answers(np.ones(4))])


@pytest.mark.parametrize("snrs", [[-5, 20], [-5, 0, 20], [-5, 0, 5, 10, 15, 20]])
def test_area_of_a_straight_line_does_not_depend_on_the_grid(snrs):
    assert area_under_curve(snrs, np.array(snrs) * 2.0 + 10) == pytest.approx(25.0)


def test_area_of_a_bent_curve_and_refusals():
    assert area_under_curve([0, 5, 20], np.array([0.0, 10.0, 40.0])) == pytest.approx((25 + 375) / 20)
    for wrong in ([5], [5, 5], [10, 0]):
        with pytest.raises(ValueError, match="two or more rising SNRs"):
            area_under_curve(wrong, np.zeros(len(wrong)))


def test_conditions_of_one_curve_differ_in_snr_only():
    found = curves(
        [
            *("noise:snr_db=0", "noise:snr_db=10", "noise:snr_db=5,noise=white", "noise:snr_db=0,noise=white"),
            *("noise+reverb:snr_db=0,rt60_s=0.6", "noise+reverb:snr_db=10,rt60_s=0.3", "reverb", "in a paper's words"),
        ]
    )
    assert found == {
        "noise": [(0.0, "noise:snr_db=0"), (10.0, "noise:snr_db=10")],
        "noise:noise=white": [(0.0, "noise:snr_db=0,noise=white"), (5.0, "noise:snr_db=5,noise=white")],
    }


CONDITIONS = {"clean": 0.8, "noise:snr_db=10": 0.6, "noise:snr_db=0": 0.4, "reverb": 0.5}


def cells(items: int = 400, **changes) -> dict[str, Measured]:
    hard = np.random.default_rng(3).random(items)
    scores = {condition: answers(hard < share) for condition, share in CONDITIONS.items()}
    return {condition: Measured(one.value, one) for condition, one in scores.items()} | changes


def test_summaries_and_their_intervals():
    measured = cells()
    found = summarise(measured, "accuracy", higher_is_better=True)
    value = {condition: one.value for condition, one in measured.items()}
    mean = (value["noise:snr_db=10"] + value["noise:snr_db=0"] + value["reverb"]) / 3
    assert found.mean.value == pytest.approx(mean)
    assert found.degradation.value == pytest.approx(100 * (value["clean"] - mean) / value["clean"])
    assert found.areas["noise"].value == pytest.approx((value["noise:snr_db=10"] + value["noise:snr_db=0"]) / 2)
    for one in (found.mean, found.degradation, found.areas["noise"]):
        assert one.low < one.value < one.high
    assert found.conditions == ("noise:snr_db=10", "noise:snr_db=0", "reverb")


def test_error_rates_degrade_upwards_and_decibels_do_not_degrade_in_per_cent():
    rates = {"clean": Measured(10.0), "reverb": Measured(15.0)}
    assert summarise(rates, "wer", higher_is_better=False).degradation.value == pytest.approx(50.0)
    assert summarise(rates, "si_sdr_improvement", higher_is_better=True).degradation is None
    assert summarise({"reverb": Measured(15.0)}, "wer", False).degradation is None
    assert summarise({"clean": Measured(0.0), "reverb": Measured(15.0)}, "wer", False).degradation is None
    assert summarise({"clean": Measured(10.0)}, "wer", False).mean is None


def test_without_items_of_every_condition_there_is_no_interval():
    found = summarise(cells(reverb=Measured(50.0)), "accuracy", higher_is_better=True)
    assert found.mean.low is None and found.degradation.low is None


# Results of single items


def outcomes(right: list[int]) -> Outcomes:
    names = [f"speaker/{i}.wav" for i in range(len(right))]
    return Outcomes.sort(names, {"accuracy": answers(np.array(right))})


def test_outcomes_come_back_and_are_small(tmp_path):
    right = (np.random.default_rng(0).random(3793) < 0.5).astype(int)
    record = example_record(items_expected=3793, items_scored=3793)
    kept = outcomes(list(right))
    record = dataclasses.replace(
        record,
        metrics=[dataclasses.replace(record.main_metric, value=kept.metrics["accuracy"].value)],
        outcomes=write_outcomes(tmp_path / "a.npz", kept),
    )
    found = read_outcomes(tmp_path / "a.json", record)
    assert found.ids == kept.ids and np.array_equal(
        found.metrics["accuracy"].numerator, kept.metrics["accuracy"].numerator
    )
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_missing_changed_and_foreign_outcomes_are_refused(tmp_path):
    pointer = write_outcomes(tmp_path / "a.npz", outcomes([1, 1, 1, 0]))
    record = example_record(outcomes=pointer)
    assert read_outcomes(tmp_path / "a.json", record).metrics["accuracy"].value == 75
    other = write_outcomes(tmp_path / "b.npz", outcomes([1, 1, 0, 0]))
    with pytest.raises(RecordError, match=r"does not belong to its record: the single items give accuracy 50\.0000"):
        read_outcomes(tmp_path / "a.json", example_record(outcomes=other))
    (tmp_path / "a.npz").write_bytes((tmp_path / "b.npz").read_bytes())
    with pytest.raises(RecordError, match="was changed after it was written"):
        read_outcomes(tmp_path / "a.json", record)
    (tmp_path / "a.npz").unlink()
    with pytest.raises(RecordError, match=r"points to a\.npz, which is not there"):
        read_outcomes(tmp_path / "a.json", record)


def test_what_experts_keep_is_read_wherever_the_corpus_lies():
    kept = {"acc": [1.0, 0.0, 1.0], "filename": [f"/data/here/x/wavs/{n}.wav" for n in "cab"]}
    there = {"acc": [1.0, 1.0, 0.0], "filename": [f"/elsewhere/x/wavs/{n}.wav" for n in "bca"]}
    one, other = (outcomes_of(tasks.get("SID"), k) for k in (kept, there))
    assert one.ids == other.ids == ("x/wavs/a.wav", "x/wavs/b.wav", "x/wavs/c.wav")
    assert one.metrics["accuracy"].numerator.tolist() == other.metrics["accuracy"].numerator.tolist() == [0, 1, 1]


def test_diarization_takes_the_loaders_names_and_pairs_have_none():
    kept = {"der": [0.25, 0.75], "acc": [0.9, 0.8]}
    assert outcomes_of(tasks.get("SD"), kept, ["rec1", "rec2"]).metrics["frame_der"].value == 50
    with pytest.raises(NoOutcomes, match="keeps no results of single items"):
        outcomes_of(tasks.get("ASV"), {"id1/a/1.wav": [0.1]})
    with pytest.raises(NoOutcomes, match="2 items have only 1 different names"):
        outcomes_of(tasks.get("IC"), {"acc": [1.0, 0.0], "filename": ["a", "a"]})
