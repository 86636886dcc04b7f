"""Records: contradictions are refused when they are made, not when a table is."""

from __future__ import annotations

import pytest

from robustdistiller.eval.results.record import Metric, RecordError, example_record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "outcomes have version 9, this release reads 1"),
        ({"file": "../elsewhere.npz"}, "beside the record"),
        ({"sha256": "x"}, "64 hexadecimal digits"),
        ({"items": 0}, "positive number of items"),
        ({"more": 1}, "outcomes must hold file, items, sha256, version"),
    ],
)
def test_a_wrong_pointer_to_outcomes_is_refused(change, message):
    pointer = {"version": 1, "file": "a.npz", "sha256": "ab" * 32, "items": 4}
    assert example_record(outcomes=pointer).outcomes == pointer
    with pytest.raises(RecordError, match=message):
        example_record(outcomes={**pointer, **change})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items_scored": 3}, "3 of 4 items scored cannot have status 'ok'"),
        ({"status": "partial"}, "needs a reason"),
        ({"status": "good"}, "status must be one of ok, partial, failed, found 'good'"),
        ({"checkpoint_digest": "abc"}, "64 hexadecimal digits or 'none', found 'abc'"),
        ({"checkpoint_digest": ""}, "64 hexadecimal digits or 'none', found ''"),
        ({"head_digest": "xy"}, "head_digest must be 64 hexadecimal digits or 'none' or empty, found 'xy'"),
        ({"rules_digest": "none"}, "rules_digest must be 64 hexadecimal digits or empty, found 'none'"),
        ({"seed": "1"}, "seed must be an integer, found '1'"),
        ({"task": ""}, "task must be a non-empty string"),
        ({"metrics": []}, "at least one metric"),
        ({"metrics": [Metric("wer", float("nan"), False, "%")]}, "'wer' must be a finite number, found nan"),
        ({"metrics": [Metric("wer", None, False, "%")]}, "neither a value nor a reason"),
        ({"versions": {"torch": object()}}, "plain JSON"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(RecordError, match=message):
        example_record(**changes)


def test_a_run_that_failed_before_its_upstream_was_loaded_need_not_know_it():
    failed = example_record(status="failed", reason="no network", checkpoint_digest="", parameters=None, metrics=[])
    assert failed.checkpoint_digest == "" and failed.parameters is None
