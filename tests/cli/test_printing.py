"""Text and tables in the terminal: nothing that is printed is taken for markup."""

from __future__ import annotations

from rich.console import Console
from typer.testing import CliRunner

from robustdistiller.cli.main import app
from robustdistiller.cli.printing import new_table, print_whole, say
from robustdistiller.eval.report.board import leaderboard


def test_brackets_are_printed_wherever_they_stand() -> None:
    console = Console(record=True, width=20)
    print_whole(new_table("mine [red]", ["noise [ab12cd]"], ["[95 %]"], [("[/bold] name", "1 [b]")]), console)
    say(console, "exp[a]/x, a long line that is not cut", style="dim")
    text = console.export_text()
    for part in ("mine [red]", "noise [ab12cd]", "[95 %]", "[/bold] name", "1 [b]", "exp[a]/x, a long line that"):
        assert part in text


def test_a_title_longer_than_its_table_stays_on_one_line() -> None:
    console = Console(record=True, width=80)
    print_whole(new_table("a title of some words", ["a"], ["b"], [("1", "2")]), console)
    assert "a title of some words" in console.export_text()


def test_systems_are_called_by_their_whole_names(tmp_path, monkeypatch) -> None:
    (tmp_path / "records").mkdir()  # an empty one is as good as none
    monkeypatch.chdir(tmp_path)
    first, second = [row.name for row in leaderboard([]).rows if row.name.endswith("[last layer only]")][:2]
    result = CliRunner().invoke(app, ["compare", first, second], env={"COLUMNS": "200"})
    assert f"{first} † minus {second} †" in result.output
