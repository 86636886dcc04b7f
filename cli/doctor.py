"""``robustdistiller doctor``: prints what works here and the command for everything that does not."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich.console import Console
from rich.table import Table

from robustdistiller.eval.contract import Finding, check_upstream
from robustdistiller.eval.doctor import Check, Report, TaskCheck, examine
from robustdistiller.upstream.s3prl_bridge import Shim

_GOOD, _BAD, _ADVICE = "[green]ok[/]", "[red]no[/]", "[yellow]--[/]"


def doctor(
    upstream: str | None = typer.Option(None, "--upstream", "-u", help="Look at this upstream only, with two noises."),
    checkpoint: str | None = typer.Option(None, "--checkpoint", "-k", help="Its weights."),
    options: str | None = typer.Option(None, "--options", "-g", help="Its own options file."),
    as_json: bool = typer.Option(False, "--json", help="Print the report as JSON."),
    shims: bool = typer.Option(True, "--shims/--no-shims", help="List what the bridge to s3prl changes here."),
) -> None:
    """Say what works here: versions, audio, s3prl, every SUPERB task, and what to type for what is missing.

    With --upstream: whether s3prl's heads can be trained on that upstream.
    """
    if upstream is not None:
        raise typer.Exit(show_upstream(check_upstream(upstream, checkpoint, options), upstream, as_json, Console()))
    if checkpoint is not None or options is not None:
        raise typer.BadParameter("--checkpoint and --options belong to --upstream NAME")
    report = examine()
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        show(report, Console(), shims)
    raise typer.Exit(0 if report.ok else 1)


def show_upstream(findings: list[Finding], name: str, as_json: bool, console: Console) -> int:
    """Print what was found about an upstream; returns the exit status.

    Example:
        >>> show_upstream([Finding("50 ms", False, "no frame")], "mine", False, Console(width=80))
        <BLANKLINE>
        The upstream mine
        no 50 ms no frame
        s3prl's heads cannot be trained on it.
        1
    """
    broken = any(not finding.ok and finding.required for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": not broken, "findings": [asdict(finding) for finding in findings]}, indent=2))
        return int(broken)
    table = _table(f"\nThe upstream {name}")
    for finding in findings:
        table.add_row(_GOOD if finding.ok else _BAD if finding.required else _ADVICE, finding.name, finding.found)
    console.print(table)
    console.print("s3prl's heads cannot be trained on it." if broken else "s3prl's heads can be trained on it.")
    return int(broken)


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
    table = _table("\nSUPERB tasks (for their data: robustdistiller prepare --list)")
    for task in tasks:
        missing = f" [red]missing: {', '.join(task.missing)}[/]" if task.missing else ""
        table.add_row(_GOOD if task.ok else _BAD, task.code, task.title + missing)
    return table
