"""`robustdistiller agreement` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from robustdistiller.cli.main import app

HEADER = "stage,step,condition,l1,cosine,probe_accuracy\n"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate("abc"):
        lines = [f"distil,{step},clean,{1 / step},{step},{step / 10 + index / 100}" for step in range(1, 5)]
        Path(name).mkdir()
        Path(name, "validation.csv").write_text(HEADER + "\n".join(lines) + "\n")


def run(*arguments: str):
    result = CliRunner().invoke(app, ["agreement", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def lines_with(output: str, *words: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines() if all(word in line for word in words)]


def test_the_table_the_notes_and_the_picture() -> None:
    result = run("a", "b", "c", "--plot", "new/a.png")
    assert result.exit_code == 0, result.output
    (every,) = lines_with(result.output, "clean", "cosine", "all steps")
    (last,) = lines_with(result.output, "clean", "l1", "last steps")
    assert every[4:7] == ["12", "3", "+0.97"] and every[7].startswith("[+0.9") and every[9:] == ["1"]
    assert last == ["clean", "l1", "last", "steps", "3", "3", "-", "2"]
    assert "1  an interval from 3 runs is rough, rather too narrow." in result.output
    assert "2  one of the two has the same value everywhere, so that there is nothing to rank." in result.output
    assert "Written: new/a.png" in result.output and Path("new/a.png").read_bytes()[:4] == b"\x89PNG"


def test_one_run_has_no_interval_and_says_so() -> None:
    result = run("a")
    assert result.exit_code == 0 and "[" not in result.output
    assert "found 1 point, expected 3 or more to rank." in result.output
    assert "no interval from 1 run, it takes 3." in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "absent"], "absent/validation.csv cannot be read"),
        (["a", "a"], "twice, expected one or more different runs"),
        (["a", "bare"], "bare/validation.csv has no column probe_accuracy: the run had no probe"),
        (["a", "--plot", "a.pdf"], "--plot a.pdf: found .pdf, expected a name that ends in .png"),
    ],
)
def test_errors_are_one_sentence(arguments, message) -> None:
    Path("bare").mkdir()
    Path("bare/validation.csv").write_text("step,condition,l1,cosine\n1,clean,1,1\n")
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.output
    assert result.output.startswith("robustdistiller agreement: ") and result.output.count("\n") == 1
