"""The notebook runs from top to bottom; its outputs are those of such a run, small, and name no machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_hour.ipynb"
CELLS = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def _shown(cell: dict) -> str:
    return "".join(text for output in cell["outputs"] for text in output.get("text", []))


def _without_numbers(text: str) -> str:
    """Words alone: the last digits of scores depend on the processor."""
    return " ".join(re.sub(r"\d+(\.\d+)?", "#", text).split())


def test_its_cells_run_in_order_and_print_what_it_shows(tmp_path, monkeypatch, corpus, bridge, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("first_hour").mkdir()
    Path("first_hour/mini").symlink_to(corpus.root)  # which `build` finds finished
    names: dict[str, object] = {"__name__": "__main__"}
    capsys.readouterr()
    for number, cell in enumerate(CELLS, 1):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec", dont_inherit=True), names)
        assert _without_numbers(capsys.readouterr().out) == _without_numbers(_shown(cell))
    plt.close("all")
    frame = names["results"].frame
    assert (frame["items"] == 80).all() and frame["value"].between(20, 100).all()


def test_its_outputs_are_of_one_run_and_name_no_machine() -> None:
    assert NOTEBOOK.stat().st_size < 300_000
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    assert {output.get("name", output["output_type"]) for output in outputs} == {"stdout", "display_data"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not re.findall(r"(?<![\w.])[/~]\w\S*|\b[A-Z]:\\\S*", "".join(map(_shown, CELLS)))
