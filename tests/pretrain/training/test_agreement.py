"""Whether distance and probe rank students alike: known correlations, ties, intervals, and too few points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from robustdistiller.common.settings import SettingsError
from robustdistiller.pretrain.training.agreement import draw_agreement, rank_agreement, read_measured


def write_run(folder: Path, accuracies: Sequence[float], cosines: Sequence[float], **columns) -> Path:
    """A run whose L1 distance is the reverse of its cosine distance, on clean speech."""
    folder.mkdir(parents=True)
    values = {"step": range(1, len(cosines) + 1), "condition": "clean", "l1": -np.array(cosines), "cosine": cosines}
    table = pd.DataFrame({**values, "cosine_layer4": cosines, "probe_accuracy": accuracies, **columns})
    table.to_csv(folder / "validation.csv", index=False)
    return folder


def line_of(found: pd.DataFrame, distance: str = "cosine", points_of: str = "all steps", condition: str = "clean"):
    chosen = found[(found.distance == distance) & (found.points_of == points_of) & (found.condition == condition)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_known_orders_have_known_correlations(tmp_path) -> None:
    run = write_run(tmp_path / "a", [0.1, 0.2, 0.3, 0.4, 0.5], [0.9, 0.7, 0.8, 0.2, 0.1])
    found = rank_agreement([run])
    # d^2 of the ranks 1..5 against 5, 3, 4, 2, 1: 16 + 1 + 1 + 4 + 16, so 1 - 6 x 38 / (5 x 24)
    assert line_of(found).rho == pytest.approx(-0.9) and line_of(found, "l1").rho == pytest.approx(0.9)
    assert line_of(found).points == 5 and line_of(found).runs == 1
    assert np.isnan(line_of(found).low) and line_of(found).note == "no interval from 1 run, it takes 3"


def test_ties_share_their_mean_rank(tmp_path) -> None:
    accuracies, cosines = [0.5, 0.5, 0.5, 0.7, 0.7, 0.9], [0.4, 0.4, 0.1, 0.3, 0.2, 0.2]
    found = rank_agreement([write_run(tmp_path / "a", accuracies, cosines)])
    theirs = scipy.stats.spearmanr(cosines, accuracies).statistic
    assert -0.9 < theirs < -0.1 and line_of(found).rho == pytest.approx(theirs, abs=1e-12)


def test_last_steps_can_say_the_opposite_of_all_steps(tmp_path) -> None:
    """Within each run both get better; among finished students the closer ones are the worse ones."""
    runs = [
        write_run(tmp_path / f"{n}", [0.2, 0.4, 0.6 + n / 100], [0.9, 0.6, 0.3 + n / 100], stage=["distil"] * 3)
        for n in range(6)
    ]
    found = rank_agreement(runs)
    every, last = line_of(found), line_of(found, points_of="last steps")
    assert every.rho < -0.5 and every.points == 18 and every.low < every.high < 0
    assert last.points == last.runs == 6 and [last.rho, last.low, last.high] == pytest.approx([1.0] * 3)
    assert every.note == last.note == "an interval from 6 runs is rough, rather too narrow"


def test_the_interval_is_over_runs_and_repeatable(tmp_path) -> None:
    generator = np.random.default_rng(0)
    runs = []
    for n in range(8):
        centre = generator.normal(size=2)  # what the 20 points of a run share says little about other runs
        points = centre[:, None] + 0.01 * generator.normal(size=(2, 20))
        runs.append(write_run(tmp_path / f"{n}", points[0], points[1]))
    found = line_of(rank_agreement(runs, seed=3))
    assert found.equals(line_of(rank_agreement(runs, seed=3)))
    assert found.low != line_of(rank_agreement(runs, seed=4)).low
    # 160 independent points would have an interval about 0.3 wide.
    assert found.high - found.low > 0.8 and found.low < found.rho < found.high


def test_conditions_are_apart_and_only_complete_lines_count(tmp_path) -> None:
    condition = ["clean", "noise:snr_db=5"] * 5
    accuracies = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, np.nan, 0.6, 0.4, np.nan]
    cosines = [0.9, 0.9, 0.8, 0.8, 0.7, 0.7, 0.0, 0.6, np.nan, 0.0]
    run = write_run(tmp_path / "a", accuracies, cosines, condition=condition, stage=["one"] * 6 + ["two"] * 4)
    found = rank_agreement([run])
    assert found.condition.unique().tolist() == ["clean", "noise:snr_db=5"] and len(found) == 8
    clean, noisy = line_of(found), line_of(found, condition="noise:snr_db=5")
    assert (clean.rho, clean.points) == (-1.0, 3) and (noisy.rho, noisy.points) == (1.0, 4)
    assert "3 points are in perfect order, or in the opposite one, by chance once in 3" in clean.note
    assert "4 points are in perfect order, or in the opposite one, by chance once in 12" in noisy.note


def test_too_few_points_have_a_sentence_and_no_number(tmp_path) -> None:
    found = rank_agreement([write_run(tmp_path / "a", [0.5], [0.3])])
    assert found.rho.isna().all() and set(found.note) == {"found 1 point, expected 3 or more to rank"}
    two = rank_agreement([tmp_path / "a", write_run(tmp_path / "b", [0.6], [0.3])])
    assert two.rho.isna().all() and set(two.note) == {"found 2 points, expected 3 or more to rank"}


def test_one_value_everywhere_cannot_be_ranked(tmp_path) -> None:
    runs = [write_run(tmp_path / name, [0.5, 0.5], [0.3, 0.2]) for name in "abc"]
    found = line_of(rank_agreement(runs))
    assert np.isnan(found.rho) and found.note.startswith("one of the two has the same value everywhere")


def test_different_targets_are_mentioned(tmp_path) -> None:
    one = write_run(tmp_path / "a", [0.1, 0.2, 0.3], [3, 2, 1])
    other = write_run(tmp_path / "b", [0.1, 0.2, 0.3], [3, 2, 1], cosine_layer8=[3, 2, 1])
    assert rank_agreement([one, other]).note.str.contains("the runs have different targets").all()
    assert not rank_agreement([one]).note.str.contains("targets").any()


def test_runs_of_one_name_are_told_apart(tmp_path) -> None:
    runs = [write_run(tmp_path / place / "run", [0.1], [1]) for place in ("a", "b")]
    assert read_measured(runs).run.tolist() == [str(run.resolve()) for run in runs]
    assert read_measured(runs[:1]).run.tolist() == ["run"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "validation.csv cannot be read (No such file or directory), expected the folder of a run"),
        ("", "is not the table of a validation (No columns"),
        ("step,condition,l1,cosine\n1,clean,1,1\n", "has no column probe_accuracy: the run had no probe; train with"),
        ("step,condition,l1,probe_accuracy\n1,clean,1,1\n", "has no column cosine, expected step, condition"),
        (
            "step,condition,l1,cosine,probe_accuracy\n1,clean,1,1,\n2,clean,,,0.5\n",
            "has no step at which both distance",
        ),
        ("step,condition,l1,cosine,probe_accuracy\n1,clean,x,1,1\n", "could not convert string to float: 'x'"),
    ],
)
def test_a_run_without_them_is_refused_in_one_sentence(text, message, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    if text is not None:
        (tmp_path / "run" / "validation.csv").write_text(text)
    with pytest.raises(SettingsError) as error:
        rank_agreement([write_run(tmp_path / "good", [0.1], [1]), tmp_path / "run"])
    said = str(error.value)
    assert message in said and said.startswith(str(tmp_path / "run")) and "\n" not in said


def test_a_run_twice_or_none_is_refused(tmp_path) -> None:
    run = write_run(tmp_path / "a", [0.1], [1])
    for folders, message in (([run, f"{run}/../a"], "found .*a twice"), ([], "found no runs")):
        with pytest.raises(SettingsError, match=message):
            rank_agreement(folders)


def test_the_picture_has_every_condition_and_every_point(tmp_path, monkeypatch) -> None:
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    condition = ["clean", "reverb", "clean", "reverb"]
    runs = [write_run(tmp_path / name, [0.1, 0.2, 0.3, 0.4], [4, 3, 2, 1], condition=condition) for name in "ab"]
    draw_agreement(runs, tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes()[:4] == b"\x89PNG"
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles == ["clean", "reverb"] * 2
    assert [[len(line.get_xdata()) for line in axes.lines] for axes in drawn[0].axes] == [[2, 1, 2, 1]] * 4
