"""Intervals and tests against closed forms, resampling and simulation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from robustdistiller.eval.report.significance import Estimate, adjust, contributions, crossed_test, mcnemar
from robustdistiller.eval.results.item_scores import ItemScores


def answers(right: np.ndarray) -> ItemScores:
    return ItemScores(right.astype(int), np.ones(len(right), int))


def test_the_interval_of_an_accuracy_is_wilsons():
    for right in (1, 40, 240, 345):
        parts = contributions(answers(np.arange(346) < right))
        low, high = Estimate(parts.mean(), parts.std(ddof=1) / 346**0.5, 345.0, limit=100.0).interval
        wilson = stats.binomtest(right, 346).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((100 * wilson.low, 100 * wilson.high), abs=0.5)
        assert 0 < low < parts.mean() < high < 100


@pytest.mark.parametrize("items", [2, 25, 120])
@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_no_certainty(items, right):
    found = crossed_test([np.full((2, items), 100.0 * right)])
    exact = stats.binomtest(items * right, items).proportion_ci(method="exact")
    expected = pytest.approx((100 * exact.low, 100 * exact.high))
    assert dataclasses.replace(found, limit=100.0).interval == expected
    nearly = dataclasses.replace(found, value=found.value * (1 - 1e-15), limit=100.0)  # as means of means come out
    assert nearly.interval == expected


def test_what_is_the_same_everywhere_has_no_interval():
    """Five speakers who each have nine of ten right; no error in any utterance."""
    equal = crossed_test([np.full((1, 5), 90.0)])
    assert dataclasses.replace(equal, limit=100.0).interval is None and equal.interval is None
    assert dataclasses.replace(crossed_test([np.zeros((1, 5))]), limit=np.inf).interval is None


def test_the_interval_of_a_word_error_rate_is_that_of_resampled_utterances():
    generator = np.random.default_rng(0)
    words = generator.integers(3, 40, 800)
    errors = generator.binomial(words, 0.2)
    parts = contributions(ItemScores(errors, words))
    assert parts.mean() == pytest.approx(100 * errors.sum() / words.sum())  # not the mean of rates
    found = crossed_test([parts[None]])
    drawn = generator.integers(0, 800, (4000, 800))
    resampled = 100 * errors[drawn].sum(1) / words[drawn].sum(1)
    assert found.standard_error == pytest.approx(resampled.std(), rel=0.06)
    assert found.interval == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])), abs=0.12)


def test_utterances_of_one_speaker_count_together():
    """Forty speakers of fifty utterances each, as in test-clean: an interval over utterances is far too narrow."""
    generator = np.random.default_rng(1)
    speakers = np.repeat([f"s{i:02d}" for i in range(40)], 50)
    covered = {"speakers": 0, "utterances": 0}
    for _ in range(300):
        rate = np.clip(generator.normal(0.3, 0.12, 40), 0, 1)
        right = answers(generator.random(2000) < np.repeat(rate, 50))
        for name, groups in (("speakers", speakers), ("utterances", None)):
            low, high = crossed_test([contributions(right, groups)[None]]).interval
            covered[name] += low < 30 < high
    assert covered["speakers"] > 0.92 * 300 and covered["utterances"] < 0.75 * 300


def test_few_speakers_do_not_replace_items():
    right = answers(np.array([1, 0] * 50))
    assert len(contributions(right, ["a", "b"] * 50)) == 100
    assert len(contributions(right, [f"speaker {i % 5}" for i in range(100)])) == 5


def test_the_spread_of_seeds_is_in_the_interval():
    generator = np.random.default_rng(2)
    missed = {"all": 0, "one seed": 0}
    for _ in range(400):
        seeds = generator.normal(0, 3, (3, 1))
        block = 70 + seeds + generator.normal(0, 10, (1, 400)) + generator.normal(0, 10, (3, 400))
        for name, part in (("all", block), ("one seed", block.mean(0, keepdims=True))):
            low, high = crossed_test([part]).interval
            missed[name] += not low < 70 < high
    assert missed["all"] < 0.08 * 400 and missed["one seed"] > 0.3 * 400


def test_a_p_value_can_be_as_small_as_the_data_say():
    """Five more word errors in every utterance, among sixty tests: any correction leaves it standing."""
    generator = np.random.default_rng(3)
    words = generator.integers(10, 30, 500)
    errors = generator.binomial(words, 0.3)
    first, second = (contributions(ItemScores(e, words)) for e in (errors + 5, errors))
    p = crossed_test([(first - second)[None]]).p
    assert p < 1e-20
    others = list(generator.random(59) * 0.9 + 0.05)
    assert adjust([p, *others])[0] < 1e-18
    assert (adjust([p, *others])[1:] > 0.05).all()


def test_equal_answers_have_no_difference_and_p_one():
    parts = contributions(answers(np.random.default_rng(4).random(300) < 0.5))
    found = crossed_test([(parts - parts)[None]])
    # However many they are, equal answers do not say how far apart two systems can be.
    assert (found.value, found.interval, found.p) == (0.0, None, 1.0)
    assert Estimate(3.0).p is None and Estimate(3.0).interval is None


def test_an_interval_never_leaves_what_a_rate_can_be():
    """Satterthwaite's degrees can come near 0 where seeds and items are few, and t then has no bounds."""
    generator = np.random.default_rng(0)
    for _ in range(1000):
        shape = generator.integers(2, 4), generator.integers(2, 21)
        block = 100.0 * (generator.random(shape) < generator.random())
        found = crossed_test([block])
        assert found.degrees >= min(shape[0] - 1, shape[1] - 1)
        low, high = dataclasses.replace(found, limit=100.0).interval or (found.value, found.value)
        assert 0 <= low <= found.value <= high <= 100
        assert np.isfinite(dataclasses.replace(found, limit=np.inf).interval or 0).all()
        between = dataclasses.replace(crossed_test([block - block[::-1] * (generator.random(shape) < 0.5)]), most=100.0)
        low, high = between.interval or (between.value, between.value)
        assert -100 <= low <= between.value <= high <= 100
    for limit in (100.0, np.inf):
        low, high = Estimate(50.0, 1e6, 1.0, limit=limit).interval
        assert 0 <= low < 1e-9 and 99 < high <= limit and np.isfinite(high)


@pytest.mark.parametrize("difference", [100.0, 100 / 3, -0.1])
@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (3, 50)])
def test_a_difference_without_any_spread_tells_nothing_of_chance(shape, difference):
    items = 70 + np.random.default_rng(5).normal(0, 1, shape)
    found = crossed_test([items + difference - items])
    assert found.value == pytest.approx(difference) and found.standard_error == 0
    assert found.p is None and found.interval is None


def test_pairing_takes_out_what_is_hard_for_everybody():
    hard = np.random.default_rng(1).random(300)
    first, second = (contributions(answers(hard < share)) for share in (0.5, 0.45))
    paired = crossed_test([(first - second)[None]])
    alone = [crossed_test([one[None]]) for one in (first, second)]
    assert paired.standard_error < 0.6 * max(one.standard_error for one in alone)
    assert paired.interval[0] > 0


def test_mcnemar_is_the_binomial_test_of_the_items_that_differ():
    first = np.array([True] * 12 + [False] * 3 + [True] * 20 + [False] * 5)
    second = np.array([False] * 12 + [True] * 3 + [True] * 20 + [False] * 5)
    assert mcnemar(first, second) == pytest.approx(2 * stats.binom.cdf(3, 15, 0.5))
    assert mcnemar(first, first) == 1.0


def test_holm_by_hand():
    assert adjust([0.01, 0.011, 0.5]).tolist() == pytest.approx([0.03, 0.03, 0.5])
    assert len(adjust([])) == 0
