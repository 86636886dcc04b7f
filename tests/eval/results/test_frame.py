"""The frame of all records: one row a metric, no mixture stops it, labels and sizes are of the system."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustdistiller.eval.results.files import record_path, write_record
from robustdistiller.eval.results.frame import mean_over_folds, read_frame
from robustdistiller.eval.results.item_scores import ItemScores, Outcomes, items_of, write_outcomes
from robustdistiller.eval.results.record import Metric, RecordError
from tests.records import example_record

ROOT = Path(__file__).parents[3]
SIZES = {"fold1": 1085, "fold2": 1023, "fold3": 1151, "fold4": 1031, "fold5": 1241}
NOISE = "noise:snr_db=5"


def write(root, when=0, **changes):
    return write_record(root, example_record(start_utc=f"2025-01-01T00:00:{when:02d}+00:00", **changes))


def write_folds(root, **changes):
    """Answers to a test set as large as the benchmark's; returns the accuracy of each fold."""
    accuracies = {}
    for number, (fold, size) in enumerate(SIZES.items()):
        right = (np.random.default_rng(number).random(size) < 0.6 + 0.02 * number).astype(int)
        items = Outcomes.sort([f"{fold}/{i}" for i in range(size)], {"accuracy": ItemScores(right, np.ones(size, int))})
        accuracies[fold] = items.metrics["accuracy"].value
        metrics = [Metric("accuracy", accuracies[fold], True, "%")]
        one = example_record(
            task="ER", fold=fold, metrics=metrics, items_expected=size, items_scored=size, learning_rate=1e-4, **changes
        )
        pointer = write_outcomes(record_path(root, one).with_suffix(".npz"), items)
        write_record(root, dataclasses.replace(one, outcomes=pointer))
    return accuracies


def test_one_row_for_each_metric_with_its_value_and_direction(tmp_path):
    metrics = [Metric("wer", 12.5, False, "%"), Metric("cer", None, False, "%", "not logged")]
    write(tmp_path, task="ASR", metrics=metrics, parameters=23, quick="10 % of items", step=7, non_standard=["x is 1"])
    frame = read_frame([tmp_path])
    assert frame.metric.tolist() == ["wer", "cer"] and frame.main.tolist() == [True, False]
    assert frame.value[0] == 12.5 and np.isnan(frame.value[1]) and frame.reason[1] == "not logged"
    one = next(frame.itertuples())
    assert (one.parameters, one.items, one.seed, one.step, one.quick) == (23, 4, 1337, 7, "10 % of items")
    assert one.non_standard == ("x is 1",) and one.higher_is_better is False and one.superseded is False


def test_whatever_lies_there_gives_rows_and_no_error(tmp_path):
    """Other seeds, items, metrics, rules, draws, tasks nobody knows, failures, broken files."""
    write(tmp_path)
    write(tmp_path, seed=2)
    write(tmp_path, rules_digest="01" * 32, non_standard=["runner.total_steps is 4, not 200000"])
    write(tmp_path, items_expected=3793, items_scored=3793, seed=3)
    write(tmp_path, condition=NOISE, manifest_digest="01" * 32)
    write(tmp_path, condition=NOISE, manifest_digest="02" * 32, upstream="mel")
    write(tmp_path, task="BIRDS", metrics=[Metric("map", 0.5, True)])
    write(tmp_path, task="BIRDS", seed=4, status="failed", reason="died", metrics=[], items_scored=0)
    write(tmp_path, task="ASR", status="failed", reason="died", metrics=[], items_scored=0, head_digest="none")
    write(tmp_path, task="KS").write_text("{half")
    empty = write(tmp_path, task="SID")
    empty.write_bytes(b"\xff\xfe")
    frame = read_frame([tmp_path])
    assert len(frame) == 11
    bad = frame[frame.status == "unreadable"]
    assert len(bad) == 2 and all("is not a valid record" in why for why in bad.reason) and str(empty) in set(bad.path)
    failed = frame[frame.status == "failed"]
    assert failed.metric.tolist() == ["wer", ""] and failed.value.isna().all() and set(failed.reason) == {"died"}
    assert [bool(frame.official[(frame.task == "IC") & (frame["items"] == n)].all()) for n in (4, 3793)] == [
        False,
        True,
    ]
    assert mean_over_folds(frame).equals(frame)
    with pytest.raises(FileNotFoundError, match="no folder of records"):
        read_frame([tmp_path / "nowhere"])


def test_no_records_give_an_empty_frame_with_all_columns(tmp_path):
    frame = read_frame([tmp_path])
    assert len(frame) == 0 and {"value", "label", "superseded"} <= set(frame) and len(mean_over_folds(frame)) == 0


def test_a_label_is_the_systems_and_not_the_records(tmp_path):
    """A system that was renamed between two runs stays one system; a file gives it another name still."""
    write(tmp_path, when=1, label="old name")
    write(tmp_path, when=2, label="new name", condition=NOISE)
    write(tmp_path, when=3, label="mel", upstream="mel")
    frame = read_frame([tmp_path])
    assert set(zip(frame.upstream, frame.label)) == {("fbank", "new name"), ("mel", "mel")}
    digest = frame.system[frame.label == "mel"].iloc[0]
    (tmp_path / "labels.yaml").write_text(f"new name: my system\n{digest}: filters\n")
    assert set(read_frame([tmp_path]).label) == {"my system", "filters"}
    (tmp_path / "labels.yaml").write_text(f"mel: any\n{digest}: filters\n")
    assert set(read_frame([tmp_path]).label) == {"new name", "filters"}, "a digest says more than a label"
    (tmp_path / "labels.yaml").write_text("- a list")
    with pytest.raises(RecordError, match=r"labels.yaml must give names for names \(old: new\), found list"):
        read_frame([tmp_path])
    (tmp_path / "labels.yaml").write_text("a: [b\n")
    with pytest.raises(RecordError, match=r"labels.yaml is not YAML: while parsing a flow sequence"):
        read_frame([tmp_path])


def test_a_number_counts_before_a_newer_run_without_one(tmp_path):
    number, none = Metric("mtwv", 0.05, True), Metric("mtwv", None, True, "", "there is no ground truth")
    for day, (folder, metric) in enumerate((("first", number), ("second", none)), 1):
        start = f"2026-01-0{day}T00:00:00+00:00"
        record = example_record(task="QbE", downstream="quesst14_dtw", metrics=[metric], start_utc=start)
        write_record(tmp_path / folder, record)
    frame = read_frame([tmp_path / "first", tmp_path / "second"])
    assert frame.superseded[frame.value.notna()].tolist() == [False] and frame.superseded.sum() == 1


@pytest.mark.parametrize("known", ["", "ab" * 32])
def test_a_run_that_failed_before_loading_is_of_its_system_and_hides_no_size(tmp_path, known):
    """It may know the digest of a checkpoint's file, but neither the upstream's code nor its size."""
    system = {"upstream": "mine", "checkpoint": "mine.ckpt", "checkpoint_digest_of": "file"}
    failed = {"status": "failed", "reason": "out of memory", "metrics": [], "items_scored": 0, "head_digest": "none"}
    loaded = {"parameters": 23_590_000, "upstream_code": "ef" * 32}
    write(tmp_path, when=9, **system, **failed, task="ASR", checkpoint_digest=known, parameters=None)
    write(tmp_path, when=1, **system, **loaded, checkpoint_digest="ab" * 32)
    frame = read_frame([tmp_path])
    assert frame.system.nunique() == 1 and set(frame.parameters) == {23_590_000} and set(frame.weights) == {"ab" * 32}
    write(tmp_path, when=2, **system, **loaded, checkpoint_digest="cd" * 32)
    assert read_frame([tmp_path]).system.nunique() == (2 if known else 3), "of two candidates none is guessed"


def test_of_several_heads_the_newest_counts_and_a_failure_hides_no_number(tmp_path):
    write(tmp_path, when=1, head_digest="01" * 32)
    write(tmp_path, when=2, head_digest="02" * 32)
    write(tmp_path, when=3, head_digest="03" * 32, status="failed", reason="disk full")
    write(tmp_path, when=4, head_digest="04" * 32, rules_digest="ff" * 32)
    frame = read_frame([tmp_path]).set_index("head")
    counted = frame.index[~frame.superseded]
    assert sorted(counted) == ["02" * 6, "04" * 6], "another set of rules is another number"


def test_one_record_in_two_folders_counts_once_and_copies_are_no_second_run(tmp_path):
    write(tmp_path / "a" / "records")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    frame = read_frame([tmp_path / "a", tmp_path / "b"])
    assert len(frame) == 1 and not frame.superseded.any()


def test_the_mean_over_folds_is_there_when_all_folds_are(tmp_path):
    accuracies = write_folds(tmp_path)
    frame = mean_over_folds(read_frame([tmp_path]))
    (mean,) = frame[frame.fold == "mean"].itertuples()
    expected = sum(accuracies.values()) / 5
    assert mean.value == pytest.approx(expected, abs=1e-9) and mean.items == 5531 and mean.official is True
    pooled = sum(SIZES[f] * a for f, a in accuracies.items()) / sum(SIZES.values())
    assert abs(pooled - expected) > 0.05, "folds count the same, whatever their size"
    assert mean.non_standard == () and mean.learning_rate == 1e-4 and not mean.superseded
    items = items_of(mean.path)
    assert items.metrics["accuracy"].value == pytest.approx(expected, abs=1e-9) and len(items.ids) == 5531
    assert frame[frame.fold != "mean"].official.isna().all(), "a fold is no test set"
    for path in tmp_path.rglob("test-fold3-*.json"):
        path.unlink()
    assert "mean" not in set(mean_over_folds(read_frame([tmp_path])).fold)


def test_each_seed_and_rule_has_a_mean_of_its_own_and_superseded_folds_none(tmp_path):
    write_folds(tmp_path, seed=1)
    write_folds(tmp_path, seed=2)
    write_folds(tmp_path, seed=2, head_digest="77" * 32, start_utc="2026-01-01T00:00:00+00:00")
    write_folds(tmp_path, seed=2, rules_digest="88" * 32, non_standard=["runner.total_steps is 4, not 30000"])
    frame = mean_over_folds(read_frame([tmp_path]))
    means = frame[frame.fold == "mean"]
    assert sorted(zip(means.seed, means.rules)) == [(1, "cd" * 6), (2, "88" * 6), (2, "cd" * 6)]
    assert [len(path) for path in means.path] == [5, 5, 5]


def test_a_small_test_set_is_said_of_all_folds_together(tmp_path):
    for fold in SIZES:
        write(tmp_path, task="ER", fold=fold, condition=NOISE, manifest_digest=("a" + fold[-1]) * 32)
    (mean,) = mean_over_folds(read_frame([tmp_path])).query("fold == 'mean'").itertuples()
    assert mean.non_standard == ("the test set has 20 items, not 5531",) and mean.official is False
    assert mean.draws not in ("none", "a1" * 32)


@pytest.mark.parametrize("module", ["frame", "item_scores", "identity", "files"])
def test_results_are_read_without_pytorch_s3prl_or_audio_libraries(module):
    code = (
        f"import sys, robustdistiller.eval.results.{module}\n"
        "print(*sorted({'torch', 's3prl', 'torchaudio', 'librosa', 'scipy', 'soundfile'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
