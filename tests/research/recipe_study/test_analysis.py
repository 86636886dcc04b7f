"""The significance test against known cases, and tables that never average fewer seeds than there are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from research.recipe_study.analysis import NOISY_MEAN, Results, cell_table
from research.recipe_study.outcomes import Cell, Outcome
from research.recipe_study.report import answers, score_table
from robustdistiller.eval.report.significance import adjust, crossed_test

CONDITIONS = ("clean", "noise10", "noise0")


def test_one_seed_is_the_paired_t_test():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 50))
    found = crossed_test([(first - second)[None]])
    expected = stats.ttest_rel(first, second)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_seeds_that_differ_much_are_a_t_test_over_seeds():
    generator = np.random.default_rng(1)
    by_seed = np.array([3.0, 1.0, 5.0])
    block = by_seed[:, None] + generator.normal(0, 1e-6, (3, 200))
    found = crossed_test([block])
    assert found.p == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue, rel=1e-3)
    assert found.degrees == pytest.approx(2, rel=1e-3)


def test_equal_seeds_are_one_seed():
    items = np.random.default_rng(2).normal(0.2, 1, 80)
    found = crossed_test([np.stack([items] * 3)])
    assert found.p == pytest.approx(stats.ttest_1samp(items, 0).pvalue)


@pytest.mark.parametrize(("seed_sd", "item_sd"), [(0.0, 1.0), (0.3, 1.0), (1.0, 0.3)])
def test_five_percent_of_true_zeros_are_called_different(seed_sd, item_sd):
    """The t-test over items alone, on the mean of the seeds, would call far more once seeds matter."""
    generator = np.random.default_rng(3)
    called, naive = [], []
    for _ in range(600):
        block = (
            generator.normal(0, seed_sd, (3, 1))
            + generator.normal(0, item_sd, (1, 60))
            + generator.normal(0, 0.5, (3, 60))
        )
        called.append(crossed_test([block]).p < 0.05)
        naive.append(stats.ttest_1samp(block.mean(0), 0).pvalue < 0.05)
    assert 0.01 < np.mean(called) < 0.095
    if seed_sd:
        assert np.mean(naive) > 0.12


def test_tasks_weigh_the_same_whatever_their_size():
    found = crossed_test([np.array([[0.0, 2.0, 0.0, 2.0]]), np.full((1, 400), 3.0)])
    assert found.value == pytest.approx(2.0)
    assert found.standard_error == pytest.approx(0.5 * np.std([0, 2, 0, 2], ddof=1) / 2)


def test_blocks_must_have_the_same_seeds():
    with pytest.raises(ValueError, match="different numbers of seeds"):
        crossed_test([np.zeros((1, 4)), np.zeros((2, 4))])


def test_adjusted_p_values_follow_benjamini_and_hochberg():
    p = np.array([0.001, 0.2, 0.012, 0.04])
    by_hand = [0.001 * 4 / 1, 0.2, 0.012 * 4 / 2, 0.04 * 4 / 3]
    assert adjust(p, "bh") == pytest.approx(by_hand)
    assert len(adjust([], "bh")) == 0


def test_long_and_short_texts_with_the_same_error_rate_have_no_spread():
    cell = Cell(np.array([1, 4, 20]), np.array([10, 40, 200]))
    assert cell.parts("CER") == pytest.approx([10, 10, 10])
    uneven = Cell(np.array([2, 4, 20]), np.array([10, 40, 200]))
    assert uneven.parts("CER").mean() == pytest.approx(100 * 26 / 250) == pytest.approx(uneven.score("CER"))
    assert Cell(np.array([0, 1, 1]), np.ones(3, dtype=int)).parts("accuracy") == pytest.approx([100, 0, 0])


def test_the_spread_of_an_error_rate_is_that_of_resampled_items():
    generator = np.random.default_rng(5)
    counts = generator.integers(5, 80, 120)
    errors = generator.binomial(counts, generator.beta(4, 6, 120))
    drawn = generator.integers(0, 120, (4000, 120))
    resampled = 100 * errors[drawn].sum(1) / counts[drawn].sum(1)
    found = crossed_test([Cell(errors, counts).parts("CER")[None]])
    assert found.standard_error == pytest.approx(resampled.std(), rel=0.06)


def outcome(name: str, seed: int, rates: tuple[float, ...], skip: tuple[str, ...] = ()) -> Outcome:
    generator = np.random.default_rng([seed, len(name)])
    cells = {}
    for condition, rate in zip(CONDITIONS, rates):
        if condition not in skip:
            errors = (generator.random(300) < rate).astype(int)
            cells["words", condition] = Cell(errors, np.ones(300, dtype=int))
            cells["prompts", condition] = Cell(errors * 3, np.full(300, 10))
    return Outcome({"name": name, "seed": seed}, cells)


@pytest.fixture
def results() -> Results:
    found = [outcome("distilhubert", seed, (0.3, 0.6, 0.8)) for seed in (0, 1, 2)]
    found += [outcome("robustdistiller", seed, (0.3, 0.3, 0.5)) for seed in (0, 1, 2)]
    found += [outcome("correlation", seed, (0.3, 0.3, 0.5)) for seed in (0, 1)]
    found += [outcome("dphubert", seed, (0.3, 0.5, 0.8), skip=("noise0",) * (seed == 2)) for seed in (0, 1, 2)]
    return Results.of(found)


def test_scores_are_the_mean_of_all_seeds(results):
    cells = [results.outcomes["distilhubert", seed].cells["words", "clean"] for seed in (0, 1, 2)]
    expected = np.mean([100 * (1 - cell.errors.mean()) for cell in cells])
    assert results.score("distilhubert", "words", "clean").value == pytest.approx(expected)


def test_a_missing_seed_makes_the_cell_missing(results):
    assert results.score("correlation", "words", "clean") is None
    assert results.gain("correlation", "distilhubert", ["words"], "noise10") is None
    assert results.score("dphubert", "words", "noise0") is None
    assert results.score("dphubert", "words", NOISY_MEAN) is None
    assert results.score("dphubert", "words", "noise10") is not None
    table = cell_table(results)
    text = score_table(results, table, "words")
    line = next(line for line in text.splitlines() if line.startswith("| correlation"))
    assert line.count("missing (2 of 3 seeds)") == len(CONDITIONS)
    line = next(line for line in text.splitlines() if line.startswith("| pruned, clean"))
    assert line.count("missing") == 1
    assert results.missing() == [
        "correlation: seeds [0, 1] of [0, 1, 2] in all cells",
        "dphubert: seeds [0, 1] of [0, 1, 2] in words noise0, prompts noise0",
    ]


def test_gains_are_positive_where_better_for_error_rates_too(results):
    accuracy = results.gain("robustdistiller", "distilhubert", ["words"], "noise10")
    error_rate = results.gain("robustdistiller", "distilhubert", ["prompts"], "noise10")
    assert accuracy.value > 20 and accuracy.p < 0.001
    assert error_rate.value == pytest.approx(accuracy.value * 0.3)
    assert results.gain("robustdistiller", "distilhubert", ["words"], "clean").p > 0.01


def test_the_answers_name_the_gain_and_what_is_missing(results):
    text = "\n".join(answers(results, cell_table(results)))
    gain = results.gain("robustdistiller", "distilhubert", ["words", "prompts"], NOISY_MEAN)
    assert f"{gain.value:+.1f} ({gain.interval[0]:+.1f} to {gain.interval[1]:+.1f}; p < 0.001)" in text
    assert any("pruning" in line and "missing" in line for line in text.splitlines())
