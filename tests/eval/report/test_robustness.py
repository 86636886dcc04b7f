"""Summaries over conditions against closed forms, over what systems share."""

from __future__ import annotations

import numpy as np
import pytest

from robustdistiller.eval.report.cells import Cell, Column
from robustdistiller.eval.report.robustness import area_under_curve, curves, shared_columns, summarise
from robustdistiller.eval.report.significance import contributions, crossed_test
from robustdistiller.eval.results.item_scores import ItemScores

CONDITIONS = {"clean": 0.8, "noise:snr_db=10": 0.6, "noise:snr_db=0": 0.4, "reverb": 0.5}


def column(condition: str, metric: str = "accuracy", tag: str = "") -> Column:
    higher = metric not in ("wer", "per")
    unit = "dB" if metric == "si_sdr_improvement" else "%"
    return Column("IC", "test", metric, unit, higher, condition, tag=tag)


def plain(metric: str = "accuracy", **values: float) -> dict[Column, Cell]:
    return {column(condition.replace("_", ":snr_db=") if "_" in condition else condition, metric): Cell({1: value})
            for condition, value in values.items()}  # fmt: skip


def measured(items: int = 400, seeds: tuple[int, ...] = (1,)) -> dict[Column, Cell]:
    hard = np.random.default_rng(3).random(items)
    found = {}
    for condition, share in CONDITIONS.items():
        parts = {
            s: contributions(ItemScores((hard < share + 0.01 * s).astype(int), np.ones(items, int))) for s in seeds
        }
        values = {seed: float(part.mean()) for seed, part in parts.items()}
        found[column(condition)] = Cell(values, parts, tuple(map(str, range(items))))
    return found


def test_summaries_and_their_intervals():
    cells = measured()
    noisy = shared_columns([cells])
    found = summarise(cells, noisy)
    value = {one.condition: cell.value for one, cell in cells.items()}
    mean = (value["noise:snr_db=10"] + value["noise:snr_db=0"] + value["reverb"]) / 3
    assert found["mean"].value == pytest.approx(mean)
    assert found["difference"].value == pytest.approx(value["clean"] - mean)
    assert found["loss %"].value == pytest.approx(100 * (value["clean"] - mean) / value["clean"])
    assert found["area, noise"].value == pytest.approx((value["noise:snr_db=10"] + value["noise:snr_db=0"]) / 2)
    assert found["worst"] == "noise 0 dB"
    for one in (found["mean"], found["difference"], found["loss %"], found["area, noise"]):
        assert one.interval[0] < one.value < one.interval[1]


def test_the_interval_of_the_loss_is_that_of_resampled_items():
    cells = measured(items=800)
    found = summarise(cells, shared_columns([cells]))["loss %"]
    parts = np.array([cell.parts[1] for cell in cells.values()])  # clean first
    drawn = np.random.default_rng(0).integers(0, 800, (3000, 800))
    means = parts[:, drawn].mean(axis=2)
    resampled = 100 * (means[0] - means[1:].mean(axis=0)) / means[0]
    assert found.standard_error == pytest.approx(resampled.std(), rel=0.06)


def test_error_rates_degrade_upwards_and_decibels_do_not_degrade_in_per_cent():
    def of(metric: str, **values: float):
        cells = plain(metric, **values)
        return summarise(cells, shared_columns([cells]))

    assert of("wer", clean=10.0, reverb=15.0)["loss %"].value == pytest.approx(50.0)
    assert of("wer", clean=10.0, reverb=15.0)["difference"].value == pytest.approx(5.0)
    assert of("si_sdr_improvement", clean=10.0, reverb=5.0).get("loss %") is None
    assert of("si_sdr_improvement", clean=10.0, reverb=5.0)["difference"].value == 5.0
    assert of("stoi", clean=94.0, reverb=80.0).get("loss %") is None
    assert of("f1_of_my_own", clean=80.0, reverb=60.0)["loss %"].value == pytest.approx(25.0)  # as on the page
    assert of("wer", reverb=15.0).get("loss %") is None and of("wer", reverb=15.0).get("difference") is None
    assert of("wer", clean=0.0, reverb=15.0).get("loss %") is None
    assert of("wer", clean=10.0) is None


def test_summaries_are_over_the_conditions_that_systems_share():
    """A system that was scored at 20 dB only must not look better than one that was scored at 0 dB too."""
    both = plain(clean=80.0, noise_20=78.0, noise_0=40.0)
    easy = plain(clean=80.0, noise_20=77.0)
    only_clean = plain(clean=90.0)
    columns = shared_columns([both, easy, only_clean])
    assert [one.title for one in columns] == ["noise 20 dB"]
    assert summarise(both, columns)["mean"].value == 78 > summarise(easy, columns)["mean"].value == 77
    assert summarise(only_clean, columns) is None
    assert shared_columns([plain(clean=1.0, reverb=2.0), plain(clean=1.0, noise_0=2.0)]) == []


def test_seeds_that_are_not_there_everywhere_are_left_out():
    cells = {column("clean"): Cell({1: 80.0, 2: 90.0}), column("reverb"): Cell({1: 60.0})}
    found = summarise(cells, shared_columns([cells]))
    assert (found["difference"].value, found["difference"].seeds) == (20.0, 1)
    whole = {column("clean"): Cell({1: 80.0, 2: 90.0}), column("reverb"): Cell({1: 60.0, 2: 64.0})}
    found = summarise(whole, shared_columns([whole]))
    assert (found["difference"].value, found["difference"].seeds) == (23.0, 2)
    assert found["sd, seeds"].value == pytest.approx(np.std([60, 64], ddof=1))


def test_a_reference_divides_what_is_lost_condition_by_condition():
    reference, mine = plain(clean=90.0, noise_10=80.0, noise_0=40.0), plain(clean=80.0, noise_10=70.0, noise_0=55.0)
    columns = shared_columns([reference, mine])
    assert summarise(mine, columns, reference)["% of reference's"].value == pytest.approx(100 * (10 / 10 + 25 / 50) / 2)
    assert summarise(reference, columns, reference)["% of reference's"].value == pytest.approx(100)
    # Where the reference loses nothing there is nothing to divide by.
    steady = plain(clean=90.0, noise_10=90.0, noise_0=40.0)
    assert summarise(mine, columns, steady)["% of reference's"].value == pytest.approx(100 * 25 / 50)
    assert "% of reference's" not in summarise(mine, columns, plain(clean=90.0, noise_10=95.0, noise_0=90.0))
    assert "% of reference's" not in summarise(mine, columns, plain(noise_10=80.0, noise_0=40.0))


def test_draws_of_one_condition_count_as_one_and_their_spread_is_shown():
    cells = {
        column("clean"): Cell({1: 80.0}),
        column("noise:snr_db=0", tag="aaaaaa"): Cell({1: 40.0}),
        column("noise:snr_db=0", tag="bbbbbb"): Cell({1: 44.0}),
        column("reverb"): Cell({1: 60.0}),
    }
    found = summarise(cells, shared_columns([cells]))
    assert found["mean"].value == pytest.approx((42 + 60) / 2)
    assert found["sd, draws"].value == pytest.approx(np.std([40, 44], ddof=1)) and found["worst"] == "noise 0 dB"


def test_intervals_of_summaries_count_seeds():
    one, three = measured(seeds=(1,)), measured(seeds=(1, 2, 9))
    spread = [summarise(cells, shared_columns([cells]))["mean"] for cells in (one, three)]
    assert spread[1].degrees < spread[0].degrees and spread[1].seeds == 3
    parts = np.mean([[three[c].parts[s] for s in (1, 2, 9)] for c in shared_columns([three])], axis=0)
    assert spread[1].standard_error == pytest.approx(crossed_test([parts]).standard_error)


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
