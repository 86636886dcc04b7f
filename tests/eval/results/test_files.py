"""Record files: what is written comes back, what is broken is named, what is finished is reused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib

import pytest

from robustdistiller.eval.results.files import (
    Decision,
    decide,
    look_up,
    read_record,
    read_records,
    record_files,
    record_path,
    write_record,
)
from robustdistiller.eval.results.frame import read_frame
from robustdistiller.eval.results.identity import cell_id
from robustdistiller.eval.results.record import Metric, Record, RecordError
from tests.records import example_record


def test_round_trip_keeps_every_field(tmp_path):
    record = example_record(
        label="robust student",
        checkpoint_digest="0123456789abcdef" * 4,
        checkpoint_digest_of="file",
        condition="noise:snr_db=5",
        condition_parameters={"kind": "noise", "snr_db": 5.0},
        sources={"noise": {"name": "musan", "digest": "ff" * 32}},
        manifest_digest="cd" * 32,
        audio_digest="ef" * 32,
        git={"commit": "abc", "dirty": False},
        layer_weights=[0.25, 0.75],
        settings={"optimizer.lr": 1e-3},
        quick="10 % of items",
        macs=1,
        step=7,
    )
    path = write_record(tmp_path, record)
    assert read_record(path) == record
    assert read_records(tmp_path) == [record]
    assert path.parts[-5:-2] == ("fbank", "0123456789ab", "IC")
    # Every field is in the file, so that a reader needs nothing else.
    assert set(json.loads(path.read_text())) == {field.name for field in dataclasses.fields(Record)} | {"digest"}


def test_a_broken_write_leaves_the_old_record(tmp_path, monkeypatch):
    path = write_record(tmp_path, example_record())
    before = path.read_text()

    def full_disk(self, *_, **__):
        with self.open("wb") as stream:
            stream.write(b'{"half')
        raise OSError("no space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_record(tmp_path, example_record(metrics=[Metric("accuracy", 1.0, True, "%")]))
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(metrcis=[]), "unknown key 'metrcis'; did you mean 'metrics'"),
        (lambda d: d.pop("seed"), "seed is missing"),
        (lambda d: d.update(schema_version=7), "schema_version is 7, this release reads 1 to 6"),
        (lambda d: d.update(schema_version=1), "unknown key 'digest'"),
        (lambda d: d["metrics"][0].update(value=75.1), "changed after it was written"),
        (lambda d: d.pop("digest"), "changed after it was written"),
        (lambda d: d["metrics"][0].update(valeu=1), r"unknown key 'metrics\[0\].valeu'; did you mean 'value'"),
        (lambda d: d.update(items_scored=2), "2 of 4 items"),
    ],
)
def test_edited_files_are_named_and_refused(tmp_path, edit, message):
    good, bad = write_record(tmp_path, example_record()), write_record(tmp_path, example_record(seed=2))
    data = json.loads(bad.read_text())
    edit(data)
    bad.write_text(json.dumps(data))
    with pytest.raises(RecordError, match=message) as error:
        read_records(tmp_path)
    assert str(bad) in str(error.value) and str(good) not in str(error.value)


def test_truncated_unreadable_and_missing(tmp_path):
    path = write_record(tmp_path, example_record())
    path.write_text(path.read_text()[:40])
    with pytest.raises(RecordError, match="not a valid record"):
        read_records(tmp_path)
    path.unlink()
    path.mkdir()  # a folder where a file should be stands for whatever the system refuses to read
    with pytest.raises(RecordError, match=f"{path} is not a valid record"):
        read_records(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder of records"):
        read_records(tmp_path / "nowhere")


def test_of_a_sweep_only_its_records_are_read(tmp_path):
    kept = write_record(tmp_path / "records", example_record())
    write_record(tmp_path / "superseded" / "20250101T000000", example_record(seed=2))
    assert record_files(tmp_path) == [kept]
    write_record(tmp_path / "records" / "superseded", example_record(seed=3))
    write_record(tmp_path / "records" / ".trash", example_record(seed=4))
    kept.with_name(f".{kept.name}").write_text("{half")
    assert record_files(tmp_path) == record_files(tmp_path / "records") == [kept]


def reuse(root, policy="reuse", **changes):
    return decide(look_up(root, example_record(**changes)), policy)


def test_an_impossible_score_comes_back_so_it_was_reused(tmp_path):
    write_record(tmp_path, example_record(metrics=[Metric("accuracy", 999.0, True, "%")]))
    for policy in ("reuse", "show", "only-missing", "never", "only-cache"):  # the last three of earlier releases
        assert reuse(tmp_path, policy).reused.main_metric.value == 999.0 and not reuse(tmp_path, policy).run
    for policy in ("rerun", "always"):
        assert reuse(tmp_path, policy).run and reuse(tmp_path, policy).reused is None
    with pytest.raises(ValueError, match="policy must be one of reuse, rerun, show, found 'resue'; did you mean"):
        reuse(tmp_path, "resue")


def test_a_failed_cell_is_run_again_unless_nothing_is(tmp_path):
    write_record(tmp_path, example_record(status="failed", reason="disk full"))
    assert reuse(tmp_path).why == "runs: its record is failed, disk full"
    assert not reuse(tmp_path, "show").run and reuse(tmp_path, "show").reused is None


def test_a_record_without_its_number_is_not_finished(tmp_path):
    task = {"task": "QbE", "downstream": "quesst14_dtw"}
    mtwv = Metric("mtwv", None, True, "", "there is no ground truth")
    write_record(tmp_path, example_record(**task, metrics=[mtwv]))
    why = "runs: its record is without its number, no mtwv: there is no ground truth"
    assert reuse(tmp_path, **task) == Decision(True, None, why)
    write_record(tmp_path, example_record(**task, metrics=[Metric("mtwv", 0.05534, True)]))
    assert "reused: mtwv 0.0553 of" in reuse(tmp_path, **task).why


def test_unfinished_broken_and_foreign_records_are_not_reused(tmp_path):
    assert reuse(tmp_path).run and not reuse(tmp_path, "show").run
    path = write_record(tmp_path, example_record(status="partial", reason="stopped", items_scored=2))
    assert reuse(tmp_path) == Decision(True, None, "runs: its record is partial, stopped")
    path.write_text("{")
    assert reuse(tmp_path).run and "cannot be read" in reuse(tmp_path).why and str(path) in reuse(tmp_path).why
    # A file in the right place whose content belongs to another cell.
    write_record(tmp_path, example_record(head_digest="12" * 32)).replace(path)
    assert reuse(tmp_path).why == "runs: it has no record"


def test_another_head_has_a_file_of_its_own_and_takes_no_number_away(tmp_path):
    first = write_record(tmp_path, example_record(head_digest="01" * 32, step=2000))
    second = write_record(tmp_path, example_record(head_digest="02" * 32, step=4000))
    assert first != second and [record.step for record in read_records(tmp_path)] in ([2000, 4000], [4000, 2000])
    assert reuse(tmp_path, head_digest="03" * 32).why == "runs: it has no record"


def test_paths_stay_below_the_root(tmp_path):
    record = example_record(upstream="../../etc", split="../x", condition="../y", task="..")
    assert record_path(tmp_path, record).resolve().is_relative_to(tmp_path)
    assert cell_id(read_record(write_record(tmp_path, record))) == cell_id(record)


#: What may stand where something else belongs.
WRONG = [
    None,
    True,
    -1,
    1e308,
    10**400,
    "",
    "x",
    [],
    ["a"],
    [1],
    [[]],
    {},
    {"a": 1},
    {"a": None},
    {"noise": {"name": 1}},
]


@pytest.mark.parametrize("schema", [2, 3, 4, 6])
def test_no_value_of_any_field_is_more_than_an_unreadable_record(schema, tmp_path):
    """With a right digest, so that it is the content that is judged."""
    old = pathlib.Path(__file__).parent / "old" / f"schema{schema}.json"
    data = json.loads(old.read_text()) if schema < 6 else example_record().to_dict()
    data.pop("digest", None)
    changed = [(key, value) for key in data for value in WRONG]
    for number, (key, value) in enumerate(changed):
        text = json.dumps({**data, key: value}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        (tmp_path / f"test-seed1-{number}.json").write_text(json.dumps({**data, key: value, "digest": digest}))
    frame = read_frame([tmp_path])
    assert set(frame.status) <= {"ok", "partial", "failed", "unreadable"} and len(frame) > len(data)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", '"x"', "{}", '{"schema_version": 6}', "\0", ""])
def test_no_file_is_more_than_an_unreadable_record(text, tmp_path):
    (tmp_path / "test-seed1-abababab.json").write_text(text)
    assert read_frame([tmp_path]).status.tolist() == ["unreadable"]
