"""What was found about a teacher's layers, as files and in a few lines."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from robustdistiller.common.files import write_atomically, write_text
from robustdistiller.pretrain.teacher.groups.find import LayerGroups
from robustdistiller.pretrain.teacher.groups.plot import draw_groups


def summary(found: LayerGroups) -> list[str]:
    """The groups and their similarities, a line each; the last line is a setting to paste.

    >>> import numpy as np
    >>> from robustdistiller.pretrain.teacher.groups.find import GroupsConfig
    >>> groups = [[1, 2], [3]]
    >>> for line in summary(LayerGroups(groups, [1, 2, 3], np.eye(3), np.zeros((2, 4)), GroupsConfig(), {})):
    ...     print(line)
    group 1  layers 1, 2   similarity 0.000 within
    group 2  layer 3
    different groups: similarity 0.000
    targets.layers=[[1,2],[3]]
    """
    names = [f"layer{'s' * (len(group) > 1)} {', '.join(map(str, group))}" for group in found.groups]
    width = max(map(len, names))
    lines = []
    for number, (group, name) in enumerate(zip(found.groups, names), start=1):
        within = f"   similarity {found.similarity_within(group):.3f} within" if len(group) > 1 else ""
        lines.append(f"group {number}  {name:<{width}}{within}".rstrip())
    if len(found.groups) > 1:
        lines.append(f"different groups: similarity {found.similarity_between():.3f}")
    return [*lines, found.override()]


def write_report(found: LayerGroups, folder: Path, base: str) -> list[Path]:
    """Write ``groups.png``, ``groups.yaml`` (a recipe), ``groups.json`` (everything) and ``similarity.csv``.

    Args:
        found: the groups.
        folder: where to write.
        base: recipe that ``groups.yaml`` builds on, a name or a file.

    Returns:
        The paths, in this order.
    """
    written = [folder / name for name in ("groups.png", "groups.yaml", "groups.json", "similarity.csv")]
    picture, recipe, everything, matrix = written
    found.save(everything)
    write_text(recipe, _recipe(found, base))
    table = pd.DataFrame(found.similarity, pd.Index(found.layers, name="layer"), found.layers)
    write_atomically(matrix, lambda file: table.to_csv(file, float_format="%.6f"))
    draw_groups(found, picture)
    return written


def _recipe(found: LayerGroups, base: str) -> str:
    settings, measured_on = found.settings, found.measured_on
    if base.endswith((".yaml", ".yml")):
        base = str(Path(base).expanduser().resolve())  # the recipe lies in another folder than it was named from
    notes = measured_on["teacher"]
    return (
        f"about: distillation from {len(found.groups)} groups of similar teacher layers\n"
        "source: groups as in SKILL (arXiv 2402.16830), found by `robustdistiller groups`\n"
        f"base: {base}\n"
        "\n"
        f"# Found in {notes['file']}, SHA-256 {notes['sha256']}, on {measured_on['utterances']} utterances\n"
        f"# ({measured_on['seconds']:.0f} s, seed {measured_on['seed']}): {settings.similarity}, "
        f"{settings.linkage} linkage{', successive layers only' * settings.contiguous}.\n"
        "# They belong to this teacher: give its checkpoint as teacher.checkpoint=...\n"
        "targets:\n"
        f"  layers: {found.groups}\n"
    )
