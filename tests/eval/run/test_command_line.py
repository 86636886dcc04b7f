"""What the launcher refuses, ignores and takes up again, each in one sentence; and its help."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from robustdistiller.eval.results.files import read_records
from robustdistiller.eval.run.head_checkpoint import read_checkpoint
from robustdistiller.eval.run.head_note import HeadNote
from robustdistiller.eval.run.launcher import main
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, checkpoint_digest, export_checkpoint, save_checkpoint
from robustdistiller.upstream.pretrained import resolve as resolving
from robustdistiller.upstream.s3prl.expert import UpstreamExpert

from .conftest import evaluate

pytestmark = pytest.mark.usefixtures("bridge")

HERE = ["-o", "config.downstream_expert.datarc.file_path='.'"]  # there is something


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
        (
            ["-m", "train", "-u", "fbank", "-d", "ER", "-v", "fold2", "-p", "x"],
            "-v fold2 has no effect: config.downstream_expert.datarc.test_fold is fold1",
        ),
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
    checkpoint = read_checkpoint(copy / "states-4.ckpt")
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
