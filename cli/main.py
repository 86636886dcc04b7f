"""The `robustdistiller` command: one file per sub-command, each parses, calls a room and prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version

import click
import typer
from typer.core import TyperGroup

from robustdistiller.cli.command import UsageError, usage_sentence
from robustdistiller.common.errors import USER_ERROR, run_command
from robustdistiller.common.installation import PACKAGE
from robustdistiller.common.names import did_you_mean

#: Sub-commands in the groups that `--help` shows: what each does. `robustdistiller.cli.NAME` is imported when called.
GROUPS = {
    "Make a student": {
        "quickstart": "Distil a plain and a robust student of the embedded teacher, score them in noise and rooms.",
        "distill": "Distil a small student from a large teacher, by a recipe.",
        "groups": "Find groups of similar layers in a teacher, to distil from their means.",
        "merge": "Write the weighted mean of two students of one shape.",
        "run-page": "Write a page of a distillation run: losses, validation, cost, settings.",
        "agreement": "Show whether feature distance and linear probe rank students alike.",
    },
    "Use a model": {
        "models": "List the models that are known by name.",
        "inspect": "Say what a checkpoint is, without running anything in it.",
        "convert": "Write a checkpoint for s3prl, transformers, torchaudio or DPHuBERT's code.",
        "publish": "Write a student that AutoModel loads, with a model card, to a folder or the Hub.",
        "export": "Write a checkpoint for ONNX Runtime or torch.export, and check what it computes.",
        "extract": "Write the features of a folder of audio.",
        "profile": "Measure parameters, MACs, real-time factor and memory.",
    },
    "Score on SUPERB": {
        "check": "Try an upstream on every task, on toy corpora, and compare with stock s3prl.",
        "prepare": "Check a task's data, and make the files that s3prl needs.",
        "evaluate": "Train and score heads of one model on some tasks, your own among them.",
        "sweep": "Run upstreams x tasks x conditions x seeds, continued where it stopped.",
        "clean": "Delete what a sweep does not need any more: heads that lost, features, logs.",
    },
    "Read results": {
        "leaderboard": "Show measured systems beside published ones: tables, plots, one page.",
        "compare": "Compare two systems cell by cell, with paired tests.",
        "results": "Share records through a folder or a dataset on the Hub.",
        "submit-pack": "Write SUPERB's submission archive, and score it again.",
    },
    "Look at what is here": {
        "doctor": "Say what works on this machine, and how to get what does not.",
        "data": "Say what lies in folders of noise, rooms and speech.",
        "listen": "Write a page of speech under conditions, to look at and listen to.",
    },
}
COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}


@contextmanager
def _in_one_sentence(ctx: click.Context) -> Iterator[None]:
    """What cannot be parsed ends the command with a sentence in the place of the parser's box."""
    try:
        yield
    except UsageError as error:
        typer.secho(usage_sentence(error), fg="red", err=True)
        ctx.exit(USER_ERROR)


class _Commands(TyperGroup):
    """Lists sub-commands without importing them: `--help` should not wait for PyTorch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        listed = click.Command(cmd_name, help=COMMANDS[cmd_name])
        listed.rich_help_panel = next(title for title, group in GROUPS.items() if cmd_name in group)
        return listed

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args:
            return super().parse_args(ctx, args)  # the help
        with _in_one_sentence(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context):
        with _in_one_sentence(ctx):  # of a sub-command too
            return super().invoke(ctx)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'{did_you_mean(args[0], COMMANDS)}")
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(name), rest


def load(name: str) -> click.Command:
    """The sub-command of that name."""
    function = name.replace("-", "_")
    found = getattr(import_module(f"robustdistiller.cli.{function}"), function)
    single = typer.Typer(add_completion=False)
    single.command(name, help=f"{COMMANDS[name]}\n\n{found.__doc__}")(found)
    return typer.main.get_command(single)


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PACKAGE} {version(PACKAGE)}")
        raise typer.Exit


@app.callback()
def _options(
    _: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """
    Small speech encoders that survive noise and reverberation: distil them, score them on SUPERB, compare them.

    \b
      robustdistiller quickstart            # all of it on embedded data, offline
      robustdistiller doctor                # what works here, what to install
      robustdistiller distill --list        # recipes
      robustdistiller COMMAND --help        # each with examples

    Exit status: 0 all fine; 1 something ran and failed; 2 something has to be changed first; 130 interrupted.
    """


def main() -> None:
    """Entry point of the console script `robustdistiller`."""
    sys.exit(run_command("robustdistiller", app))


def run_downstream() -> None:
    """Entry point of the console script `run_downstream.py`."""
    sys.exit(run_command("run_downstream.py", lambda: import_module("robustdistiller.eval.run.launcher").main()))
