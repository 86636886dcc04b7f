"""Records: contradictions are refused when they are made, wrong types and forms when they are read or written."""

from __future__ import annotations

import pytest

from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import ItemsFile, Metric, Record, RecordError
from tests.records import example_record


def changed(**changes) -> Record:
    return Record.from_dict({**example_record().to_dict(), **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "outcomes.version: found 9, expected at most 1"),
        ({"file": "../elsewhere.npz"}, "outcomes.file: found '../elsewhere.npz', expected text of the form"),
        ({"sha256": "x"}, "outcomes.sha256: found 'x', expected text of the form"),
        ({"items": 0}, "outcomes.items: found 0, expected at least 1"),
        ({"more": 1}, "unknown key 'outcomes.more'"),
    ],
)
def test_a_wrong_pointer_to_outcomes_is_refused(change, message):
    pointer = {"version": 1, "file": "a.npz", "sha256": "ab" * 32, "items": 4}
    assert changed(outcomes=pointer).outcomes == ItemsFile(**pointer)
    with pytest.raises(RecordError, match=message):
        changed(outcomes={**pointer, **change})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items_scored": 3}, "3 of 4 items scored cannot have status 'ok'"),
        ({"status": "partial"}, "needs a reason"),
        ({"checkpoint_digest": ""}, "checkpoint_digest may be empty only where a run failed"),
        ({"metrics": []}, "at least one metric"),
        ({"metrics": [Metric("wer", None, False, "%")]}, "neither a value nor a reason"),
        ({"sources": {"noise": {"name": "musan"}}}, "sources.noise needs a digest"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(RecordError, match=message):
        example_record(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "good", "reason": "?"}, "status: found 'good', expected 'ok', 'partial' or 'failed'"),
        ({"checkpoint_digest": "abc"}, r"checkpoint_digest: found 'abc', expected text of the form .* or 'none' or ''"),
        ({"head_digest": "xy"}, "head_digest: found 'xy', expected text of the form .* or 'none'"),
        ({"rules_digest": "none"}, "rules_digest: found 'none', expected text of the form"),
        ({"seed": "1"}, "seed: found '1', expected a whole number"),
        ({"seed": 2**63}, "seed: found 9223372036854775808, expected less than"),
        ({"task": ""}, "task: found '', expected text of at least 1 characters"),
        ({"metrics": [Metric("wer", float("nan"), False, "%")]}, "found nan, expected a finite number"),
    ],
)
def test_wrong_types_and_forms_are_neither_read_nor_written(changes, message, tmp_path):
    with pytest.raises(RecordError, match=message):
        changed(**changes)
    with pytest.raises(RecordError, match=message):
        write_record(tmp_path, example_record(**changes))
    assert not list(tmp_path.rglob("*.json"))


def test_a_run_that_failed_before_its_upstream_was_loaded_need_not_know_it():
    failed = example_record(status="failed", reason="no network", checkpoint_digest="", parameters=None, metrics=[])
    assert failed.checkpoint_digest == "" and failed.parameters is None
