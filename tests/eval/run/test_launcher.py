"""The launcher runs real s3prl: the same training, the same clean score, one record per condition."""

from __future__ import annotations

import builtins
import dataclasses
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from robustdistiller.eval import tasks
from robustdistiller.eval.conditions.manifest import Manifest
from robustdistiller.eval.results.files import read_records, write_record
from robustdistiller.eval.results.identity import cell_id
from robustdistiller.eval.run.head_checkpoint import read_checkpoint
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.launcher import main
from robustdistiller.eval.tasks.configs import load_config
from robustdistiller.upstream.s3prl.expert import UpstreamExpert

from .conftest import evaluate

pytestmark = pytest.mark.usefixtures("bridge")

STOCK = (
    "import sys; from robustdistiller.upstream.s3prl.entries import register; register(); "
    "from s3prl import run_downstream; run_downstream.main()"
)


@pytest.fixture(scope="module")
def stock(option, toy_student, head, tmp_path_factory) -> tuple[Path, str]:
    """The same training and evaluation by s3prl's own main, and what it printed at the evaluation."""
    folder = tmp_path_factory.mktemp("stock") / "ic"

    def run(*arguments: str) -> str:
        command = [sys.executable, "-c", STOCK, *arguments, "--device", "cpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    train = ["-m", "train", "-u", "robustdistiller_local", "-k", str(toy_student), "-d", "fluent_commands"]
    config = folder.parent / "ic.yaml"
    config.write_text(yaml.safe_dump(load_config(tasks.get("IC"))))
    run(*train, "-c", str(config), "-p", str(folder), "-o", option)
    return folder, run("-m", "evaluate", "-e", str(folder / "states-4.ckpt"))


def states(folder: Path) -> dict:
    return read_checkpoint(folder / "states-4.ckpt")


def test_training_is_s3prls_own_to_the_last_bit(head, stock):
    ours, theirs = states(head), states(stock[0])
    for part in ("Downstream", "Featurizer"):
        assert ours[part].keys() == theirs[part].keys()
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in ours[part])
    assert ours["Config"] == theirs["Config"]
    untrained = torch.nn.Linear(256, 7).weight  # the comparison can fail
    assert not torch.equal(ours["Downstream"]["model.post_net.linear.weight"], untrained)


def test_clean_record_is_what_stock_s3prl_prints(head, stock, tmp_path):
    printed = float(re.search(r"test acc: (\S+)", stock[1])[1])
    assert evaluate(head, "--records", str(tmp_path)) == 0
    (record,) = read_records(tmp_path)
    assert record.main_metric.value == printed * 100
    assert (record.main_metric.name, record.main_metric.unit) == ("accuracy", "%")
    assert (record.condition, record.items_expected, record.items_scored, record.status) == ("clean", 3, 3, "ok")
    assert (record.task, record.split, record.seed, record.step, record.learning_rate) == ("IC", "test", 1337, 4, 0.01)
    assert record.train_condition == "clean" and record.manifest_digest == "none"
    assert (record.git is not None) == (Path(__file__).parents[3] / ".git").exists()
    assert record.non_standard == [
        "runner.total_steps is 4, not 200000",
        "runner.eval_step is 2, not 4000",
        "utterances_per_update is 2, not 32",
        "the test set has 3 items, not 3793",
    ]
    assert record.parameters == sum(p.numel() for p in _load_student(head).parameters())
    assert sum(record.layer_weights) == pytest.approx(1)


def _load_student(head: Path):
    return UpstreamExpert(HeadNote.read(head).upstream["checkpoint"])


def test_one_record_per_condition_and_predictions_side_by_side(head, noise_folder, rir_folder, tmp_path):
    conditions = ["clean", "noise:snr_db=0", "reverb", "noise+reverb:snr_db=10"]
    options = [part for condition in conditions for part in ("--condition", condition)]
    options += ["--noise", str(noise_folder), "--rir", str(rir_folder), "--label", "toy", "--dump-audio", "1"]
    isinstance_before = builtins.isinstance
    assert evaluate(head, "--records", str(tmp_path), *options) == 0
    assert builtins.isinstance is isinstance_before
    records = {record.condition: record for record in read_records(tmp_path)}
    assert sorted(records) == sorted(conditions)
    assert {record.label for record in records.values()} == {"toy"}
    assert len({record.manifest_digest for record in records.values()}) == 4
    assert records["noise+reverb:snr_db=10"].sources.keys() == {"noise", "rir"}
    folders = sorted(path.name for path in (head / "conditions").iterdir())
    assert len(folders) == 3
    for folder in (head / "conditions").iterdir():
        assert len(Manifest.load(folder / "manifest-test.jsonl.gz").utterances) == 3
        examples = sorted(path.suffixes[0] for path in (folder / "audio").iterdir())
        assert (folder / "test_predict.csv").is_file() and examples == [".clean", ".json", ".wav"]
    # The same again gives the same noise.
    digests = {c: record.manifest_digest for c, record in records.items()}
    assert evaluate(head, "--records", str(tmp_path / "again"), *options) == 0
    assert {r.condition: r.manifest_digest for r in read_records(tmp_path / "again")} == digests


def test_reuse_keeps_a_planted_score_and_rerun_replaces_it(head, tmp_path, caplog):
    caplog.set_level("INFO")
    assert evaluate(head, "--records", str(tmp_path)) == 0
    (record,) = read_records(tmp_path)
    honest = record.main_metric.value
    planted = dataclasses.replace(record.main_metric, value=999.0)
    write_record(tmp_path, dataclasses.replace(record, metrics=[planted]))
    assert evaluate(head, "--records", str(tmp_path), "--overwrite", "reuse") == 0
    assert read_records(tmp_path)[0].main_metric.value == 999.0
    assert "clean: reused: accuracy 999.00%" in caplog.text
    assert evaluate(head, "--records", str(tmp_path)) == 0
    assert read_records(tmp_path)[0].main_metric.value == honest


def test_part_of_a_split_is_a_partial_record(head, tmp_path):
    assert evaluate(head, "--records", str(tmp_path), "-o", "config.runner.evaluate_ratio=0.0") == 0
    (record,) = read_records(tmp_path)
    assert record.status == "partial" and "2 of 3 items scored" in record.reason


def test_a_failing_evaluation_is_recorded_with_its_reason(head, tmp_path, monkeypatch):
    from s3prl.downstream.fluent_commands.expert import DownstreamExpert

    def broken(self, *_, **__):
        raise RuntimeError("a file vanished")

    monkeypatch.setattr(DownstreamExpert, "forward", broken)
    with pytest.raises(RuntimeError, match="a file vanished"):
        evaluate(head, "--records", str(tmp_path))
    (record,) = read_records(tmp_path)
    assert (record.status, record.reason, record.metrics) == ("failed", "RuntimeError: a file vanished", [])


def test_a_failed_evaluation_does_not_replace_a_number(head, tmp_path, monkeypatch):
    from s3prl.downstream.fluent_commands.expert import DownstreamExpert

    assert evaluate(head, "--records", str(tmp_path)) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    monkeypatch.setattr(DownstreamExpert, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(head, "--records", str(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before and len(before) == 2


def test_an_evaluation_without_a_number_ends_with_status_one(head, tmp_path, monkeypatch, capsys):
    from robustdistiller.eval.run.evaluation import _Run

    monkeypatch.setattr(_Run, "_outcome", lambda self, *_: {"status": "failed", "reason": "accuracy: computed nan"})
    assert evaluate(head, "--records", str(tmp_path)) == 1
    assert "IC test, clean: failed, accuracy: computed nan" in capsys.readouterr().err


@pytest.fixture
def suite(noise_folder, tmp_path) -> Path:
    path = tmp_path / "mine.yaml"
    conditions = "[clean, 'noise:snr_db=0..20,noise=hiss', 'noise:snr_db=5,noise=white']"
    path.write_text(f"noise: {{hiss: {noise_folder}}}\nconditions: {conditions}\n")
    return path


def test_a_suite_is_evaluated_saved_and_replayed_into_the_same_cells(head, suite, noise_folder, tmp_path):
    saved, again = tmp_path / "manifests", tmp_path / "again"
    options = ["--suite", str(suite), "--save-manifest", str(saved), "--dump-audio", "2", str(tmp_path / "listen")]
    assert evaluate(head, "--records", str(tmp_path / "first"), *options) == 0
    first = {r.condition: r for r in read_records(tmp_path / "first")}
    assert sorted(first) == ["clean", "noise:snr_db=0..20,noise=hiss", "noise:snr_db=5,noise=white"]
    assert first["noise:snr_db=0..20,noise=hiss"].sources["noise"]["name"] == f"hiss: {noise_folder.name}"
    assert len(list(saved.iterdir())) == 2
    assert {len(list(folder.glob("*.wav"))) for folder in (tmp_path / "listen").iterdir()} == {2, 4}
    # The same noise from elsewhere, drawn with another seed, replayed: the same cells with the same scores.
    copy = shutil.copytree(noise_folder, tmp_path / "copy")
    replay = ["--manifest", str(saved), "--noise", f"hiss={copy}", "--corruption-seed", "5", "--condition", "clean"]
    assert evaluate(head, "--records", str(again), *replay) == 0
    for record in read_records(again):
        assert cell_id(record) == cell_id(first[record.condition])
        assert record.manifest_digest == first[record.condition].manifest_digest
        assert record.main_metric == first[record.condition].main_metric
    # A recording that differs is refused before anything is evaluated.
    for file in copy.iterdir():
        file.write_bytes(file.read_bytes() + b"x")
    assert evaluate(head, "--records", str(tmp_path / "third"), *replay) == 2
    assert not (tmp_path / "third").exists()


def test_a_head_trained_in_noise_is_another_cell_and_says_so(head, option, toy_student, noise_folder, tmp_path, capsys):
    folder, records = tmp_path / "noisy", tmp_path / "records"
    train = ["-m", "train", "-u", "robustdistiller_local", "-k", str(toy_student), "-d", "IC", "-p", str(folder)]
    noisy = ["--train-condition", "noise:snr_db=0..20", "--noise", str(noise_folder)]
    assert main([*train, "-o", option, *noisy]) == 0
    weights = [states(one)["Downstream"]["model.post_net.linear.weight"] for one in (head, folder)]
    assert not torch.equal(*weights)
    assert evaluate(folder, "--records", str(records)) == 0
    assert evaluate(head, "--records", str(records)) == 0
    by_condition = {record.train_condition: record for record in read_records(records)}
    assert sorted(by_condition) == ["clean", "noise:snr_db=0..20"]
    assert len({cell_id(record) for record in by_condition.values()}) == 2
    capsys.readouterr()
    assert main(["-m", "train", "-e", str(folder)]) == 2
    assert "was trained under 'noise:snr_db=0..20' so far" in capsys.readouterr().err
    assert main(["-m", "train", "-e", str(folder), *noisy]) == 0  # it goes on under what it was trained under


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "robustdistiler"], "no suite 'robustdistiler'; did you mean 'robustdistiller'?"),
        (["--suite", "correlation"], "give --noise chime=FOLDER (chime)"),
        (["--asv-corrupt", "test", "--condition", "noise:snr_db=5,noise=white"], "only speaker verification (ASV) has"),
        (["--train-condition", "reverb"], "--train-condition belongs to -m train"),
        (["--dump-audio", "many"], "--dump-audio needs a number"),
        (["--manifest", "nowhere.jsonl.gz"], "nowhere.jsonl.gz does not exist"),
        (["--condition", "noise:snr_db=5", "--noise", "/no/such,split=test"], "/no/such does not exist"),
    ],
)
def test_wrong_suites_sides_and_manifests_are_named(head, arguments, message, tmp_path, capsys):
    assert evaluate(head, "--records", str(tmp_path), *arguments) == 2
    assert message in capsys.readouterr().err
