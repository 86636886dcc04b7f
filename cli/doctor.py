"""``robustdistiller doctor``: prints what works here and the command for everything that does not."""

from __future__ import annotations

import dataclasses
import json
import sys

import typer

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import AsJson, Checkpoint, Options
from robustdistiller.eval.doctor.examination import examine
from robustdistiller.eval.doctor.report import as_text, mark, table


@command()
def doctor(
    upstream: str | None = typer.Option(None, "--upstream", "-u", help="Look at this upstream only, with two noises."),
    checkpoint: Checkpoint = None,
    options: Options = None,
    as_json: AsJson = False,
    shims: bool = typer.Option(True, "--shims/--no-shims", help="List what the bridge to s3prl changes here."),
) -> int:
    """
    \b
      robustdistiller doctor
      robustdistiller doctor -u hubert_base -k hubert.pt

    With --upstream: whether s3prl's heads can be trained on that upstream. The exit status is 1 where something that is
    needed is missing or wrong.
    """
    if upstream is not None and not shims:
        raise ValueError("--no-shims is of the report on this machine; leave it out beside --upstream")
    if upstream is not None:
        return _examine_upstream(upstream, checkpoint, options, as_json)
    if checkpoint is not None or options is not None:
        raise ValueError("--checkpoint and --options belong to --upstream NAME")
    if sys.stderr.isatty():
        typer.echo("Trying what is installed: some ten seconds.", err=True)
    report = examine()
    report = report if shims else dataclasses.replace(report, shims=())
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else as_text(report))
    return not report.ok


def _examine_upstream(name: str, checkpoint: str | None, options: str | None, as_json: bool) -> int:
    from robustdistiller.upstream.contract import check_upstream
    from robustdistiller.upstream.s3prl.entries import entry_of

    if checkpoint is None:
        name, checkpoint = entry_of(name)
    findings = check_upstream(name, checkpoint, options)
    broken = any(not finding.ok and finding.required for finding in findings)
    if as_json:
        typer.echo(json.dumps({"ok": not broken, "findings": [vars(finding) for finding in findings]}, indent=2))
    else:
        typer.echo(table(f"The upstream {name}", ((mark(each), each.name, each.found) for each in findings)))
        typer.echo(f"s3prl's heads {'cannot' if broken else 'can'} be trained on it.")
    return int(broken)
