"""The picture of a grouping of layers: the similarity matrix and the tree with its cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.cluster.hierarchy

from robustdistiller.common.files import write_atomically
from robustdistiller.pretrain.teacher.groups.find import LayerGroups

# Okabe and Ito's palette without yellow: told apart with the common colour-vision deficiencies.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_GREY = "#999999"
_MEASURES = {"cka": "linear CKA", "cosine": "mean cosine", "cca": "SVCCA"}


def draw_groups(found: LayerGroups, picture: str | Path) -> None:
    """Draw the similarity matrix with its values, and the tree with the cut that makes the groups.

    Args:
        found: from `find_groups` or `LayerGroups.load`.
        picture: PNG to write.

    >>> from robustdistiller.pretrain.teacher.groups.find import GroupsConfig, cluster_layers
    >>> similarity = np.array([[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]])
    >>> groups, tree = cluster_layers(similarity, 2)
    >>> draw_groups(LayerGroups(groups, [1, 2, 3], similarity, tree, GroupsConfig(count=2), {}), "groups.png")
    >>> Path("groups.png").read_bytes()[1:4]
    b'PNG'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # no pyplot: its state is global

    side = max(3.6, 0.46 * len(found.layers) + 0.8)
    figure = Figure(figsize=(2.1 * side + 0.6, side), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    matrix, tree = figure.subplots(1, 2)
    colours = {layer: _COLOURS[index % len(_COLOURS)] for index, group in enumerate(found.groups) for layer in group}
    _draw_matrix(matrix, found, colours)
    _draw_tree(tree, found, colours)
    for axes in (matrix, tree):
        for label in (*axes.get_xticklabels(), *(axes.get_yticklabels() if axes is matrix else ())):
            label.set_color(colours[int(label.get_text())])
            label.set_fontweight("bold")
    write_atomically(picture, lambda file: figure.savefig(file, format="png"))


def _draw_matrix(axes, found: LayerGroups, colours: dict[int, str]) -> None:
    values, size = found.similarity, len(found.layers)
    lowest = float(values.min())
    image = axes.imshow(values, cmap="cividis", vmin=min(lowest, 0.99), vmax=1.0)
    digits = 2 if lowest < 0.9 else 3
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        axes.text(column, row, f"{value:.{digits}f}", ha="center", va="center", color=ink, fontsize=9 - digits + 1)
    for group in found.groups:
        rows = [found.layers.index(layer) for layer in group]
        for first, last in _runs(rows):
            edge = {"fill": False, "edgecolor": colours[group[0]], "linewidth": 3, "clip_on": False, "zorder": 3}
            axes.add_patch(_rectangle(first, last, edge))
    axes.set_xticks(range(size), [str(layer) for layer in found.layers])
    axes.set_yticks(range(size), [str(layer) for layer in found.layers])
    axes.set_xlabel("layer")
    axes.set_ylabel("layer")
    heard = found.measured_on
    on = f", {heard['utterances']} utterances, {heard['frames']:,} frames" if heard else ""
    axes.set_title(f"{_MEASURES[found.settings.similarity]}{on}", fontsize=10)


def _rectangle(first: int, last: int, style: dict):
    from matplotlib.patches import Rectangle

    return Rectangle((first - 0.5, first - 0.5), last - first + 1, last - first + 1, **style)


def _runs(rows: list[int]) -> list[tuple[int, int]]:
    """First and last of each stretch of successive rows."""
    starts = [row for row in rows if row - 1 not in rows]
    ends = [row for row in rows if row + 1 not in rows]
    return list(zip(starts, ends))


def _draw_tree(axes, found: LayerGroups, colours: dict[int, str]) -> None:
    size, count = len(found.layers), len(found.groups)
    how = f"{found.settings.linkage} linkage{', successive layers only' * found.settings.contiguous}"
    axes.set_title(f"{how}; dashed: cut into {count} group{'s' * (count > 1)}", fontsize=10)
    axes.set_xlabel("layer")
    axes.set_ylabel("1 - similarity")
    axes.spines[["top", "right"]].set_visible(False)
    if size == 1:
        axes.set_xticks([0], [str(found.layers[0])])
        return
    links, groups_below = _ordered(found)
    scipy.cluster.hierarchy.dendrogram(
        links,
        ax=axes,
        labels=[str(layer) for layer in found.layers],
        link_color_func=lambda node: colours[groups_below[node][0]] if len(groups_below[node]) == 1 else _GREY,
        leaf_rotation=0,
        leaf_font_size=10,
    )
    for lines in axes.collections:
        lines.set_linewidth(2.2)
    heights = [0.0, *found.linkage[:, 2].tolist(), 1.1 * float(found.linkage[-1, 2])]
    cut = (heights[size - count] + heights[size - count + 1]) / 2
    axes.axhline(cut, color="black", linestyle="--", linewidth=1)
    axes.set_ylim(0, max(1.12 * heights[-2], 1e-6))


def _ordered(found: LayerGroups) -> tuple[np.ndarray, dict[int, list[int]]]:
    """The tree with the lower layers to the left, and per node the first layers of the groups below it."""
    size, links = len(found.layers), found.linkage.copy()
    first_of = {layer: group[0] for group in found.groups for layer in group}
    lowest = dict(enumerate(found.layers))
    below = {leaf: [first_of[layer]] for leaf, layer in enumerate(found.layers)}
    for step, link in enumerate(links):
        pair = sorted((int(link[0]), int(link[1])), key=lambda node: lowest[node])
        link[:2] = pair
        lowest[size + step] = lowest[pair[0]]
        below[size + step] = sorted({*below[pair[0]], *below[pair[1]]})
    return links, below
