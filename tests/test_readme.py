"""What the README shows is true: its Python example runs, its commands and files exist."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from robustdistiller.cli.main import COMMANDS
from robustdistiller.pretrain import list_recipes
from robustdistiller.upstream import ENTRIES

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs() -> None:
    block = TEXT.split("The same in Python:\n\n", 1)[1]
    lines = re.match(r"((?:    .*\n|\n)+)", block).group(1)
    code = textwrap.dedent(lines) + "\nprint(len(hidden_states), hidden_states[0].shape[0], lengths[0].tolist())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[:2] == ["6", "2"]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"^    robustdistiller ([\w-]+)", TEXT, re.MULTILINE))))
def test_commands_exist(name: str) -> None:
    assert name in COMMANDS


def _first_column(header: str) -> list[str]:
    """The names in backticks in the first column of the table of that header; `_x` continues the row's first name."""
    names = []
    for row in TEXT.split(header, 1)[1].split("\n\n", 1)[0].splitlines()[2:]:
        first, *more = re.findall(r"`(\w+)`", row.split("|")[1])
        names += [first, *(first.rpartition("_")[0] + name if name.startswith("_") else name for name in more)]
    return names


@pytest.mark.parametrize("name", _first_column("| upstream (`-u`) |"))
def test_upstreams_exist(name: str) -> None:
    assert name in ENTRIES


def test_every_recipe_is_listed() -> None:
    assert sorted(_first_column("| recipe | what it does |")) == sorted(list_recipes())


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)", TEXT))
def test_linked_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_table_is_the_recorded_one() -> None:
    with (ROOT / "results/quickstart/leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    for name in dict.fromkeys(line["system"] for line in lines):
        own = [line for line in lines if line["system"] == name]
        size = f"{int(own[0]['parameters']) / 1e6:.2f} M" if own[0]["parameters"] != "0" else "-"
        cells = (f"{float(one['value']):.1f} ({float(one['low']):.1f} to {float(one['high']):.1f})" for one in own)
        assert f"| {name} | {size} | {' | '.join(cells)} |" in TEXT
