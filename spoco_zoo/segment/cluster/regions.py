"""Tables of regions: one row for each, joined and dropped without a look at voxels.

Part of the ``spoco_cluster.py`` of a bundle, after ``portable.py``; numpy and scipy alone.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = [
    "Regions",
    "absorb_small",
    "alike",
    "components",
    "joined_pairs",
    "renumbering",
    "unique_pairs",
]


class Regions:
    """Table of regions: voxel counts (n,) and sums of embeddings (n, E), float64; row 0 unused."""

    def __init__(self, sizes, sums):
        self.sizes, self.sums = sizes, sums

    @property
    def means(self):
        """Mean embeddings, float32 (n, E)."""
        return (self.sums / np.maximum(self.sizes, 1)[:, None]).astype(np.float32)

    def add(self, ids, rows):
        """Count voxels; only the range of ids that occurs is touched, which is short in a slab."""
        low, high = int(ids.min()), int(ids.max()) + 1
        self.sizes[low:high] += np.bincount(ids - low)
        for channel in range(rows.shape[1]):
            self.sums[low:high, channel] += np.bincount(ids - low, rows[:, channel])

    def joined(self, table):
        """Rows that `table` maps to one number, added up."""
        columns = [np.bincount(table, column) for column in self.sums.T]
        return Regions(np.bincount(table, self.sizes), np.stack(columns, axis=1))


def components(pairs, n):
    """Number from 0 of the connected component of each of n nodes, in the order of first nodes."""
    graph = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int32)


def unique_pairs(first, second):
    """Unordered pairs of labels below 2**31 - 1, each once, smaller first, int64 (n, 2)."""
    span = max(int(first.max(initial=0)), int(second.max(initial=0))) + 1
    low, high = np.minimum(first, second).astype(np.int64), np.maximum(first, second)
    keys = np.unique(low * span + high)
    return np.stack([keys // span, keys % span], axis=1)


def joined_pairs(pairs, table):
    """Pairs of what `table` makes of the labels, without those that it joins."""
    both = table[pairs]
    both = both[both[:, 0] != both[:, 1]]
    return unique_pairs(both[:, 0], both[:, 1])


def alike(regions, pairs, bandwidth):
    """Table that joins touching regions whose mean embeddings are closer than `bandwidth`."""
    means = regions.means
    distance = ((means[pairs[:, 0]] - means[pairs[:, 1]]) ** 2).sum(1)
    # Label 0 has no pairs and comes first, so it stays 0.
    return components(pairs[distance < bandwidth**2], len(means))


def absorb_small(regions, pairs, min_size):
    """Table that gives each small region to the touching region with the nearest mean."""
    table = np.arange(len(regions.sizes), dtype=np.int32)
    while True:
        both = np.concatenate([pairs, pairs[:, ::-1]])
        both = both[regions.sizes[both[:, 0]] < min_size]
        if not len(both):
            return table
        means = regions.means
        distance = ((means[both[:, 0]] - means[both[:, 1]]) ** 2).sum(1)
        order = np.lexsort((both[:, 1], distance, both[:, 0]))
        first = order[np.r_[True, np.diff(both[order, 0]) > 0]]
        step = components(both[first], len(means))
        table, regions, pairs = step[table], regions.joined(step), joined_pairs(pairs, step)


def renumbering(keep):
    """Table that drops what is not kept, and row 0, and numbers the rest 1..n."""
    keep = np.r_[False, keep[1:]]
    return np.cumsum(keep, dtype=np.int32) * keep
