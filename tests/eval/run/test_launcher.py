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
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, checkpoint_digest, export_checkpoint, save_checkpoint
from robustdistiller.upstream.pretrained import resolve as resolving
from robustdistiller.upstream.s3prl.expert import UpstreamExpert

pytestmark = pytest.mark.usefixtures("bridge")

STOCK = (
    "import sys; from robustdistiller.upstream.s3prl.entries import register; register(); "
    "from s3prl import run_downstream; run_downstream.main()"
)
HERE = ["-o", "config.downstream_expert.datarc.file_path='.'"]  # there is something
RUNNER = {"total_steps": 4, "eval_step": 2, "save_step": 2, "log_step": 2, "max_keep": 1}


@pytest.fixture(scope="module")
def option(toy_corpora, tmp_path_factory) -> str:
    """The ``-o`` of a four-step training on the toy intent corpus."""
    corpus = toy_corpora.build("IC", tmp_path_factory.mktemp("ic"))
    runner = {f"config.runner.{key}": value for key, value in RUNNER.items()}
    return toy_corpora.as_option({**corpus, **runner, "config.optimizer.lr": 0.01})


@pytest.fixture(scope="module")
def head(option, toy_student, tmp_path_factory, bridge) -> Path:
    """A head trained by the launcher, without the CPU kernels that it asks for: they round differently."""
    folder = tmp_path_factory.mktemp("exp") / "ic"
    command = ["-m", "train", "-u", "robustdistiller_local", "-k", str(toy_student), "-d", "IC", "-p", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UpstreamExpert, "accelerate", lambda self: None)
        assert main([*command, "-o", option]) == 0
    return folder


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


def evaluate(head: Path, *arguments: str) -> int:
    return main(["-m", "evaluate", "-e", str(head / "states-4.ckpt"), *arguments])


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


@pytest.mark.parametrize("place", ["--records", "--save-manifest", "--dump-audio"])
def test_a_file_in_the_place_of_a_folder_is_said_before_anything_is_evaluated(place, head, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    count = ["1"] if place == "--dump-audio" else []
    assert evaluate(head, place, *count, str(tmp_path / "file" / "below")) == 2
    said = capsys.readouterr()
    assert f"{tmp_path / 'file' / 'below'} must be a folder, found a file" in said.err
    assert "evaluating split" not in said.err and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("key", ["optimizer.lr.x", "runner.total_steps.a.b"])
def test_a_setting_has_none_below_it(key, head, capsys):
    assert evaluate(head, "-o", f"config.{key}=1") == 2
    assert re.search(rf"-o config.{key}: {key[: key.index('.', 10)]} is [\d.]+, which has no", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-m", "train", "-u", "fbank", "-d", "fluent_comands", "-p", "x"],
            "unknown task 'fluent_comands'; did you mean",
        ),
        (["-m", "train", "-u", "fbank", "-d", "ctc", "-p", "x"], "serves several tasks: say -d PR or -d SF"),
        (["-m", "train", "-u", "robustdistiler_local", "-d", "IC", "-p", "x"], "did you mean 'robustdistiller_local'"),
        (["-m", "train", "-u", "fbank", "-d", "IC", "-p", "x"], "datarc.file_path is not given; expected data/"),
        (["-m", "train", "-u", "fbank", "-d", "IC"], "give the experiment's folder: -p FOLDER"),
        (["-m", "train", "-u", "fbank", "-p", "x"], "a new experiment needs -d TASK"),
        (
            ["-m", "train", "-u", "fbank", "-d", "IC", "-p", "x", "--condition", "clean"],
            "--condition belong to -m evaluate",
        ),
        (["-m", "train", "-u", "fbank", "-d", "IC", "-p", "x", "-i", "y.ckpt"], "-i belongs to -m evaluate"),
        (["-m", "train", "-u", "fbank", "-d", "IC", "-p", "x", "-c", "nowhere.yaml"], "-c nowhere.yaml: no such file"),
        (
            ["-m", "train", "-u", "robustdistiller_local", "-k", "no.ckpt", "-d", "IC", "-p", "x", *HERE],
            "checkpoint no.ckpt: expected a file or folder, found nothing there",
        ),
        (
            ["-m", "train", "-u", "exp/no.ckpt", "-d", "IC", "-p", "x", *HERE],  # a model in an upstream's place
            "checkpoint exp/no.ckpt: expected a file or folder, found nothing there",
        ),
        (["-m", "evaluate", "-e", "nowhere"], "-e nowhere: no such file or folder"),
        (["-m", "evaluate", "-e", "nowhere", "--condition", "noise:snr=5"], "unknown key 'snr'.*did you mean 'snr_db'"),
    ],
)
def test_errors_are_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error


def test_noise_that_is_not_there(head, capsys):
    assert evaluate(head, "--condition", "noise:snr_db=5", "--noise", "/no/noise") == 2
    assert "/no/noise does not exist" in capsys.readouterr().err


def test_nothing_is_downloaded_for_a_call_whose_audio_is_missing(option, tmp_path, monkeypatch, capsys):
    """Wrong paths of the task's data, of noise, or a wrong option are said before hundreds of megabytes are fetched."""
    asked = []

    def fetch(url, *_):
        asked.append(url)
        raise OSError("no route to host")

    monkeypatch.setattr(resolving, "fetch", fetch)
    train = ["-m", "train", "-u", "robustdistiller_wavlm", "-d", "IC", "-p", str(tmp_path / "exp")]
    assert main([*train, "-o", "config.downstream_expert.datarc.file_path=/no/corpus"]) == 2
    assert "/no/corpus" in capsys.readouterr().err
    noisy = [*train, "-o", option, "--train-condition", "noise:snr_db=5"]
    assert main([*noisy, "--noise", "/no/noise"]) == 2
    assert "/no/noise does not exist" in capsys.readouterr().err
    assert main(["-m", "evaluate", *noisy[2:-2], "--condition", "noise:snr_db=5", "--noise", "/no/noise"]) == 2
    assert "/no/noise does not exist" in capsys.readouterr().err
    assert asked == []
    assert main([*train, "-o", option]) == 2
    assert "rd_wavlm.ckpt, which could not be fetched" in capsys.readouterr().err and len(asked) == 1
    assert not (tmp_path / "exp" / "head.json").exists()


def test_moved_and_changed_upstreams_are_noticed(head, toy_student, tmp_path, capsys):
    moved = tmp_path / "moved.ckpt"
    shutil.copy(toy_student, moved)
    copy = tmp_path / "ic"
    shutil.copytree(head, copy)
    checkpoint = states(copy)
    checkpoint["Args"].upstream_ckpt = str(tmp_path / "old" / "student.ckpt")
    torch.save(checkpoint, copy / "states-4.ckpt")
    assert evaluate(copy) == 2
    error = capsys.readouterr().err
    assert "old/student.ckpt: expected a file or folder" in error and "args.upstream_ckpt='NEW_NAME'" in error
    option = f"args.upstream_ckpt='{moved}',,args.expdir='{copy}'"
    assert evaluate(copy, "-o", option) == 0
    save_checkpoint(moved, SpeechEncoder(UpstreamExpert(toy_student).encoder.config), {})  # other weights
    assert evaluate(copy, "-o", option) == 2
    assert "train the head again" in capsys.readouterr().err


def test_a_model_on_the_hub_is_an_upstream_and_its_head_remembers_it(option, tmp_path, monkeypatch, capsys):
    model, folder = tmp_path / "hub" / "commit", tmp_path / "ic"
    config = EncoderConfig(embed_dim=24, num_layers=1, num_heads=2, ffn_dim=32, position_groups=4)
    save_checkpoint(tmp_path / "student.ckpt", SpeechEncoder(config), {})
    export_checkpoint(tmp_path / "student.ckpt", model, "huggingface")
    monkeypatch.setattr(resolving, "hub_folder", lambda name, revision, *_, **__: model)
    assert main(["-m", "train", "-u", "me/student@v1", "-d", "IC", "-p", str(folder), "-o", option]) == 0
    assert evaluate(folder) == 0
    (record,) = read_records(folder / "records")
    assert (record.upstream, record.checkpoint) == ("robustdistiller_local", "me/student@v1")
    assert (record.checkpoint_digest, record.checkpoint_digest_of) == (checkpoint_digest(model), "file")
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")  # another commit
    assert evaluate(folder) == 2
    assert "was trained on me/student@v1" in capsys.readouterr().err


def ignored(caplog) -> list[str]:
    said = [record.getMessage() for record in caplog.records if " is ignored: " in record.getMessage()]
    caplog.clear()
    return [line.split(":")[0] + line.split("-o")[-1] for line in said]


def test_ignored_options_are_named(head, caplog, tmp_path):
    options = [*("-u", "fbank"), *("-l", "1"), *("-s", "paper"), "-f", *("-n", "x"), *("-c", "x.yaml"), "--seed", "3"]
    assert evaluate(head, *options, "--records", str(tmp_path)) == 0
    assert ignored(caplog) == [
        'config is ignored "config.KEY=VALUE"',
        "expdir is ignored \"args.expdir='result/downstream/x'\"",
        'seed is ignored "args.seed=3"',
        "upstream is ignored \"args.upstream='fbank'\"",
        "upstream_feature_selection is ignored \"args.upstream_feature_selection='paper'\"",
        'upstream_layer_selection is ignored "args.upstream_layer_selection=1"',
        'upstream_trainable is ignored "args.upstream_trainable=True"',
    ]
    (record,) = read_records(tmp_path)
    assert record.upstream == "robustdistiller_local"
    student = HeadNote.read(head).upstream["checkpoint"]
    as_before = ["-u", student, "-d", "IC", "-p", f"{head}/", "--seed", "1337", "-s", "hidden_states"]
    assert evaluate(head, *as_before, "--records", str(tmp_path), "--overwrite", "reuse") == 0
    assert ignored(caplog) == []


@pytest.mark.parametrize("place", ["-n", "-p"])
def test_a_training_that_is_to_go_on_by_itself_does(place, option, toy_student, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    folder = Path("result/downstream/ic")
    name = {"-n": "ic", "-p": str(folder)}[place]
    train = ["-m", "train", "-u", str(toy_student), "-d", "IC", place, name, "-o", option, "-a", "--device", "cpu"]
    assert main(train) == 0
    note = HeadNote.read(folder)
    stamp = (folder / "states-4.ckpt").stat().st_mtime_ns
    caplog.clear()
    assert main(train) == 0
    assert (folder / "states-4.ckpt").stat().st_mtime_ns == stamp
    assert HeadNote.read(folder).dev_scores == note.dev_scores
    assert "an earlier head is removed" not in caplog.text and ignored(caplog) == []


def test_help_shows_s3prls_options_and_ours(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    for option in ("--upstream_layer_selection", "--auto_resume", "--condition", "--records", "examples:"):
        assert option in shown


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
