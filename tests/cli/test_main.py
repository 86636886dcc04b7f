"""The command line as a whole: names, help without heavy imports, hints."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import COMMANDS, app, load


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists_and_explains_itself(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert load(name).name == name
    assert len(result.output.splitlines()) > 8


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_copied_from_a_terminal_of_80_columns(name: str) -> None:
    kept = [part for part in load(name).help.split("\n\n") if part.startswith("\b")]
    assert kept and [line for part in kept for line in part.splitlines() if len(line.replace("\\[", "[")) > 78] == []


def test_an_unknown_command_is_refused_with_the_nearest_one() -> None:
    result = CliRunner().invoke(app, ["quickstat"])
    assert result.exit_code == 2
    assert "quickstart" in result.output


def test_help_does_not_wait_for_pytorch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from robustdistiller.cli.main import app; "
        "print(CliRunner().invoke(app, ['--help']).output); sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in COMMANDS)


def test_an_option_of_no_command_is_told_in_one_sentence():
    result = CliRunner().invoke(app, ["--no-such-option"])
    assert result.exit_code == 2
    assert result.stderr == "robustdistiller: no such option: --no-such-option; `robustdistiller --help` says more\n"
