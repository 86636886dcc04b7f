"""Plots: every measured system is drawn, with its interval, and nothing else is left in the folder."""

from __future__ import annotations

import json

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.report.board import leaderboard
from robustdistiller.eval.report.plots import plot_board
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import Metric

from . import boards


@pytest.fixture
def drawn(monkeypatch):
    """The axes of each figure that is drawn."""
    found = []
    plain = Figure.add_subplot

    def kept(figure, *arguments):
        found.append(plain(figure, *arguments))
        return found[-1]

    monkeypatch.setattr(Figure, "add_subplot", kept)
    return found


def test_it_is_said_where_there_is_nothing_to_draw(tmp_path):
    boards.write_answers(tmp_path / "records", "student", conditions={"clean": 0.9})
    command = ["leaderboard", str(tmp_path / "records"), "--plots", str(tmp_path / "plots")]
    result = CliRunner().invoke(app, command)
    assert "No plot was drawn: no measured system has a score under a condition." in result.output
    assert not (tmp_path / "plots").exists()
    json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)


def test_every_system_looks_otherwise_and_stays_with_its_condition(tmp_path, drawn):
    for number in range(20):
        boards.write_answers(tmp_path, f"system {number}", -0.02 * number)
    plot_board(leaderboard([tmp_path], published=False), tmp_path / "plots")
    lines = [bars.lines[0] for bars in drawn[0].containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 20
    assert all(np.abs(line.get_xdata() - np.arange(4)).max() < 0.4 for line in lines)


def test_no_line_crosses_a_condition_that_a_system_lacks(tmp_path, drawn):
    boards.write_answers(tmp_path, "whole")
    boards.write_answers(tmp_path, "part", conditions={"clean": 0.9, "noise:snr_db=0": 0.4})
    for condition, value in (("clean", 90.0), ("noise:snr_db=0", 40.0)):
        write_record(tmp_path, boards.record("without results of single items", condition, value))
    plot_board(leaderboard([tmp_path], published=False), tmp_path / "plots")
    shown = {bars.get_label().split(" (")[0]: bars.lines[0].get_ydata() for bars in drawn[0].containers}
    for label in ("part", "without results of single items"):
        assert np.isnan(shown[label]).tolist() == [False, True, False, True]
    assert np.isfinite(shown["whole"]).all()


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
