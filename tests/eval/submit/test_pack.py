"""SUPERB's archive: what goes in, under which names, and that nothing is written whose numbers are not the records'."""

from __future__ import annotations

import dataclasses
import json
import shutil
import zipfile
from argparse import Namespace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval.results.files import write_record
from robustdistiller.eval.results.record import Metric
from robustdistiller.eval.run.head_checkpoint import head_digest
from robustdistiller.eval.submit import SubmissionError, choose, find_experiments, pack
from robustdistiller.eval.submit.rescoring import rescore
from robustdistiller.eval.tasks.scoring.diarization import Turn, score_diarization
from tests.records import example_record

pytestmark = pytest.mark.usefixtures("bridge")


def record(task: str, value: float, items: int, metric: str = "accuracy", **changes):
    higher = metric not in ("wer", "per", "eer", "der")
    return example_record(
        task=task, metrics=[Metric(metric, value, higher, "%")], items_expected=items, items_scored=items, **changes
    )


def classification(folder: Path, task: str, stem: str = "test", suffix: str = "txt", wrong: int = 1, **changes) -> Path:
    """An experiment with ten predictions, some of them wrong, and its record."""
    between = "," if suffix == "csv" else " "
    values = ["turn,lamp,none" if suffix == "csv" else "yes"] * 10
    said = [("off,lamp,none" if suffix == "csv" else "no") if i < wrong else v for i, v in enumerate(values)]
    folder.mkdir(parents=True, exist_ok=True)
    for kind, answers in (("predict", said), ("truth", values)):
        lines = [f"a/utt-{i}.wav{between}{answer}\n" for i, answer in enumerate(answers)]
        (folder / f"{stem}_{kind}.{suffix}").write_text("".join(lines))
    write_record(folder / "records", record(task, 100.0 - 10 * wrong, 10, **changes))
    return folder


def transcription(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "test-clean-noLM-hyp.ark").write_text("1-1-0000 A CAT\n1-1-0001 \n")
    (folder / "test-clean-noLM-ref.ark").write_text("1-1-0000 THE CAT\n1-1-0001 A MAT\n")
    write_record(folder / "records", record("ASR", 75.0, 2, "wer", split="test-clean"))
    return folder


def diarization(folder: Path, shift: int = 320) -> Path:
    """Two recordings of 4 s, of which the second speaker begins 0.4 s late."""
    kaldi = folder / "data"
    (folder / "scoring" / "predictions").mkdir(parents=True)
    kaldi.mkdir()
    posteriors, turns, lines = {}, {}, []
    for name in ("rec1", "rec2"):
        posteriors[name] = np.zeros((64000 // shift, 2))
        posteriors[name][:100, 0] = posteriors[name][120:, 1] = 0.9
        turns[name] = [Turn("A", 0.0, 2.0), Turn("B", 2.0, 4.0)]
        lines += [f"SPEAKER {name} 1 {t.onset_s} 2.0 <NA> <NA> {t.speaker} <NA>\n" for t in turns[name]]
        with h5py.File(folder / "scoring" / "predictions" / f"{name}.h5", "w") as file:
            file["T_hat"] = posteriors[name]
    (kaldi / "rttm").write_text("".join(lines))
    (folder / "frame_shift").write_text(f"{shift}\n")
    config = {"downstream_expert": {"loaderrc": {"test_dir": str(kaldi)}}}
    (folder / "config_2025.yaml").write_text(yaml.safe_dump(config))
    found = score_diarization(posteriors, turns, shift)
    write_record(
        folder / "records", record("SD", found.total.rate, 2, "der", scoring={"frame_shift": shift, "rates": {}})
    )
    return folder


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as stream:
        return stream.namelist()


def run(*arguments):
    return CliRunner().invoke(app, ["submit-pack", *map(str, arguments)], env={"COLUMNS": "200"})


def test_an_archive_of_four_tasks_from_the_command_line(tmp_path):
    folders = [
        classification(tmp_path / "ks", "KS"),
        classification(tmp_path / "ic", "IC", suffix="csv", wrong=3),
        transcription(tmp_path / "asr"),
        diarization(tmp_path / "sd"),
    ]
    result = run(*folders, "--out", tmp_path / "out" / "predict.zip")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out" / "predict.zip") == [
        "predict/ks_public/predict.txt",
        "predict/ic_public/predict.csv",
        "predict/asr_public/predict.ark",
        "predict/sd_public/scoring/predictions/rec1.h5",
        "predict/sd_public/scoring/predictions/rec2.h5",
        "predict/sd_public/frame_shift",
    ]
    report = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert {place: one["metrics"] for place, one in report["tasks"].items()} == {
        "ks_public": {"accuracy": pytest.approx(90.0)},
        "ic_public": {"accuracy": pytest.approx(70.0)},
        "asr_public": {"wer": pytest.approx(75.0)},
        "sd_public": {"der": pytest.approx(10.0)},
    }
    assert report["left_out"]["PR"] == "no finished experiment was given" and "SD" not in report["left_out"]
    for words in ("ic_public", "accuracy 70.00", "Every number is that of its record", "Left out: QbE: no finished"):
        assert words in result.output
    again = run(*folders, "--out", tmp_path / "again.zip")
    assert again.exit_code == 0
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "out" / "predict.zip").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda ks: (ks / "test_predict.txt").write_text((ks / "test_truth.txt").read_text()), "accuracy is 100 from"),
        (lambda ks: (ks / "test_predict.txt").write_text("a/utt-0.wav yes\n"), "names 1 different items and 10 were"),
        (
            lambda ks: (ks / "test_predict.txt").write_text("b/utt.wav yes\n" * 10),
            "has no answer for 'b/utt.wav', which predict.txt names",
        ),
        (lambda ks: (ks / "test_truth.txt").unlink(), "No such file or directory"),
    ],
)
def test_nothing_is_written_when_a_number_differs(tmp_path, spoil, message):
    ks, ic = classification(tmp_path / "ks", "KS"), classification(tmp_path / "ic", "IC", suffix="csv")
    spoil(ks)
    result = run(ks, ic, "--out", tmp_path / "predict.zip")
    assert result.exit_code == 1 and "the archive does not give the numbers of the records" in result.output
    assert "KS: " in result.output and message in result.output
    assert not list(tmp_path.glob("*predict*")), "neither archive, nor report, nor temporary file"


def test_the_frame_shift_of_diarization_is_packed(tmp_path):
    folder = diarization(tmp_path / "sd")
    (folder / "frame_shift").unlink()  # the record knows it, too
    pack(choose(find_experiments(folder)), tmp_path / "predict.zip")
    with zipfile.ZipFile(tmp_path / "predict.zip") as stream:
        assert stream.read("predict/sd_public/frame_shift") == b"320\n"
        stream.extractall(tmp_path / "there")
    (experiment,) = find_experiments(folder)
    place = tmp_path / "there" / "predict" / "sd_public"
    assert rescore(place, experiment) == {"der": pytest.approx(10.0)}
    (place / "frame_shift").unlink()
    assert rescore(place, experiment)["der"] > 50, "without it the website takes 160 samples a frame"


def test_answers_that_moved_are_asked_for(tmp_path):
    folder = diarization(tmp_path / "sd")
    (folder / "data").rename(tmp_path / "elsewhere")
    result = run(folder, "--out", tmp_path / "predict.zip")
    assert result.exit_code == 1 and "the test folder with rttm is needed to score SD again" in result.output
    assert "give --truth SD=PATH" in result.output
    truth = f"SD={tmp_path / 'elsewhere' / 'rttm'}"
    assert run(folder, "--truth", truth, "--out", tmp_path / "predict.zip").exit_code == 0
    result = run(folder, "--truth", "KS=nowhere")
    assert result.exit_code == 2 and "expected ASV=, SD= or QbE= and a path that is there" in result.output


def test_odd_lines_of_trials_and_frame_shifts_are_named(tmp_path):
    asv, trials = tmp_path / "asv", tmp_path / "trials.txt"
    asv.mkdir()
    (asv / "test_predict.txt").write_text("id1-v-1_id1-v-2 0.9\nid1-v-1_id2-v-1 0.1\n")
    write_record(asv / "records", record("ASV", 0.0, 2, "eer"))
    trials.write_text("1 id1/v/1.wav id1/v/2.wav\n\n0 id1/v/1.wav id2/v/1.wav\n")
    assert run(asv, "--truth", f"ASV={trials}", "--out", tmp_path / "predict.zip").exit_code == 0
    for line in ("3 id1/v/1.wav", "2 id1/v/1.wav id1/v/2.wav"):  # as in the list of identification
        trials.write_text(f"{line}\n")
        result = run(asv, "--truth", f"ASV={trials}", "--out", tmp_path / "other.zip")
        assert (
            result.exit_code == 1 and f"trials.txt, line 1: expected '1|0 PATH PATH', found '{line}'" in result.output
        )
    sd = diarization(tmp_path / "sd")
    (sd / "frame_shift").write_text("20 ms\n")
    result = run(sd, "--out", tmp_path / "other.zip")
    assert result.exit_code == 1 and "frame_shift must hold a number of samples, found '20 ms'" in result.output


def test_folds_are_packed_one_by_one(tmp_path):
    for fold, wrong in (("fold1", 1), ("fold3", 4)):
        classification(tmp_path / fold, "ER", f"test_{fold}", wrong=wrong, fold=fold)
    result = run(tmp_path / "fold1", tmp_path / "fold3", "--out", tmp_path / "predict.zip")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "predict.zip") == [
        "predict/er_fold1_public/predict.txt",
        "predict/er_fold3_public/predict.txt",
    ]
    assert "ER has fold1, fold3 only; the website shows a score once all five folds are there" in result.output


def test_experiments_of_a_sweep(tmp_path):
    """Records stand apart from heads; they are of the head whose weights they name."""
    digests = {}
    for rate, wrong in (("0.1", 2), ("0.001", 5)):
        folder = classification(tmp_path / "heads" / "up" / "KS-1" / f"lr-{rate}", "KS", wrong=wrong)
        classification(folder / "conditions" / "reverb", "KS", wrong=9)
        states = {"Downstream": {"w": torch.tensor([float(rate)])}, "Step": 2, "Config": {}, "Args": Namespace()}
        torch.save(states, folder / "dev-best.ckpt")
        digests[rate] = head_digest(states)
    for path in list((tmp_path / "heads").rglob("records")):
        shutil.rmtree(path)
    for condition, value in (("clean", 80.0), ("reverb", 12.0)):
        own = {"condition": condition, "learning_rate": 0.1, "head_digest": digests["0.1"]}
        write_record(tmp_path / "records", record("KS", value, 10, **own))
    (experiment,) = find_experiments(tmp_path)
    assert experiment.folder.name == "lr-0.1"
    assert pack([experiment], tmp_path / "p.zip").tasks["ks_public"]["metrics"] == {"accuracy": pytest.approx(80.0)}


def test_one_system_one_head(tmp_path):
    ks = classification(tmp_path / "ks", "KS", label="mine")
    ic = classification(tmp_path / "ic", "IC", suffix="csv", label="other", checkpoint_digest="ab" * 32)
    result = run(ks, ic, "--out", tmp_path / "predict.zip")
    assert result.exit_code == 2 and "these are of 2: mine (fbank none); other (fbank abababab)" in result.output
    assert run(ks, ic, "--label", "mine", "--out", tmp_path / "predict.zip").exit_code == 0
    assert names(tmp_path / "predict.zip") == ["predict/ks_public/predict.txt"]
    result = run(ks, "--label", "yours")
    assert result.exit_code == 2 and "there are mine with seeds 1337" in result.output
    with pytest.raises(SubmissionError, match=r"seeds 1, 2; say which \(--seed\)"):
        (one,) = find_experiments(ks)
        choose([dataclasses.replace(one, record=dataclasses.replace(one.record, seed=seed)) for seed in (1, 2)])


def test_what_is_left_out_is_said(tmp_path):
    ks = classification(tmp_path / "ks", "KS", non_standard=["runner.total_steps is 10, not 200000"])
    ic = classification(tmp_path / "ic", "IC", suffix="csv")
    (ic / "test_predict.csv").unlink()
    st = tmp_path / "st"
    write_record(st / "records", record("ST", 20.0, 10, "bleu"))
    sd = tmp_path / "sd"
    without = Metric("der", None, False, "%", "there is no reference")
    write_record(sd / "records", dataclasses.replace(record("SD", 1.0, 2, "der"), metrics=[without]))
    result = run(ks, ic, st, sd, "--out", tmp_path / "predict.zip")
    assert result.exit_code == 0, result.output
    for words in (
        f"Left out: IC: {ic / 'test_predict.csv'} is not there; evaluate it again on clean speech",
        "Left out: ST: s3prl leaves translations to fairseq",
        "Left out: SD: its record has no der: there is no reference",
        "Note: KS is not a standard run: runner.total_steps is 10, not 200000",
    ):
        assert words in result.output
    own = tmp_path / "words"
    write_record(own / "records", record("my_words", 50.0, 10))
    result = run(own, ks, "--out", tmp_path / "predict.zip")
    assert result.exit_code == 0 and "Left out: my_words: SUPERB's archive has no place for it" in result.output
    result = run(ic, "--out", tmp_path / "other.zip")
    assert result.exit_code == 2 and "nothing can be packed (IC: " in result.output
    assert run(tmp_path / "nowhere").exit_code == 2
    assert "expected a file that ends in .zip" in run(ks, "--out", "predict.tar").output
