"""HDBSCAN on the voxel grid: the `hdbscan` package's tree over the edges between neighbours.

HDBSCAN proper takes voxels as a bag of points and looks for neighbours in embedding
space, which costs more than the network. But objects are connected, so the minimum
spanning tree need only use edges between voxels that share a face: two or three per
voxel, found at once. Far apart objects with one embedding are then told apart too,
and the minimum cluster size counts voxels of one object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from spoco_zoo.segment.cluster import portable
from spoco_zoo.segment.cluster.meanshift import mark_foreground

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spoco_zoo.config import ClusteringConfig
    from spoco_zoo.segment.cluster.tensor_field import TensorField

__all__ = ["clusters", "spanning_tree"]

APART = 1e9  # distance between parts of the foreground that do not touch
TINY = 1e-9  # a sparse graph takes 0 for "no edge"


def clusters(
    field: TensorField, config: ClusteringConfig, background: tuple[float, ...] | None
) -> NDArray[np.int32]:
    """HDBSCAN clusters of a block, int32 ([Z,] Y, X), 0 where it is background.

    The selection epsilon is the bandwidth. What HDBSCAN calls noise is given to the
    touching cluster with the nearest mean embedding; foreground that touches none is
    one cluster of its own, and so is all of it where there is noise only.
    """
    from hdbscan._hdbscan_linkage import label as link
    from hdbscan._hdbscan_tree import compute_stability, condense_tree, get_clusters

    labels = mark_foreground(field, config, background)
    flat = labels.reshape(-1)
    where = np.flatnonzero(flat)
    if len(where) <= max(2, config.min_size):
        return labels
    flat[where] = np.arange(1, len(where) + 1)
    edges, lengths = reachability(field, labels, len(where), config.min_samples)
    tree = link(spanning_tree(edges, lengths, len(where)))
    condensed = condense_tree(tree, max(2, config.min_size))
    found = get_clusters(
        condensed,
        compute_stability(condensed),
        "eom",
        allow_single_cluster=False,
        cluster_selection_epsilon=config.bandwidth,
    )[0]
    if not (found >= 0).any():
        flat[where] = 1
        return labels
    flat[where] = found + 1
    noise = np.zeros(labels.shape, bool)
    noise.reshape(-1)[where] = found < 0
    count = int(found.max()) + 1
    portable.grow(field, labels, noise, portable.measure(field, labels, count))
    labels[noise] = count + 1
    return labels


def reachability(
    field: TensorField, numbers: NDArray[np.int32], n: int, min_samples: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Edges between foreground voxels 1..n, int32 (m, 2) from 0, and their lengths (m,).

    The length is HDBSCAN's mutual reachability: the distance of the embeddings, or the
    core distance of either end if that is larger. The core distance is that to the
    nearest neighbour number `min_samples`, among those that share a face.
    """
    ends, lengths = [], []
    beside = np.full((n, 2 * numbers.ndim), np.inf, np.float32)
    for axis in range(numbers.ndim):
        for slab in portable.slabs(numbers.shape):
            low = max(slab.start - 1, 0) if axis == 0 else slab.start
            part = np.moveaxis(numbers[low : slab.stop], axis, 0)
            both = (part[1:] > 0) & (part[:-1] > 0)
            length = field.steps(slice(low, slab.stop), axis, both)
            first, second = part[:-1][both] - 1, part[1:][both] - 1
            beside[first, 2 * axis], beside[second, 2 * axis + 1] = length, length
            ends.append(np.stack([first, second], axis=1))
            lengths.append(length)
    beside.sort(axis=1)
    last = np.minimum(np.isfinite(beside).sum(1), min_samples) - 1
    core = np.where(last >= 0, beside[np.arange(n), np.maximum(last, 0)], 0)
    edges, direct = np.concatenate(ends), np.concatenate(lengths)
    reach = np.maximum(direct, np.maximum(core[edges[:, 0]], core[edges[:, 1]]))
    return edges, reach.astype(np.float64)


def spanning_tree(
    edges: NDArray[np.int32], lengths: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Edges (a, b, length) of a minimum spanning tree, shortest first, float64 (n - 1, 3)."""
    graph = coo_array((lengths + TINY, (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    parts = connected_components(tree, directed=False)[1]
    first = np.unique(parts, return_index=True)[1]
    joints = np.stack([first[:-1], first[1:], np.full(len(first) - 1, APART)], axis=1)
    rows = np.concatenate([np.stack([tree.row, tree.col, tree.data], axis=1), joints])
    return np.ascontiguousarray(rows[np.argsort(rows[:, 2], kind="stable")])
