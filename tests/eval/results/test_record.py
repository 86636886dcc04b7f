"""Records: what is written comes back, what is wrong is refused, what is finished is reused."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from robustdistiller.eval.results.files import (
    Decision,
    decide,
    look_up,
    read_record,
    read_records,
    record_path,
    slug,
    write_record,
)
from robustdistiller.eval.results.record import Metric, Record, RecordError, example_record


def test_round_trip_keeps_every_field(tmp_path):
    record = example_record(
        label="robust student",
        checkpoint_digest="0123456789abcdef" * 4,
        checkpoint_digest_of="file",
        condition="noise:snr_db=5",
        condition_parameters={"kind": "noise", "snr_db": 5.0},
        sources={"noise": {"name": "musan", "digest": "ff" * 32}},
        manifest_digest="cd" * 32,
        git={"commit": "abc", "dirty": False},
        layer_weights=[0.25, 0.75],
        macs=1,
        step=7,
    )
    path = write_record(tmp_path, record)
    assert read_record(path) == record
    assert read_records(tmp_path) == [record]
    assert path.parts[-5:-2] == ("fbank", "0123456789ab", "IC")
    # Every field is in the file, so that a reader needs nothing else.
    assert set(json.loads(path.read_text())) == {field.name for field in dataclasses.fields(Record)} | {"digest"}


def test_a_record_of_the_first_schema_is_read(tmp_path):
    path = write_record(tmp_path, example_record())
    old = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("digest", "outcomes")}
    path.write_text(json.dumps({**old, "schema_version": 1}))
    assert read_record(path) == example_record()


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


def test_each_difference_between_cells_has_a_file_of_its_own(tmp_path):
    cells = [
        example_record(),
        example_record(seed=1),
        example_record(split="dev"),
        example_record(condition="reverb"),
        example_record(condition="reverb", corruption_seed=1),
        example_record(condition="reverb", sources={"rir": {"name": "a", "digest": "0" * 64}}),
        example_record(condition="reverb", sources={"rir": {"name": "a", "digest": "1" * 64}}),
        example_record(config_digest="cd" * 32),
        example_record(upstream_options="no_pred: true"),
        example_record(upstream="other"),
        example_record(checkpoint_digest="12" * 32),
        example_record(task="KS"),
    ]
    paths = {write_record(tmp_path, cell) for cell in cells}
    assert len(paths) == len({cell.key() for cell in cells}) == len(cells)


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
    ("changes", "message"),
    [
        ({"items_scored": 3}, "3 of 4 items scored cannot have status 'ok'"),
        ({"status": "partial"}, "needs a reason"),
        ({"status": "good"}, "status must be one of ok, partial, failed, found 'good'"),
        ({"checkpoint_digest": "abc"}, "64 hexadecimal digits or 'none', found 'abc'"),
        ({"config_digest": ""}, "config_digest must be 64 hexadecimal digits"),
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


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(metrcis=[]), "unknown key 'metrcis'; did you mean 'metrics'"),
        (lambda d: d.pop("seed"), "seed is missing"),
        (lambda d: d.update(schema_version=6), "schema_version is 6, this release reads 1 to 5"),
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


def test_truncated_file_and_missing_folder(tmp_path):
    path = write_record(tmp_path, example_record())
    path.write_text(path.read_text()[:40])
    with pytest.raises(RecordError, match="not a valid record"):
        read_records(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder of records"):
        read_records(tmp_path / "nowhere")


def reuse(root, policy="only-missing", **changes):
    return decide(look_up(root, example_record(**changes)), policy)


def test_an_impossible_score_comes_back_so_it_was_reused(tmp_path):
    write_record(tmp_path, example_record(metrics=[Metric("accuracy", 999.0, True, "%")]))
    for policy in ("only-missing", "never", "only-cache"):
        assert reuse(tmp_path, policy).reused.main_metric.value == 999.0 and not reuse(tmp_path, policy).run
    assert reuse(tmp_path, "always").run and reuse(tmp_path, "always").reused is None
    with pytest.raises(ValueError, match="expected one of only-missing, always, never, only-cache"):
        reuse(tmp_path, "sometimes")


def test_unfinished_broken_and_foreign_records_are_not_reused(tmp_path):
    assert reuse(tmp_path).run and reuse(tmp_path, "never").run and not reuse(tmp_path, "only-cache").run
    path = write_record(tmp_path, example_record(status="partial", reason="stopped", items_scored=2))
    assert reuse(tmp_path) == Decision(True, None, "runs: its record is partial, stopped")
    assert not reuse(tmp_path, "never").run and "nothing twice" in reuse(tmp_path, "never").why
    path.write_text("{")
    assert reuse(tmp_path).run and "cannot be read" in reuse(tmp_path).why and str(path) in reuse(tmp_path).why
    # A file in the right place whose content belongs to another head with the same first digits.
    write_record(tmp_path, example_record(config_digest="abababab" + "0" * 56))
    assert reuse(tmp_path).why == "runs: it has no record"


def test_slugs_differ_and_are_file_names():
    texts = [
        "clean",
        "noise:snr_db=5",
        "noise_snr_db=5",
        'noise:noise="a, b",snr_db=5',
        "a/b",
        "a_b",
        "a~b",
        "a:b",
        "..",
        ".",
        "x" * 200,
    ]
    slugs = [slug(text) for text in texts]
    assert len(set(slugs)) == len(texts)
    assert all("/" not in one and not one.startswith(".") and 0 < len(one) < 100 for one in slugs)


def test_paths_stay_below_the_root(tmp_path):
    record = example_record(upstream="../../etc", split="../x")
    assert record_path(tmp_path, record).resolve().is_relative_to(tmp_path)
