"""Objects chosen by their scores: which touching regions are one object, and which are none.

Touching regions, joined nearest first, form trees: at each node two of them become one.
One bandwidth for all cuts every tree at the same distance. Here a score, learned from annotated
images (``learn.py``), tells from embeddings and shape how well a node is likely to match an
object, and each tree is cut where that is best: a node stays whole if its score is at least
that of everything within it. What then has a score below `least` is dropped, unless it is
large: nobody takes a large object that is doubtful for nothing.

Everything that is scored follows from sums over the voxels of an object, so a block that
holds it whole finds what the whole image would. Part of the ``spoco_cluster.py`` of a
bundle, after ``portable.py``; numpy alone.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["Traits", "joined_nearest_first", "likelihood", "scored", "terms", "whole_nodes"]

LIMIT = 3.0  # standard deviations beyond which a property no longer changes the score


def scored(means, traits, scoring):
    """Table from regions to objects 1..n, numbered as their first regions; 0 for dropped ones.

    Parameters
    ----------
    means : ndarray
        float32 (n, E), the mean embeddings by which regions are joined; row 0 is unused.
    traits : Traits
        Of the same regions.
    scoring : dict
        `reach`, the distance of mean embeddings up to which regions are joined; `smallest`, the
        fewest voxels of an object; `least`, its lowest score if it has fewer voxels than `large`;
        and `centre` (8), `scale` (8) and `weights` (45) of `likelihood`.

    Returns
    -------
    ndarray
        int32 (n,).
    """
    nodes, traits = traits.as_tree(means, scoring["reach"])
    parts = [scoring[name] for name in ("centre", "scale", "weights")]
    scores = likelihood(traits.properties(), *parts)
    sizes = traits.sums[:, 0]
    scores[sizes < scoring["smallest"]] = 0
    kept = (scores > 0) & ((scores >= scoring["least"]) | (sizes >= scoring["large"]))
    owner = whole_nodes(nodes, scores, kept)[: len(means)]
    _, first, which = np.unique(owner, return_index=True, return_inverse=True)
    # Row 0 owns itself, and comes first in every order.
    return np.argsort(np.argsort(first)).astype(np.int32)[which]


class Traits:
    """Sums over the voxels and faces of regions; row 0 unused.

    Attributes
    ----------
    sums : ndarray
        float64 (n, 3 + E + D + D * D): voxels, distances from the background prototype, their
        squares, differences from it, positions, products of positions.
    far : ndarray
        float64 (n,), the largest distance from the background prototype.
    open, shared : ndarray
        float64 (n,), faces to the background, and to other regions.
    """

    def __init__(self, count, dim, ndim):
        self.dim, self.ndim = dim, ndim
        self.sums = np.zeros((count, 3 + dim + ndim + ndim * ndim))
        self.far, self.open, self.shared = np.zeros(count), np.zeros(count), np.zeros(count)
        self.seen = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]

    def add_voxels(self, ids, rows, background, places):
        """Count voxels by region (n,) with embeddings (n, E) and positions, D times (n,)."""
        apart = rows.astype(np.float64) - np.asarray(background)
        square = (apart**2).sum(1)
        distance = np.sqrt(square)
        np.maximum.at(self.far, ids, distance)
        places = [place.astype(np.float64) for place in places]
        products = [one * other for one in places for other in places]
        low, high = int(ids.min()), int(ids.max()) + 1
        columns = [np.ones(len(ids)), distance, square, *apart.T, *places, *products]
        for column, values in enumerate(columns):
            self.sums[low:high, column] += np.bincount(ids - low, values)

    def add_faces(self, first, second):
        """Count faces between different labels (n,), of which one may be 0."""
        count = len(self.far)
        empty = (first == 0) | (second == 0)
        self.open += np.bincount((first + second)[empty], minlength=count)
        low, high = np.minimum(first, second)[~empty], np.maximum(first, second)[~empty]
        self.shared += np.bincount(low, minlength=count) + np.bincount(high, minlength=count)
        self.seen.append(np.unique(low.astype(np.int64) * count + high, return_counts=True))

    def contacts(self):
        """Pairs of touching regions, int64 (p, 2), smaller first, and their shared faces (p,)."""
        keys, which = np.unique(np.concatenate([k for k, _ in self.seen]), return_inverse=True)
        faces = np.bincount(which, np.concatenate([n for _, n in self.seen]))
        return np.stack([keys // len(self.far), keys % len(self.far)], axis=1), faces

    def as_tree(self, means, reach):
        """The tree of `joined_nearest_first`, and the traits of all of its nodes."""
        pairs, faces = self.contacts()
        nodes = joined_nearest_first(means, pairs, reach)
        return nodes, self.of_nodes(nodes, pairs, faces)

    def of_nodes(self, nodes, pairs, faces):
        """Traits of every node of a tree, regions first, see `joined_nearest_first`."""
        count, total = len(self.far), len(nodes)
        result = Traits(total, self.dim, self.ndim)
        for name in ("sums", "far", "open", "shared"):
            getattr(result, name)[:count] = getattr(self, name)
        parent = np.full(total, total)
        for node in range(count, total):
            parent[nodes[node]] = node
        inner = np.bincount(meeting(parent, pairs), faces, minlength=total + 1)
        for node in range(count, total):
            first, second = nodes[node]
            result.sums[node] = result.sums[first] + result.sums[second]
            result.far[node] = max(result.far[first], result.far[second])
            result.open[node] = result.open[first] + result.open[second]
            result.shared[node] = result.shared[first] + result.shared[second] - 2 * inner[node]
        return result

    def properties(self):
        """What scores rest on, float64 (n, 8), all the same wherever the object lies.

        Logarithm of the size in voxels; mean and largest distance from the background
        prototype; root-mean-square distance of the embeddings from their mean; logarithm of the
        outline, in faces, over that of a cube of this size; share of the outline that touches
        other regions; logarithm of the ratio of the longest to the shortest half axis of the
        ellipsoid with the same moments; logarithm of the size over that of this ellipsoid.
        """
        size = np.maximum(self.sums[:, 0], 1)
        mean = self.sums / size[:, None]
        apart, place, products = np.split(mean[:, 3:], [self.dim, self.dim + self.ndim], axis=1)
        spread = np.sqrt(np.maximum(mean[:, 2] - (apart**2).sum(1), 0))
        moments = products.reshape(-1, self.ndim, self.ndim) - place[:, :, None] * place[:, None]
        # A voxel is a cube and not a point: it has a variance of 1/12 along every axis.
        squares = np.maximum(np.linalg.eigvalsh(moments), 0) + 1 / 12
        ball = math.pi ** (self.ndim / 2) / math.gamma(self.ndim / 2 + 1)
        ellipsoid = ball * np.sqrt(((self.ndim + 2) * squares).prod(1))
        outline = np.maximum(self.open + self.shared, 1)
        cube = 2 * self.ndim * size ** (1 - 1 / self.ndim)
        longest = np.log(squares[:, -1] / squares[:, 0]) / 2
        shape = [np.log(outline / cube), self.shared / outline, longest, np.log(size / ellipsoid)]
        return np.stack([np.log(size), mean[:, 1], self.far, spread, *shape], axis=1)


def joined_nearest_first(means, pairs, reach):
    """Regions joined by the distance of their own means (single linkage), as a tree.

    What is joined up to any distance is what `alike` joins with it as bandwidth.

    Returns
    -------
    ndarray
        int64 (n + joins, 2), the two nodes that each node is made of; -1 for the n regions.
    """
    distance = ((means[pairs[:, 0]] - means[pairs[:, 1]]) ** 2).sum(1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], distance))
    top, made = list(range(len(means))), []

    def highest(node):
        while top[node] != node:
            top[node] = top[top[node]]
            node = top[node]
        return node

    for first, second in pairs[order[distance[order] < reach**2]].tolist():
        first, second = highest(first), highest(second)
        if first != second:
            top[first] = top[second] = len(top)
            top.append(len(top))
            made.append((first, second))
    leaves = np.full((len(means), 2), -1)
    return np.concatenate([leaves, np.array(made, np.int64).reshape(-1, 2)])


def meeting(parent, pairs):
    """The first node above both of each pair, int64 (p,), or ``len(parent)`` if there is none.

    By jumps of 1, 2, 4, ... nodes, so that a chain of any length takes few of them.
    """
    depth = [0] * (len(parent) + 1)
    for node, above in reversed(list(enumerate(parent.tolist()))):
        depth[node] = depth[above] + 1
    jumps = [np.append(parent, len(parent))]
    while 2 ** len(jumps) <= max(depth):
        jumps.append(jumps[-1][jumps[-1]])
    depth = np.array(depth)
    first, second = pairs.T.copy()
    for power, jump in reversed(list(enumerate(jumps))):
        lower = depth[first] - depth[second]
        first = np.where(lower >= 2**power, jump[first], first)
        second = np.where(-lower >= 2**power, jump[second], second)
    for jump in reversed(jumps):
        apart = jump[first] != jump[second]
        first, second = np.where(apart, jump[first], first), np.where(apart, jump[second], second)
    return np.where(first == second, first, jumps[0][first])


def terms(properties, centre, scale):
    """1, standardised properties, and their products, float64 (n, 45)."""
    z = np.clip((properties - np.asarray(centre)) / np.asarray(scale), -LIMIT, LIMIT)
    one, other = np.triu_indices(z.shape[1])
    return np.concatenate([np.ones((len(z), 1)), z, z[:, one] * z[:, other]], axis=1)


def likelihood(properties, centre, scale, weights):
    """Score of each object, 0 to 1: a logistic function of `terms`."""
    return 1 / (1 + np.exp(-np.clip(terms(properties, centre, scale) @ weights, -30, 30)))


def whole_nodes(nodes, scores, kept):
    """For each node the one that it is part of in the end, maybe itself, or 0 if not `kept`."""
    count = int((nodes[:, 0] < 0).sum())
    best, whole = scores.tolist(), [False] * len(nodes)
    for node, (first, second) in enumerate(nodes[count:].tolist(), count):
        within = max(best[first], best[second])
        whole[node] = best[node] >= within
        best[node] = max(best[node], within)
    owner = np.where(kept, np.arange(len(nodes)), 0)
    for node in range(len(nodes) - 1, count - 1, -1):
        if whole[node]:
            owner[nodes[node]] = owner[node]
            for part in nodes[node]:
                whole[part] = True
    return owner
