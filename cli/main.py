"""The `robustdistiller` command: one file per sub-command, each parses, calls a room and prints."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version

import click
import typer
from typer.core import TyperGroup

from robustdistiller.common.installation import PACKAGE, run_command
from robustdistiller.common.names import did_you_mean

#: Sub-command to the function `robustdistiller.cli.NAME:NAME` and what it does; imported when it is called.
COMMANDS = {
    "quickstart": "Run the main job on the embedded data: two students, their scores in noise and rooms, the table.",
    "distill": "Distil a small student from a large teacher, by a recipe.",
    "merge": "Write the weighted mean of two students of one shape, between clean and noisy for instance.",
    "groups": "Find groups of similar layers in a teacher, to distil from their means.",
    "agreement": "Show whether feature distance and linear probe rank the students of some runs alike.",
    "convert": "Write a checkpoint for s3prl, transformers, torchaudio or DPHuBERT's code, or for this package.",
    "export": "Write a checkpoint for ONNX Runtime (float32, int8) or torch.export, and check what the file computes.",
    "extract": "Write the features of a folder of audio, one file each.",
    "data": "Say what lies in folders of noise, rooms and speech, what training takes of them, which files are no use.",
    "prepare": "Look at a SUPERB task's data, say what is missing, make the files that s3prl needs.",
    "sweep": "Run a benchmark sweep: upstreams x tasks x conditions x seeds, continued where it stopped.",
    "profile": "Measure what an upstream costs: parameters, MACs, real-time factor, memory.",
    "table": "Make tables and plots from records.",
    "leaderboard": "Show measured systems beside published ones: tables, CSV, LaTeX, one HTML page.",
    "compare": "Compare two systems cell by cell, with intervals and paired tests.",
    "submit-pack": "Write SUPERB's submission archive, and score it again from the archive.",
    "models": "List the models that are known by name, and which of them are on this machine.",
    "inspect": "Say what a checkpoint is, of whatever kind, without running anything in it.",
    "doctor": "Say what works on this machine, and how to get what does not.",
}


class _Commands(TyperGroup):
    """Lists sub-commands without importing them: `--help` should not wait for PyTorch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return click.Command(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'{did_you_mean(args[0], COMMANDS)}")
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(name), rest


def load(name: str) -> click.Command:
    """The sub-command of that name.

    >>> load("doctor").name
    'doctor'
    """
    single = typer.Typer(add_completion=False)
    single.command(name)(
        getattr(import_module(f"robustdistiller.cli.{name.replace('-', '_')}"), name.replace("-", "_"))
    )
    return typer.main.get_command(single)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    help="Small speech encoders that survive noise and reverberation: distil them, score them on SUPERB, compare them.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PACKAGE} {version(PACKAGE)}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version of this package."
    ),
) -> None:
    pass


def main() -> None:
    """Entry point of the console script `robustdistiller`."""
    sys.exit(run_command("robustdistiller", app))


def run_downstream() -> None:
    """Entry point of the console script `run_downstream.py`."""

    def launch() -> int:
        from robustdistiller.eval.run.launcher import main as launcher

        return launcher()

    sys.exit(run_command("run_downstream.py", launch))
