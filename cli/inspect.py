"""``robustdistiller inspect``: says what a checkpoint is, without running anything in it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import AsJson, Model, NumHeads
from robustdistiller.cli.printing import say

if TYPE_CHECKING:
    from robustdistiller.upstream.checkpoints.inspection import Inspection

_SAFE = {True: "yes", False: "NO", None: "not known"}


@command()
def inspect(
    model: Model,
    as_json: AsJson = False,
    num_heads: NumHeads = None,
) -> int:
    """
    \b
      robustdistiller inspect student.ckpt
      robustdistiller inspect org/name@main --json

    The exit status is 1 if no encoder can be loaded from it.
    """
    from robustdistiller.upstream import resolve
    from robustdistiller.upstream.pretrained.models import inspect_model  # slow to import

    try:
        found = inspect_model(resolve(model), num_heads)
    except (OSError, ValueError) as error:  # no model of that name is to be had
        found = dataclasses.replace(inspect_model(Path(model), num_heads), error=str(error))
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, default=str))
    else:
        show(found, Console())
    return not found.readable


def show(found: Inspection, console: Console) -> None:
    """Print what was found."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(found):
        table.add_row(name, Text(value))
    console.print(table)
    if found.error:
        say(console, f"\nCannot be used: {found.error}", style="red")
    if found.looked_for:
        say(console, "Looked for:", *(f"  {layout}" for layout in found.looked_for))
    say(console, *(f"  {line}" for line in found.commands))


def _rows(found: Inspection):
    yield "path", f"{found.path} ({found.size_bytes / 1e6:,.1f} MB)"
    yield "format", f"{found.format} ({found.about})" if found.format else "unknown"
    safe = _SAFE[found.safe]
    if found.safe and found.not_built:
        safe += f"; {len(found.not_built)} classes in it were left unbuilt: {', '.join(found.not_built)}"
    yield "safe", safe
    if found.config is not None:
        yield "architecture", found.architecture
        heads = f", of which {found.head_parameters:,} in prediction heads" if found.head_parameters else ""
        yield "parameters", f"{found.parameters:,}{heads}"
        yield "layers", f"{found.layers}, hidden size {found.hidden_size}"
        yield "heads", _each(found.heads)
        yield "feed-forward", _each(found.config["ffn_dim"])
        if found.prediction_layers:
            yield "predicts", f"teacher layers {', '.join(map(str, found.prediction_layers))}"
        yield "input", "16 kHz, " + ("normalised per utterance" if found.normalizes_input else "as it is")
    for number, sentence in enumerate(found.guesses):
        yield "" if number else "guessed", sentence
    for number, sentence in enumerate(found.holds):
        yield "" if number else "also holds", sentence
    for number, sentence in enumerate(found.notes):
        yield "" if number else "notes", sentence
    for number, (key, value) in enumerate(found.metadata.items()):
        yield "" if number else "metadata", f"{key}: {value if isinstance(value, str) else json.dumps(value)}"


def _each(values) -> str:
    values = values if isinstance(values, (list, tuple)) else [values]
    return str(values[0]) if len(set(values)) == 1 else ", ".join(map(str, values))
