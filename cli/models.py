"""`robustdistiller models`: the models that are known by name."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.console import Console

from robustdistiller.cli.command import command
from robustdistiller.cli.parameters import AsJson
from robustdistiller.cli.printing import new_table


@command()
def models(as_json: AsJson = False) -> None:
    """
    \b
      robustdistiller models
      robustdistiller models --json | jq '.[] | select(.path) | .name'
      robustdistiller inspect robustdistiller_mini

    Wherever a model is asked for, these names do, and so does any org/name[@revision] of a readable model on the
    Hugging Face Hub, a path or a URL. A dash is what its publisher does not say.
    """
    from robustdistiller.upstream.pretrained.names import ModelName
    from robustdistiller.upstream.pretrained.registry import MODELS
    from robustdistiller.upstream.pretrained.resolve import find_local

    found = {name: find_local(ModelName("hub" if "/" in name else "registered", name)) for name in MODELS}
    if as_json:
        rows = [
            {"name": name, **dataclasses.asdict(model), "url": model.url, "path": found[name] and str(found[name])}
            for name, model in MODELS.items()
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    rows = []
    for name, model in MODELS.items():
        size = "-" if model.size_mb is None else f"{model.size_mb:g}"
        here = "yes" if found[name] else "no"
        rows.append((name, size, model.licence or "-", model.teacher or "-", here, model.about))
    table = new_table("", ["name", "MB", "licence", "teacher", "here", "what it is"], rows=rows)
    table.columns[0].no_wrap = True
    Console(width=None if Console().width >= 120 else 120).print(table)
