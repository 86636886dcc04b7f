"""Hierarchical clustering of layers from a similarity matrix, free or into runs of successive layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy.cluster.hierarchy
from scipy.spatial.distance import squareform

from robustdistiller.common.settings import SettingsError

# Dissimilarity of two clusters from those of their layers, for runs of layers; scipy knows the same names.
_LINKAGES = {"average": np.mean, "complete": np.max, "single": np.min}


def cluster_layers(
    similarity: np.ndarray,
    count: int,
    linkage: str = "average",
    contiguous: bool = False,
    layers: Sequence[int] | None = None,
) -> tuple[list[list[int]], np.ndarray]:
    """Agglomerative clustering of layers with dissimilarity 1 - similarity.

    The same matrix always gives the same groups: of equally similar clusters, scipy's order decides, and with
    `contiguous` the lowest layers come first.

        Args: similarity: (L, L), symmetric, 1 on the diagonal. count: groups, 1 to L. linkage: `average`, `complete` or
        `single`. Ward's is not offered: it needs points in space. contiguous: merge neighbours only. A merge can then
        be at a lower dissimilarity than one before it; the tree gives it the height of that one, so that heights never
        fall. layers: numbers of the rows, ascending; `None` counts from 1.

    Returns:
        The groups, each ascending, in the order of their first layer; and the tree, (L - 1, 4) as scipy's `linkage`.
    """
    size = len(similarity)
    layers = range(1, size + 1) if layers is None else layers
    if not 1 <= count <= size:
        raise SettingsError(f"{count} groups of {size} layers: expected a count from 1 to {size}")
    dissimilarity = np.clip(1 - (similarity + similarity.T) / 2, 0, None)
    np.fill_diagonal(dissimilarity, 0)
    if contiguous or size == 1:
        tree = _contiguous_tree(dissimilarity, linkage)
    else:
        tree = scipy.cluster.hierarchy.linkage(squareform(dissimilarity), linkage)
    members = {leaf: [layer] for leaf, layer in enumerate(layers)}
    for step, (one, other) in enumerate(tree[: size - count, :2].astype(int).tolist()):
        members[size + step] = sorted(members.pop(one) + members.pop(other))
    return sorted(members.values()), tree


def _contiguous_tree(dissimilarity: np.ndarray, linkage: str) -> np.ndarray:
    size, height, tree = len(dissimilarity), 0.0, []
    runs = [(leaf, [leaf]) for leaf in range(size)]
    while len(runs) > 1:
        heights = [_LINKAGES[linkage](dissimilarity[np.ix_(low[1], high[1])]) for low, high in pairwise(runs)]
        at = int(np.argmin(heights))
        height = max(height, float(heights[at]))
        (low, leaves), (high, more) = runs[at : at + 2]
        tree.append([min(low, high), max(low, high), height, len(leaves) + len(more)])
        runs[at : at + 2] = [(size + len(tree) - 1, leaves + more)]
    return np.array(tree, dtype=np.float64).reshape(-1, 4)
