"""Every command, given what goes wrong with users: one sentence with the command's name, and the right exit status."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from robustdistiller.cli.command import command
from robustdistiller.cli.main import COMMANDS, app, load
from robustdistiller.common.errors import RunFailed, run_command
from robustdistiller.upstream import EncoderConfig, SpeechEncoder, save_checkpoint

SHAPE = {"embed_dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "position_kernel": 8, "position_groups": 4}
SHAPE |= {"conv_layers": ((16, 10, 5), (16, 8, 4))}

SPLITS = ("train", "dev", "test")
#: Command line, and words of the sentence. "occupied" is a file where a folder is to be made, "cut.ckpt" half a file.
HOSTILE = [
    (["agreement", "absent"], "absent/validation.csv"),
    (["check", "fbank", "--task", "KSS"], "did you mean"),
    (["check", "fbank", "--task", "KS", "--out", "occupied"], "occupied"),
    (["compare", "nobody", "nothing"], "nobody"),
    (["convert", "absent.ckpt", "out", "--to", "native"], "absent.ckpt"),
    (["convert", "cut.ckpt", "out", "--to", "native"], "cut.ckpt cannot be read as a checkpoint"),
    (["convert", "whole.ckpt", "occupied/out", "--to", "native"], "occupied"),
    (["data", "absent"], "absent does not exist"),
    (["clean", "absent"], "absent"),
    (["distill"], "which recipe?"),
    (["distill", "thin", "--show", "--cost"], "type one of them"),
    (["distill", "thin", "--list"], "--list is typed alone"),
    (["distill", "robustdistillr"], "did you mean 'robustdistiller'?"),
    (["distill", "robustdistiller", "optim.lrr=1"], "unknown key 'optim.lrr'; did you mean 'lr'?"),
    (["doctor", "-k", "whole.ckpt"], "belong to --upstream"),
    (["evaluate", "fbank"], "which task? give --task TASK=FOLDER"),
    (["evaluate", "fbank", "--task", "KSS=x"], "did you mean"),
    (["evaluate", "fbank", "--task", "KS"], "such as KS=/data/folder"),
    (["evaluate", "fbank", "--task", "KS=absent"], "absent"),
    (["evaluate", "fbank", "--csv", "absent.csv"], "absent.csv"),
    (["evaluate", "fbank", "--csv", "occupied"], "occupied"),
    (["evaluate", "fbank", "--csv", "one.csv", "--condition", "noise:snr_db=5", "--noise", "absent"], "absent"),
    (["export", "cut.ckpt", "out.onnx"], "cut.ckpt cannot be read as a checkpoint"),
    (["export", "whole.ckpt", "out.onnx", "--layers", "layer_9"], "layer_9"),
    (["extract", "cut.ckpt", "speech.wav", "--out", "f"], "speech.wav does not exist"),
    (["extract", "cut.ckpt", "occupied", "--out", "f"], "cut.ckpt cannot be read as a checkpoint"),
    (["extract", "whole.ckpt", "occupied", "--out", "occupied"], "occupied"),
    (["groups", "cut.ckpt", "occupied", "--out", "found"], "cut.ckpt cannot be read as a checkpoint"),
    (["groups", "whole.ckpt", "absent", "--count", "1", "--out", "found"], "absent does not exist"),
    (["leaderboard"], "missing argument 'FOLDER...' (Folders of sweeps, runs or records); `robust"),
    (["leaderboard", "absent"], "absent"),
    (["listen", "noise:snr=5"], "snr_db"),
    (["listen", "reverb", "--audio", "absent"], "absent"),
    (["listen", "reverb", "--utterances", "1", "--model", "cut.ckpt"], "cut.ckpt cannot be read as a checkpoint"),
    (["listen", "clean", "--out", "occupied/page.html"], "occupied must be a folder, found a file there or above it"),
    (["listen", "clean", "--out", "."], ". is a folder, expected the name of a file"),
    (["merge", "whole.ckpt", "cut.ckpt", "--out", "c.ckpt"], "cut.ckpt cannot be read as a checkpoint"),
    (["merge", "whole.ckpt", "whole.ckpt", "--out", "occupied/c.ckpt"], "occupied"),
    (["prepare", "ICC"], "did you mean"),
    (["prepare", "Musann"], "unknown task 'Musann'; did you mean 'musan'?"),
    (["prepare", "mini", "here", "there"], "got unexpected extra argument(s) (there)"),
    (["profile", "robustdistiller_mimi"], "did you mean 'robustdistiller_mini'"),
    (["profile", "robustdistiller_local", "-k", "cut.ckpt"], "cut.ckpt cannot be read as a checkpoint"),
    (["profile", "fbank", "--no-such-option"], "no such option: --no-such-option"),
    (["publish", "cut.ckpt", "--to", "out"], "cut.ckpt cannot be read as a checkpoint"),
    (["publish", "whole.ckpt", "--to", "occupied"], "occupied is a file"),
    (["publish", "whole.ckpt", "--to", "out", "--records", "absent"], "absent"),
    (["quickstart", "--condition", "noise:snr=5"], "snr_db"),
    (["quickstart", "--steps", "0"], "invalid value for '--steps'"),
    (["quickstart", "--condition", "music"], "the condition needs music, and none is shipped"),
    (["quickstart", "--condition", "noise:snr_db=5,noise=absent"], "absent"),
    (["quickstart", "--device", "cudda"], "device 'cudda' cannot be used"),
    (["run-page", "absent"], "absent"),
    (["run-page", "occupied"], "occupied"),
    (["quickstart", "--out", "occupied"], "occupied: a file is there, expected a folder; choose another name"),
    (["submit-pack", "absent"], "absent holds no records"),
    (["submit-pack", "absent", "--out", "predict.tar"], "expected a file that ends in .zip"),
    (["sweep", "absent.yaml"], "absent.yaml"),
    (["sweep", "."], "a folder, expected a YAML file"),
    (["results", "push", "absent"], "expected where from and where to"),
    (["results", "pull", "absent", "out"], "absent"),
]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_checkpoint("whole.ckpt", SpeechEncoder(EncoderConfig(**SHAPE)), {})
    Path("cut.ckpt").write_bytes(Path("whole.ckpt").read_bytes()[:3000])
    Path("occupied").write_text("a file\n")
    Path("one.csv").write_text("path,label,split\n" + "".join(f"{one}.wav,yes,{one}\n" for one in SPLITS))
    for split in SPLITS:
        soundfile.write(f"{split}.wav", np.ones(800), 16_000)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"), HOSTILE, ids=lambda one: " ".join(one) if isinstance(one, list) else ""
)
def test_what_the_user_has_to_change_is_one_sentence_and_status_2(arguments, words, place) -> None:
    before = sorted(place.iterdir())
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"robustdistiller {arguments[0]}: ") and words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and not result.stdout
    assert sorted(place.iterdir()) == before, "nothing is written"


def test_every_command_that_reads_something_is_among_them() -> None:
    assert {arguments[0] for arguments, _ in HOSTILE} == set(COMMANDS) - {"models", "inspect"}


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_options_are_refused_and_known_ones_shown(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--no-such-option"])
    assert result.exit_code == 2 and "--no-such-option" in result.output
    assert f"robustdistiller {name}" in CliRunner().invoke(app, [name, "--help"]).output, "help teaches with an example"
    assert any("--verbose" in option.opts for option in load(name).params)


def test_a_checkpoint_that_is_none_is_an_answer_of_inspect(place) -> None:
    for path in ("absent.ckpt", "cut.ckpt", "occupied"):
        result = CliRunner().invoke(app, ["inspect", path])
        assert result.exit_code == 1 and "Traceback" not in result.output


def _no_home() -> RuntimeError:
    with pytest.raises(RuntimeError) as raised:
        Path("~nobody-of-that-name/x").expanduser()
    return raised.value


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (None, 0, ""),
        (ValueError("wrong"), 2, "x: wrong\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "x: a.txt: no such file or directory\n"),
        (PermissionError(13, "Permission denied", "a.txt"), 2, "x: a.txt: permission denied\n"),
        (OSError(28, "No space left on device", "a.txt"), 1, "x: a.txt: no space left on the device\n"),
        (RunFailed("it broke"), 1, "x: it broke\n"),
        (_no_home(), 2, "x: a path begins with ~, but there is no such user's home folder: write it out\n"),
        (KeyboardInterrupt(), 130, "x: interrupted\n"),
        (ValueError("Caught in worker 0.\nTraceback (most recent call last):\nValueError: bad"), 2, "x: bad\n"),
    ],
)
def test_statuses(error, status, sentence, capsys) -> None:
    def call() -> None:
        if error is not None:
            raise error

    assert run_command("x", call) == status
    assert capsys.readouterr().err == sentence


@pytest.mark.parametrize("name", ["prepare", "sweep", "evaluate", "extract", "quickstart"])
def test_an_interrupted_command_says_what_is_kept_and_how_to_go_on(name, capsys, monkeypatch) -> None:
    def interrupted(program, call, keeps=""):
        def stop() -> None:
            raise KeyboardInterrupt

        return run_command(program, stop, keeps)

    monkeypatch.setattr("robustdistiller.cli.command.run_command", interrupted)
    load(name)
    function = getattr(import_module(f"robustdistiller.cli.{name}"), name)
    with pytest.raises(typer.Exit) as stop:
        function(verbose=False)
    said = capsys.readouterr().err
    assert stop.value.exit_code == 130 and re.fullmatch(
        rf"robustdistiller {name}: stopped; what .* is kept: the same command goes on from here\n", said
    )


def test_faults_of_this_package_raise() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command("x", lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="ours"):
        run_command("x", lambda: exec("raise RuntimeError('ours')"))
    with pytest.raises(ImportError, match="cannot import name"):
        run_command("x", lambda: exec("from json import no_such_name"))


def test_verbose_shows_where(place) -> None:
    result = CliRunner().invoke(app, ["merge", "absent.ckpt", "b", "--out", "c", "-v"])
    assert result.exit_code == 2 and "robustdistiller merge: checkpoint absent.ckpt" in result.output


def test_a_program_that_calls_a_command_logs_as_before(place) -> None:
    ours = logging.getLogger("robustdistiller")
    level = ours.level
    assert CliRunner().invoke(app, ["models", "--verbose"]).exit_code == 0
    assert CliRunner().invoke(app, ["merge", "absent.ckpt", "b", "--out", "c"]).exit_code == 2
    assert ours.level == level


def test_a_command_may_return_its_status() -> None:
    @command()
    def failing() -> int:
        """Help."""
        return 1

    with pytest.raises(Exception, match="1") as stop:
        failing(verbose=False)
    assert stop.value.exit_code == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_control_c_is_status_130(place) -> None:
    """While it reads a file, here a pipe into which nobody writes."""
    Path("run").mkdir()
    os.mkfifo("run/validation.csv")
    process = subprocess.Popen(
        [sys.executable, "-m", "robustdistiller.cli", "agreement", "run"], stderr=subprocess.PIPE, text=True
    )
    pipe = None
    while pipe is None and process.poll() is None:
        try:
            pipe = os.open("run/validation.csv", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    os.close(pipe)
    assert (process.returncode, said) == (130, "robustdistiller agreement: interrupted\n")
