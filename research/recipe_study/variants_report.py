"""Tables of what a student loses when it is computed in another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.recipe_study.conditions import CONDITIONS
from research.recipe_study.tasks import TASKS
from research.tables import markdown_table


def losses(cells: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Points lost against the reference by task and condition, positive where it is worse.

    >>> losses({"words/clean": {"difference": -1.5}, "prompts/clean": {"difference": -1.5}})
    {'words/clean': 1.5, 'prompts/clean': -1.5}
    """
    return {key: -TASKS[key.partition("/")[0]].sign * cell["difference"] + 0.0 for key, cell in cells.items()}


def report(results: Sequence[dict[str, Any]]) -> str:
    """Tables of all results: scores by task and condition, losses, sizes."""
    parts = ["# Students computed in other ways\n\nMade from the JSON files beside it, see [README.md](README.md)."]
    for result in results:
        parts.append(
            f"## {result['name']}\n\n`{result['command']}`, {result['date']}, heads of seed {result['seed']}, student "
            f"sha256 {result['checkpoint'][:12]}, "
            + ", ".join(f"{package} {number}" for package, number in result["versions"].items())
        )
        found = result["variants"]
        header = ["way", "MB", "latency, ms", "error of features", "mean loss", "worst loss", "where"]
        header, rows = [*header, "lose 1 point or more"], []
        for entry in found.values():
            lost = losses(entry["cells"])
            worst = max(lost, key=lost.get)
            error = np.median(list(entry["feature_error"].values()))
            most = max(entry["feature_error"].values())
            spread = entry["cells"][worst]["standard_error"]
            rows.append([
                entry["title"], f"{entry['file'].get('megabytes', '')}", f"{entry['file'].get('latency_ms', '')}",
                f"{error:.1e} (to {most:.1e})",
                f"{np.mean(list(lost.values())):.2f}", f"{lost[worst]:.2f} ± {spread:.2f}",
                worst if lost[worst] else "", f"{sum(value >= 1 for value in lost.values())} of {len(lost)}",
            ])  # fmt: skip
        parts.append(markdown_table(header, rows))
        tasks = dict.fromkeys(key.partition("/")[0] for key in next(iter(found.values()))["cells"])
        for task in tasks:
            names = [key for key in next(iter(found.values()))["cells"] if key.startswith(f"{task}/")]
            header, rows = ["way", *(CONDITIONS[key.partition("/")[2]].title for key in names)], []
            for entry in found.values():
                cells = [entry["cells"][key] for key in names]
                rows.append([entry["title"], *(f"{c['score']:.1f} ({c['difference']:+.1f})" for c in cells)])
            parts.append(f"{TASKS[task].title}: {TASKS[task].metric}, % (difference from the first row)")
            parts.append(markdown_table(header, rows))
    return "\n\n".join(parts) + "\n"
