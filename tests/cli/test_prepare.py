"""`robustdistiller prepare`: the report, its exit status, and options that can be typed as they are printed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.eval import tasks
from robustdistiller.eval.check import toy_corpora
from robustdistiller.eval.sweep import TaskEntry


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    toy_corpora.librispeech(tmp_path / "LibriSpeech")
    return tmp_path / "LibriSpeech"


def prepare(*arguments: str):
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)], env={"COLUMNS": "400"})


def test_check_looks_and_writes_nothing(corpus, tmp_path):
    result = prepare("ASR", "--check", corpus)
    assert result.exit_code == 0, result.output
    assert re.search(r"differs\s+dev-clean\s+2703 flac files\s+2 flac files", result.output)
    assert re.search(r"to make\s+lengths of dev-clean", result.output)
    assert "when the files are made (the same command without --check)" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["LibriSpeech"]


def test_what_is_missing_is_exit_status_one_and_nothing_is_made(corpus, tmp_path):
    for file in (corpus / "test-clean").rglob("*.flac"):
        file.unlink()
    for arguments in (["--check"], []):
        result = prepare("ASR", *arguments, corpus)
        assert result.exit_code == 1
        assert re.search(r"missing\s+test-clean\s+2620 flac files\s+no flac files", result.output)
        assert "test-clean: an unfinished download, or archives that are not unpacked?" in result.output
        assert "Something needed is missing, see above; nothing was made." in result.output
        assert "For run_downstream.py" not in result.output
    assert not (tmp_path / "prepared").exists()


def test_the_printed_options_are_what_the_launcher_and_a_sweep_take(corpus, tmp_path):
    result = prepare("ASR", corpus)
    assert result.exit_code == 0, result.output
    assert "Made: len_for_bucket/train-clean-100.csv, " in result.output and "(in prepared/ASR)" in result.output
    (option,) = re.findall(r"For run_downstream.py -d ASR:\n  (-o .*)", result.output)
    flag, value = shlex.split(option)
    settings = dict(part.split("=") for part in value.split(",,"))
    roots = {key: eval(path) for key, path in settings.items()}  # as s3prl reads them
    assert flag == "-o" and set(roots) == {root.key for root in tasks.get("ASR").roots}
    assert all(Path(path).is_dir() and Path(path).is_absolute() for path in roots.values())
    (entry,) = yaml.safe_load(re.findall(r"- \{task: ASR.*", result.output)[0])
    composed = TaskEntry(**entry).compose()
    assert composed["downstream_expert"]["datarc"]["bucket_file"] == str(tmp_path / "prepared/ASR/len_for_bucket")
    again = prepare("ASR", corpus)
    assert "made before" in again.output and "Made: nothing, all was there" in again.output


def test_json(corpus):
    result = prepare("ASR", "--check", "--json", corpus)
    found = json.loads(result.stdout)
    assert found["ok"] and found["task"] == "ASR"
    assert {"what", "expected", "found", "state", "fix", "target"} == set(found["findings"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which task; robustdistiller prepare --list shows them"),
        (["ISC", "x"], "unknown task 'ISC'; did you mean"),
        (["ctc", "x"], "serves several tasks: say -d PR or -d SF"),
        (["ASR"], "ASR needs ROOT (LibriSpeech: SPLIT/SPEAKER/CHAPTER/*.flac and *.trans.txt); type the folder"),
        (["SD", "x", "--root", "rtm=y"], "SD has no root 'rtm'; did you mean 'rttm'"),
        (["SD", "x", "--root", "rttm"], "--root rttm: expected NAME=PATH, for example --root rttm=PATH"),
    ],
)
def test_wrong_commands_are_one_sentence(arguments, message):
    result = prepare(*arguments)
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("code", sorted(tasks.TASKS))
def test_a_folder_that_is_not_there(code, tmp_path):
    result = prepare(code, "--check", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert re.search(r"missing\s+\S*nowhere\s", result.output) and "no such folder" in result.output


def test_the_list_names_every_task_its_data_and_terms():
    result = prepare("--list")
    assert result.exit_code == 0
    for task in tasks.TASKS.values():
        assert re.search(rf"^{re.escape(task.code)}\s+{re.escape(task.corpora[0].name)}", result.output, re.MULTILINE)
    assert "for research; needs a signed form" in result.output


@pytest.mark.parametrize("code", sorted(tasks.TASKS))
def test_a_task_is_shown_with_its_rules(code):
    result = prepare(code, "--list")
    assert result.exit_code == 0
    for line in (f"  score: {tasks.get(code).rules.score}", "  ROOT: ", "  terms: "):
        assert line in result.output
    if code == "SID":
        assert "fixed: 200000 updates of 8 x 4 utterances" in result.output
        assert "split 1 138361, split 2 6904, split 3 8251" in result.output


def test_looking_and_listing_wait_for_no_torch():
    code = "import sys, robustdistiller.cli.prepare; assert not {'torch', 's3prl', 'pandas'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_task_of_somebodys_own_that_says_nothing_of_its_data(monkeypatch, tmp_path):
    accuracy = tasks.Metric("accuracy", "acc", higher_is_better=True)
    monkeypatch.setitem(tasks.TASKS._tasks, "OWN", tasks.Task("OWN", "my task", "mine", (accuracy,), "ks"))
    result = prepare("OWN", "--list")
    assert result.exit_code == 0, result.stderr
    assert "What robustdistiller prepare takes" not in result.output and "  metric: accuracy in %" in result.output
    assert prepare("--list").exit_code == 0
    for arguments in (["OWN", tmp_path], ["OWN", tmp_path, "--download"]):
        result = prepare(*arguments)
        assert result.exit_code == 2 and "OWN (my task) says nothing of its data; give its folders to" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mini", "exp", "--check"], "prepare mini takes a folder and no options"),
        (["mini", "--list"], "prepare mini takes a folder and no options"),
        (["--list", "--json"], "leave it out here"),
        (["musan", "data", "--download", "--json"], "leave it out here"),
        (["KS", "--list", "--check"], "--list shows what is known of tasks"),
        (["--list", "KS", "data"], "--list shows what is known of tasks"),
        (["musan", "data", "--download", "--out", "other"], "musan is fetched into ROOT"),
        (["IC", "data", "--root", "file_path=other", "--check"], "IC takes one file_path, found 2: data, other"),
        (["KS", "data", "--download", "--root", "test=x"], "KS has no root 'test'"),  # before 1.5 GB are fetched
        (["SD", "data", *["--root", "rttm=x"] * 2], "SD takes one rttm, found 2: x, x; type one of them"),
    ],
)
def test_options_that_would_do_nothing_are_refused(arguments, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = prepare(*arguments)
    assert result.exit_code == 2 and told in result.stderr and list(tmp_path.iterdir()) == []
