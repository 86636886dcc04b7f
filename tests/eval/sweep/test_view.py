"""What a sweep says while it runs: what is left, how long that takes, what failed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from robustdistiller.eval.run.quick import Quick
from robustdistiller.eval.sweep import Sweep
from robustdistiller.eval.sweep.view import progress_table, run_shown, summary

from .conftest import NOISE, change


def test_time_is_estimated_from_what_ran_before(config, one, go):
    assert Sweep(config).estimate().unknown == 8
    go(one)
    found = Sweep(config).estimate()
    # Three heads of ten steps at 2 s, two cells of 3 s, known from the other upstream.
    assert (found.known_s, found.unknown, found.jobs) == (66.0, 0, 4)
    assert found.text(2) == "about 33 s with 2 at a time"


def test_time_left_is_known_as_soon_as_the_first_job_of_its_kind_has_ended(config, engine):
    left = []
    running = Sweep(config, engine, say=lambda _: left.append(running.estimate()))
    running.run()
    left.append(running.estimate())
    known = [one for one in left if one.jobs and one.unknown < one.jobs]
    assert left[0].unknown == left[0].jobs == 8 and known and left[-1].jobs == 0


def test_the_summary_counts_and_names_what_failed(config, go, engine):
    assert summary(Sweep(config, engine)) == (
        "4 cells to run, 0 not; 6 heads to train. Time: unknown: no job like these has run yet."
    )
    engine.failing_conditions = {NOISE}
    go(config)
    said = summary(Sweep(config, engine)).splitlines()
    assert said[0].startswith("2 cells to run, 2 not; 0 heads to train.")
    assert said[1:] == ["  2 cells: runs: its record is failed, RuntimeError: a file vanished"]


def test_live_table_counts_what_does_not_fit(config, go, engine):
    engine.fails = {"fbank: looking": "no [frames]"}
    run = go(config)
    table = progress_table(list(run.plans.values()), 5.0, rows=1, left="about 3 s with 2 at a time")
    assert table.row_count == 1
    assert str(table.caption) == "5 s, 1 failed, 1 done; 1 more rows; left: about 3 s with 2 at a time"
    states = {p.group.system.upstream.label: (p.state, p.trained, p.finished) for p in run.plans.values()}
    assert states == {"fbank": ("failed", 0, 0), "other": ("done", 3, 2)}


def test_a_terminal_shows_the_table_and_what_happens(config, engine):
    engine.fails = {"fbank: looking": "no [frames]"}
    shown = io.StringIO()
    assert run_shown(Sweep(config, engine), Console(file=shown, force_terminal=True, width=100)) == 1
    assert "other: looking at the upstream: done" in shown.getvalue() and "1 failed, 1 done" in shown.getvalue()
    assert "failed: fbank / IC / seed 1337 / clean: fbank was not tried: no [frames]" in shown.getvalue()


def test_time_left_is_that_of_what_waits_for_one_another(one, go):
    go(one)
    more = Sweep(change(one, learning_rates=[1e-1, 1e-2, 1e-3, 1e-4], conditions=[*one.conditions, "reverb"]))
    # One more head of 20 s and then a third cell of 3 s, however many could run side by side.
    assert more.estimate().text(4) == "about 23 s with 4 at a time"


def test_a_quick_look_is_timed_by_its_own_steps(one, go):
    quick = change(one, quick=Quick(0.5, 5))
    go(quick)
    more = change(quick, learning_rates=[*one.learning_rates, 1e-4])
    assert Sweep(more).estimate().known_s == pytest.approx(10.0)
