"""``robustdistiller doctor``: prints what works here and the command for everything that does not."""

from __future__ import annotations

import json

import typer
from rich.console import Console
from rich.table import Table

from robustdistiller.eval.doctor import Check, Report, TaskCheck, examine
from robustdistiller.upstream.s3prl_bridge import Shim

_GOOD, _BAD, _ADVICE = "[green]ok[/]", "[red]no[/]", "[yellow]--[/]"


def doctor(
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
    shims: bool = typer.Option(True, "--shims/--no-shims", help="List what the bridge to s3prl changes here."),
) -> None:
    """Say what works here: versions, audio, s3prl, every SUPERB task, and what to type for what is missing."""
    report = examine()
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        show(report, Console(), shims)
    raise typer.Exit(0 if report.ok else 1)


def show(report: Report, console: Console, shims: bool = True) -> None:
    """Print ``report`` as tables.

    Example:
        >>> show(Report((Check("Python", False, "3.9", "make PYTHON=python3.11"),), (), ()), Console(width=100))
        ... # doctest: +ELLIPSIS
        <BLANKLINE>
        ...3.9...
        The core does not work yet. Type:
          make PYTHON=python3.11
    """
    console.print(_core_table(report.core))
    if shims and report.shims:
        console.print(_shim_table(report.shims))
    if report.tasks:
        console.print(_task_table(report.tasks))
    broken = [check.fix for check in report.core if not check.ok and check.required]
    advice = [check.fix for check in report.core if not check.ok and not check.required]
    advice += [f"{command}   # {task.code}" for task in report.tasks for command in task.commands]
    if broken:
        console.print("The core does not work yet. Type:")
    elif advice:
        console.print("The core works. For the rest, as needed:")
    else:
        console.print("Everything works.")
    for command in dict.fromkeys(broken or advice):
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    return table


def _core_table(checks: tuple[Check, ...]) -> Table:
    table = _table("\nThis machine")
    for check in checks:
        mark = _GOOD if check.ok else _BAD if check.required else _ADVICE
        table.add_row(mark, check.name, check.found)
    return table


def _shim_table(shims: tuple[Shim, ...]) -> Table:
    table = _table("\nThe bridge to s3prl")
    for shim in shims:
        table.add_row("bridged" if shim.applied else "[dim]as is[/]", shim.name, shim.reason)
    return table


def _task_table(tasks: tuple[TaskCheck, ...]) -> Table:
    table = _table("\nSUPERB tasks (data is checked when a task starts)")
    for task in tasks:
        missing = f" [red]missing: {', '.join(task.missing)}[/]" if task.missing else ""
        table.add_row(_GOOD if task.ok else _BAD, task.code, task.title + missing)
    return table
