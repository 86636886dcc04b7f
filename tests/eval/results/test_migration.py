"""Files that earlier releases wrote are read, and say what their writers could not know."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from robustdistiller.eval.results.files import read_record, read_records, write_record
from robustdistiller.eval.results.frame import read_frame
from robustdistiller.eval.results.identity import cell_id, differences
from robustdistiller.eval.results.item_scores import items_of
from robustdistiller.eval.results.migration import HALF_PRECISION
from robustdistiller.eval.results.record import RecordError
from tests.records import example_record

OLD = Path(__file__).parent / "old"  # each written by the release of its schema
QUICKSTART = OLD / "quickstart"  # schema 5, with results of single items
ALWAYS_UNKNOWN = {"head_digest", "rules_digest", "settings", "upstream_code", "audio_digest", "sources"}


@pytest.mark.parametrize(
    ("schema", "unknown"),
    [
        (1, {"feature_cache", "non_standard", "scoring", "fold"}),
        (2, {"feature_cache", "non_standard", "scoring", "fold"}),
        (3, {"non_standard", "scoring", "fold"}),
        (4, {"scoring", "fold"}),
    ],
)
def test_each_schema_is_read_and_names_what_it_did_not_know(schema, unknown):
    record = read_record(OLD / f"schema{schema}.json")
    assert set(record.unknown) == unknown | ALWAYS_UNKNOWN and record.schema_version == 6
    assert record.head_digest == record.rules_digest == record.audio_digest == record.quick == ""
    assert len(record.settings["config_digest"]) == 64, "by which their heads were told apart"
    assert record.main_metric.name == "accuracy" and record.main_metric.value >= 0 and record.status == "ok"
    assert (record.non_standard is None) is (schema < 4)


def test_the_records_of_the_quickstart_are_read_with_their_items():
    records = read_records(QUICKSTART)
    assert len(records) == 10 and {record.schema_version for record in records} == {6}
    clean = [record for record in records if record.condition == "clean"]
    assert all(set(record.unknown) == ALWAYS_UNKNOWN - {"sources"} for record in clean)
    frame = read_frame([QUICKSTART])
    assert len(frame) == 10 and frame.system.nunique() == 2 and frame.rules.nunique() == 1
    assert frame.condition_id.nunique() == 5 and not frame.superseded.any()
    for line in frame.itertuples():
        assert items_of(line.path).metrics["accuracy"].value == pytest.approx(line.value)


def test_an_old_record_that_is_written_again_is_read_again(tmp_path):
    for path in OLD.glob("*.json"):
        record = read_record(path)
        assert read_record(write_record(tmp_path, record)) == record


def test_half_precision_features_of_old_records_are_a_deviation():
    assert read_record(OLD / "schema4.json").non_standard[-1] == HALF_PRECISION


def test_an_old_number_is_comparable_with_a_new_one_that_says_the_same(tmp_path):
    """Their digests are of other things; what both say about rules and draws decides."""
    (path, *_) = (QUICKSTART / "fbank").rglob("noise~snr_db=10@*/*.json")
    old = read_record(path)
    told = {name: getattr(old, name) for name in ("condition", "corruption_seed", "manifest_digest", "non_standard")}
    items = {"items_scored": old.items_scored, "items_expected": old.items_expected}
    sources = {"noise": {"name": "elsewhere", "digest": "77" * 32}}
    new = example_record(upstream="mel", sources=sources, **told, **items)
    assert differences(old, new) == [] and cell_id(old).rules != cell_id(new).rules
    assert differences(old, example_record(sources=sources, **{**told, "manifest_digest": "11" * 32}, **items)) == [
        "the audio under noise:snr_db=10"
    ]
    assert differences(old, example_record(sources=sources, **{**told, "non_standard": []}, **items)) == [
        f"the rules: of one only, {phrase}" for phrase in old.non_standard
    ]
    shutil.copytree(QUICKSTART / "fbank", tmp_path / "old")
    write_record(tmp_path, new)
    frame = read_frame([tmp_path])
    both = frame[frame.condition == "noise:snr_db=10"]
    assert len(both) == 2 and both.rules.nunique() == 1 and both.condition_id.nunique() == 1


def test_what_the_rules_were_of_the_oldest_records_nobody_knows():
    old = read_record(OLD / "schema2.json")
    assert differences(old, dataclasses.replace(old, seed=8)) == [], "the same settings altogether"
    assert differences(old, read_record(OLD / "schema3.json")) == ["the settings that the task's rules fix"], "fp16"
    same = {name: getattr(old, name) for name in ("task", "condition", "manifest_digest", "sources", "corruption_seed")}
    new = example_record(**same, items_expected=8, items_scored=8)
    assert differences(old, new) == ["the settings that the task's rules fix"]


def test_a_failure_before_loading_forgets_what_it_did_not_know():
    data = json.loads((OLD / "schema4.json").read_text())
    data.pop("digest")
    failed = {"status": "failed", "reason": "no head", "items_scored": 0, "parameters": 0, "checkpoint_digest": "none"}
    record = type(example_record()).from_dict({**data, **failed})
    assert record.parameters is None and record.checkpoint_digest == ""


@pytest.mark.parametrize("version", [0, 7, "6", None])
def test_other_schemas_are_refused(version):
    with pytest.raises(RecordError, match="this release reads 1 to 6"):
        type(example_record()).from_dict({**example_record().to_dict(), "schema_version": version})
