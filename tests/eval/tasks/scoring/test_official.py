"""Real evaluations with s3prl: the benchmark's number in the record, or the reason why there is none."""

from __future__ import annotations

import shutil

import pytest

from robustdistiller.eval.results.files import read_record_files
from robustdistiller.eval.results.item_scores import read_outcomes
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.tasks.scoring.diarization import read_posteriors, read_reference, score_diarization
from robustdistiller.upstream.s3prl.bridge import sox_path

pytestmark = pytest.mark.usefixtures("bridge")
STEPS = {f"config.runner.{key}": 1 for key in ("total_steps", "eval_step", "save_step", "log_step")}


def train(code, toy_corpora, folder, data):
    settings = {**toy_corpora.build(code, data), **STEPS}
    new = ["-u", "fbank", "-d", code, "-p", str(folder), "-o", toy_corpora.as_option(settings)]
    assert main(["-m", "train", *new]) == 0


def evaluate(folder, *options):
    assert main(["-m", "evaluate", "-e", str(folder), "--overwrite", "always", *options]) == 0
    return read_record_files(folder / "records")


def test_diarization_is_scored_from_its_predictions(toy_corpora, tmp_path):
    folder, data = tmp_path / "exp", tmp_path / "data"
    train("SD", toy_corpora, folder, data)
    ((path, record),) = evaluate(folder).items()
    shift = int((folder / "frame_shift").read_text())
    reference, _ = read_reference(data / "test")
    expected = score_diarization(read_posteriors(folder / "scoring" / "predictions", reference), reference, shift)
    assert record.main_metric.name == "der" and record.main_metric.value == pytest.approx(expected.total.rate)
    assert record.scoring["frame_shift"] == shift == 160 and record.scoring["collar_s"] == 0
    assert record.value("frame_der") is not None
    items = read_outcomes(path, record)
    assert set(items.metrics) == {"der", "frame_der", "frame_accuracy"} and items.ids == ("test0", "test1")
    assert items.metrics["der"].denominator.tolist() == pytest.approx([2.4, 2.4]), "speaker time in seconds"

    (data / "test" / "rttm").unlink()  # the same turns stand in segments
    ((_, same),) = evaluate(folder).items()
    assert same.main_metric.value == pytest.approx(record.main_metric.value) and same.scoring["reference"] == "segments"
    text = (data / "test" / "segments").read_text()
    (data / "test" / "rttm").write_text("SPEAKER elsewhere 1 0.0 1.0 <NA> <NA> A <NA>\n")
    ((_, none),) = evaluate(folder).items()
    assert none.main_metric.value is None and "1 recordings that were not evaluated" in none.main_metric.reason
    assert none.value("frame_der") == record.value("frame_der") and none.status == "ok"
    assert (data / "test" / "segments").read_text() == text


def test_a_quick_look_at_diarization_is_scored_by_what_it_looks_at(toy_corpora, tmp_path):
    folder, data = tmp_path / "exp", tmp_path / "data"
    train("SD", toy_corpora, folder, data)
    ((_, record),) = evaluate(folder, "--quick").items()
    assert record.items_scored == 1 and record.quick and record.main_metric.value is not None


@pytest.mark.skipif(sox_path() is None, reason="sox is not installed: s3prl resamples with it")
def test_query_by_example_without_ground_truth_says_so(toy_corpora, tmp_path):
    folder, data = tmp_path / "exp", tmp_path / "data"
    settings = toy_corpora.build("QbE", data)
    shutil.rmtree(data / "scoring" / "groundtruth_quesst14_eval")
    new = ["-u", "fbank", "-d", "QbE", "-p", str(folder), "-o", toy_corpora.as_option(settings)]
    assert main(["-m", "evaluate", *new]) == 0
    (record,) = read_record_files(folder / "records").values()
    assert record.status == "ok" and record.main_metric.value is None and record.scoring is None
    assert "there is no ground truth at" in record.main_metric.reason
    assert main(["-m", "evaluate", *new, "-t", "dev"]) == 0
    found = {record.split: record for record in read_record_files(folder / "records").values()}
    assert found["dev"].main_metric.value is not None, "dev has its own ground truth"


def test_both_test_sets_of_librispeech(toy_corpora, tmp_path):
    folder = tmp_path / "exp"
    train("ASR", toy_corpora, folder, tmp_path / "data")
    evaluate(folder)
    found = {record.split: record for record in evaluate(folder, "-t", "test-other").values()}
    assert {split: record.items_scored for split, record in found.items()} == {"test-clean": 2, "test-other": 3}
    assert all(record.main_metric.name == "wer" for record in found.values())
