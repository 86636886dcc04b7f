"""What was found about a teacher's layers: a few lines, files, and a picture."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.cluster.hierarchy

from robustdistiller.common.files import write_atomically, write_text
from robustdistiller.pretrain.teacher.groups.find import LayerGroups

# Okabe and Ito's palette without yellow: told apart with the common colour-vision deficiencies.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MEASURES = {"cka": "linear CKA", "cosine": "mean cosine", "cca": "SVCCA"}


def summary(found: LayerGroups) -> list[str]:
    """The groups and their similarities, a line each; the last line is a setting to paste."""
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
    """Write ``groups.png``, ``groups.yaml``, ``groups.json`` (everything) and ``similarity.csv``; returns the paths.

    ``groups.yaml`` is a recipe that builds on `base`, the name of a recipe or a file.
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


def draw_groups(found: LayerGroups, picture: Path) -> None:
    """Draw the similarity matrix with its values, and the tree with the cut that makes the groups, as PNG."""
    from matplotlib.figure import Figure  # no pyplot: its state is global

    side = max(3.6, 0.46 * len(found.layers) + 0.8)
    figure = Figure(figsize=(2.1 * side + 0.6, side), dpi=130, layout="constrained")
    matrix, tree = figure.subplots(1, 2)
    colours = {layer: _COLOURS[index % len(_COLOURS)] for index, group in enumerate(found.groups) for layer in group}
    _draw_matrix(matrix, found, colours)
    _draw_tree(tree, found)
    figure.canvas.draw()  # makes the labels
    for label in (*matrix.get_xticklabels(), *matrix.get_yticklabels(), *tree.get_xticklabels()):
        label.set_color(colours[int(label.get_text())])
        label.set_fontweight("bold")
    write_atomically(picture, lambda file: figure.savefig(file, format="png"))


def _draw_matrix(axes, found: LayerGroups, colours: dict[int, str]) -> None:
    from matplotlib.patches import Rectangle

    values, names = found.similarity, [str(layer) for layer in found.layers]
    lowest = float(values.min())
    image = axes.imshow(values, cmap="cividis", vmin=min(lowest, 0.99), vmax=1.0)
    digits = 2 if lowest < 0.9 else 3
    for (row, column), value in np.ndenumerate(values):
        ink = "black" if image.norm(value) > 0.5 else "white"
        axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", color=ink, fontsize=10 - digits)
    for first, last, colour in _runs(found, colours):
        size = last - first + 1
        axes.add_patch(Rectangle((first - 0.5, first - 0.5), size, size, fill=False, ec=colour, lw=3, clip_on=False))
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="layer", ylabel="layer")
    speech = found.measured_on
    on = f", {speech['utterances']} utterances, {speech['frames']:,} frames" if speech else ""
    axes.set_title(f"{_MEASURES[found.settings.similarity]}{on}", fontsize=10)


def _runs(found: LayerGroups, colours: dict[int, str]) -> list[tuple[int, int, str]]:
    """First and last row and colour of each stretch of successive layers of one group."""
    group_of = {layer: number for number, group in enumerate(found.groups) for layer in group}
    rows = [list(run) for _, run in groupby(range(len(found.layers)), lambda row: group_of[found.layers[row]])]
    return [(run[0], run[-1], colours[found.layers[run[0]]]) for run in rows]


def _draw_tree(axes, found: LayerGroups) -> None:
    size, count = len(found.layers), len(found.groups)
    how = f"{found.settings.linkage} linkage{', successive layers only' * found.settings.contiguous}"
    axes.set_title(f"{how}; dashed: cut into {count} group{'s' * (count > 1)}", fontsize=10)
    axes.set(xlabel="layer", ylabel="1 - similarity")
    axes.spines[["top", "right"]].set_visible(False)
    names = [str(layer) for layer in found.layers]
    if size == 1:
        axes.set_xticks([0], names)
        return
    links, lowest = found.linkage.copy(), list(range(size))
    for link in links:  # the lower layers to the left
        link[:2] = sorted(link[:2], key=lambda node: lowest[int(node)])
        lowest.append(lowest[int(link[0])])
    grey = {"color_threshold": 0, "above_threshold_color": "#666666"}
    scipy.cluster.hierarchy.dendrogram(links, ax=axes, labels=names, leaf_rotation=0, leaf_font_size=10, **grey)
    heights = [0.0, *links[:, 2].tolist(), 1.1 * float(links[-1, 2])]
    axes.axhline((heights[size - count] + heights[size - count + 1]) / 2, color="black", linestyle="--", linewidth=1)
    axes.set_ylim(0, max(1.12 * heights[-2], 1e-6))
