"""Clusters of layers: against scipy, known trees, runs of layers, refusals."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import scipy.cluster.hierarchy
from scipy.spatial.distance import squareform

from robustdistiller.pretrain import SettingsError
from robustdistiller.pretrain.teacher.groups.clustering import cluster_layers

LINKAGES = ["average", "complete", "single"]


def random_similarity(size: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(0, 1, (size, size))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1)
    return values


def blocks(*groups: list[int], within: float = 0.9, between: float = 0.2) -> np.ndarray:
    """Layers numbered from 1, alike within a group only."""
    size = max(max(group) for group in groups)
    values = np.full((size, size), between)
    for group in groups:
        rows = np.array(group) - 1
        values[np.ix_(rows, rows)] = within
    np.fill_diagonal(values, 1)
    return values


@pytest.mark.parametrize("linkage", LINKAGES)
@pytest.mark.parametrize("contiguous", [False, True])
def test_groups_that_are_there_are_found(linkage: str, contiguous: bool) -> None:
    found, _ = cluster_layers(blocks([1, 2], [3, 4, 5], [6]), 3, linkage, contiguous)
    assert found == [[1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("linkage", LINKAGES)
def test_every_cut_is_scipys(linkage: str) -> None:
    for seed in range(5):
        similarity = random_similarity(9, seed)
        tree = scipy.cluster.hierarchy.linkage(squareform(1 - similarity, checks=False), linkage)
        for count in range(1, 10):
            labels = scipy.cluster.hierarchy.fcluster(tree, count, "maxclust")
            expected = sorted(sorted(int(row) + 1 for row in np.flatnonzero(labels == label)) for label in set(labels))
            found, found_tree = cluster_layers(similarity, count, linkage)
            assert found == expected and len(found) == count
            np.testing.assert_allclose(found_tree, tree)


def test_linkages_differ() -> None:
    # A chain: 1 2 3 4 are each like the next one; 5 and 6 are a little less alike.
    similarity = np.full((6, 6), 0.1)
    for one, other, value in [(0, 1, 0.9), (1, 2, 0.88), (2, 3, 0.86), (4, 5, 0.7), (3, 4, 0.6)]:
        similarity[one, other] = similarity[other, one] = value
    np.fill_diagonal(similarity, 1)
    assert cluster_layers(similarity, 2, "single")[0] == [[1, 2, 3, 4], [5, 6]]
    assert cluster_layers(similarity, 3, "complete")[0] == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("linkage", LINKAGES)
def test_contiguous_groups_are_runs_and_otherwise_need_not_be(linkage: str) -> None:
    similarity = blocks([1, 4], [2, 3])
    assert cluster_layers(similarity, 2, linkage)[0] == [[1, 4], [2, 3]]
    found, tree = cluster_layers(similarity, 3, linkage, contiguous=True)
    assert found == [[1], [2, 3], [4]]
    assert np.all(np.diff(tree[:, 2]) >= 0)
    for seed in range(5):
        found, tree = cluster_layers(random_similarity(10, seed), 4, linkage, contiguous=True)
        assert len(found) == 4
        assert list(chain(*found)) == list(range(1, 11))  # in order, so every group is a run
        assert scipy.cluster.hierarchy.is_valid_linkage(tree) and scipy.cluster.hierarchy.is_monotonic(tree)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_contiguous_changes_nothing_where_clusters_are_runs_anyway(linkage: str) -> None:
    places = np.array([0.0, 0.1, 0.25, 0.5, 0.9, 0.95])
    similarity = 1 - np.abs(places[:, None] - places[None, :])
    for count in range(1, 7):
        free, tree = cluster_layers(similarity, count, linkage)
        runs, runs_tree = cluster_layers(similarity, count, linkage, contiguous=True)
        assert free == runs
        np.testing.assert_allclose(runs_tree[:, 2:], tree[:, 2:])


def test_layers_have_their_numbers_and_groups_are_ordered_by_their_first() -> None:
    similarity = blocks([1, 3], [2], [4])
    found, _ = cluster_layers(similarity, 3, layers=[2, 5, 6, 9])
    assert found == [[2, 6], [5], [9]]


@pytest.mark.parametrize("contiguous", [False, True])
def test_as_many_groups_as_asked_whatever_the_ties(contiguous: bool) -> None:
    for count in range(1, 6):
        found, _ = cluster_layers(np.ones((5, 5)), count, contiguous=contiguous)
        assert len(found) == count and sorted(chain(*found)) == [1, 2, 3, 4, 5]
        assert found == cluster_layers(np.ones((5, 5)), count, contiguous=contiguous)[0]


def test_one_layer_is_one_group() -> None:
    found, tree = cluster_layers(np.ones((1, 1)), 1, layers=[4])
    assert found == [[4]] and tree.shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 4}, "4 groups of 3 layers: expected a count from 1 to 3"),
        ({"count": 0}, "0 groups of 3 layers"),
    ],
)
def test_refusals(arguments: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        cluster_layers(**{"similarity": blocks([1, 2], [3]), **arguments})
