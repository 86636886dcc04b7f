"""What the README shows: commands, recipes, links and table; `docs/test_pages.py` runs its code."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from robustdistiller.cli.main import COMMANDS
from robustdistiller.pretrain import list_recipes

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_one_page() -> None:
    assert len(TEXT.splitlines()) <= 150


@pytest.mark.parametrize("name", sorted(set(re.findall(r"^robustdistiller ([\w-]+)", TEXT, re.MULTILINE))))
def test_commands_exist(name: str) -> None:
    assert name in COMMANDS


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([\w-]+)", TEXT))
    assert targets >= {"quickstart", "test", "docs"}
    assert targets <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def _first_column(header: str) -> list[str]:
    """The names in backticks in the first column of the table of that header."""
    rows = TEXT.split(header, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]


@pytest.mark.parametrize("name", _first_column("| recipe | what it does |"))
def test_recipes_exist(name: str) -> None:
    assert name in list_recipes()


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)", TEXT))
def test_linked_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_table_is_the_recorded_one() -> None:
    with (ROOT / "results/quickstart/leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        lines = [line for line in csv.DictReader(stream) if line["task"] == "words"]
    assert len(lines) == 25
    for name in dict.fromkeys(line["system"] for line in lines):
        own = [line for line in lines if line["system"] == name]
        size = f"{int(own[0]['parameters']) / 1e6:.2f} M" if own[0]["parameters"] != "0" else "-"
        cells = (f"{float(one['value']):.1f} ({float(one['low']):.1f} to {float(one['high']):.1f})" for one in own)
        assert f"| {name} | {size} | {' | '.join(cells)} |" in TEXT
