"""Writing the graph of an encoder as a program of ``torch.export``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robustdistiller.upstream.export.graph import EncoderGraph
from robustdistiller.upstream.export.quiet import quiet

NOTES = "robustdistiller.json"


def trace_program(graph: EncoderGraph) -> torch.export.ExportedProgram:
    """The graph as a program of any batch, of two frames or more (a dimension of one is another program).

    The exporter's notes on folders of this machine are taken out.
    """
    dynamic = torch.export.Dim.DYNAMIC
    with quiet():
        program = torch.export.export(
            graph,
            (torch.zeros(2, 2 * 16000), torch.tensor([2 * 16000, 16000])),
            dynamic_shapes={"waveforms": {0: dynamic, 1: dynamic}, "lengths": {0: dynamic}},
            strict=False,
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def save_program(program: torch.export.ExportedProgram, path: Path, notes: Mapping[str, Any]) -> None:
    """Write a program; its notes lie beside it in the archive."""
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={NOTES: json.dumps(notes)})


def load_program(path: str | Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A program that ``robustdistiller export --to torch`` wrote, ready to be called, and its notes.

    The module takes ``waveforms`` ``(batch, samples)`` and ``lengths`` ``(batch,)`` and returns the hidden states and
    their valid frames. ``torch.export.load`` reads the file without this package.
    """
    extra = {NOTES: ""}
    with quiet(), Path(path).open("rb") as file:
        program = torch.export.load(file, extra_files=extra)
    return program.module(), json.loads(extra[NOTES])
