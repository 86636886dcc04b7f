"""What the README shows is true: its Python example runs, its commands and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from robustdistiller.cli.main import COMMANDS
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


@pytest.mark.parametrize("name", sorted(set(re.findall(r"^    robustdistiller (\w+)", TEXT, re.MULTILINE))))
def test_commands_exist(name: str) -> None:
    assert name in COMMANDS


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(robustdistiller_\w+|dphubert|dpwavlm)`", TEXT))))
def test_upstreams_exist(name: str) -> None:
    assert name in ENTRIES


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)]+)\)", TEXT))
def test_linked_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


def test_the_table_is_the_recorded_one() -> None:
    table = (ROOT / "results/quickstart/table.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert rows and all(row in TEXT for row in rows)
