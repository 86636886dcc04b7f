"""Results of single items: they add up to the score, and say which items are of one speaker."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robustdistiller.eval.results.files import record_path, write_record
from robustdistiller.eval.results.item_scores import ItemScores, NoOutcomes, Outcomes, items_of, write_outcomes
from robustdistiller.eval.results.record import Metric, RecordError
from tests.records import example_record

IDS = {
    "KS": ["yes/0a7c2a8d_nohash_0.wav", "yes/0a7c2a8d_nohash_1.wav", "no/ffa7c2a8_nohash_0.wav"],
    "IC": ["speakers/2BqVo8kVB2Skwgyb/1.wav", "speakers/2BqVo8kVB2Skwgyb/2.wav", "speakers/other/1.wav"],
    "SID": ["id10270/5r0dWxy17C8/00001.wav", "id10270/5r0dWxy17C8/00002.wav", "id10271/a/00001.wav"],
    "ER": ["Ses01F_impro01_F000.wav", "Ses01M_script01_F003.wav", "Ses01F_impro01_M000.wav"],
    "ASR": ["1089-134686-0000", "1089-134691-0003", "121-121726-0000"],
    "PR": ["1089-134686-0000", "1089-134691-0003", "121-121726-0000"],
    "SE": ["p232_001", "p232_002", "p257_001"],
    "BIRDS": ["a-1", "a-2", "b-1"],
}


def write(root, ids, right=(1, 1, 0), **changes):
    items = Outcomes.sort(ids, {"accuracy": ItemScores(np.array(right), np.ones(len(ids), int))})
    metrics = [Metric("accuracy", items.metrics["accuracy"].value, True, "%")]
    record = example_record(metrics=metrics, items_expected=len(ids), items_scored=len(ids), **changes)
    pointer = write_outcomes(record_path(root, record).with_suffix(".npz"), items)
    return write_record(root, dataclasses.replace(record, outcomes=pointer))


@pytest.mark.parametrize("task", list(IDS))
def test_items_of_one_speaker_are_a_group(task, tmp_path):
    items = items_of(write(tmp_path, IDS[task], task=task))
    groups = [items.groups[items.ids.index(name)] for name in IDS[task]]
    assert (groups[0] == groups[1]) is (task != "BIRDS"), "of a task nobody knows each item is its own"
    assert groups[2] != groups[0] and len(items.groups) == len(items.ids) == 3


def test_order_and_groups_follow_the_ids():
    scores = {"accuracy": ItemScores(np.array([1, 0, 0]), np.array([1, 1, 1]))}
    items = Outcomes.sort(["c", "a", "b"], scores, ["one", "two", "one"])
    assert items.ids == ("a", "b", "c") and items.groups == ("two", "one", "one")
    assert items.metrics["accuracy"].numerator.tolist() == [0, 0, 1]
    assert items.with_metric("cer", ["b", "c", "a"], scores["accuracy"]).groups == items.groups
    with pytest.raises(NoOutcomes, match="3 items have only 2 different names"):
        Outcomes.sort(["a", "a", "b"], scores)


def test_an_item_of_n_in_a_fold_counts_one_nth(tmp_path):
    paths = [
        write(tmp_path, ["x/a", "x/b"], right=(1, 0), task="ER", fold="fold1"),
        write(tmp_path, ["y/c"], right=(1,), task="ER", fold="fold2"),
    ]
    items = items_of(paths)
    assert items.metrics["accuracy"].value == 75.0 and items.ids == ("x/a", "x/b", "y/c")
    with pytest.raises(RecordError, match="the folds cannot be brought together: 4 items have only 2"):
        items_of([paths[0], paths[0]])
    lacking = write_record(tmp_path, example_record(task="ER", fold="fold3"))
    assert items_of(lacking) is None and items_of([*paths, lacking]) is None
