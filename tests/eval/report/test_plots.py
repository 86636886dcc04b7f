"""Plots: every measured system is drawn, with its interval, and nothing else is left in the folder."""

from __future__ import annotations

import matplotlib.image
import numpy as np

from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.report.plots import plot_board
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import Metric

from . import boards


def test_a_plot_of_each_task_is_written_and_not_empty(tmp_path):
    for label, gain in (("teacher", 0.05), ("student", 0.0), ("other", -0.1)):
        boards.write_answers(tmp_path / "records", label, gain)
    boards.write_answers(tmp_path / "records", "late", conditions={"reverb": 0.5})
    only_clean = boards.record("student", task="KS", metrics=[Metric("accuracy", 90.0, True, "%")])
    write_record(tmp_path / "records", only_clean)
    board = leaderboard([tmp_path / "records"], reference="teacher")
    (path,) = plot_board(board, tmp_path / "deep" / "plots")
    assert path.name == "IC-test-200_items.png"
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 300 and image.shape[1] > 600
    pixels = np.round(255 * image[..., :3]).astype(int).reshape(-1, 3)
    colours = {tuple(colour) for colour in np.unique(pixels, axis=0)}
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115), (0, 0, 0)} <= colours  # three systems, the reference line
    assert [p.name for p in path.parent.iterdir()] == [path.name]
