"""Instance clustering of pixel embeddings, with numpy and scipy alone.

This file travels in every exported bundle as ``spoco_cluster.py``: with it, any
program that can run the network gets from embeddings to labels. spoco_zoo runs
this very file. Use::

    labels = cluster(embeddings, background=..., **parameters)   # see config.spoco of the bundle

An object is what lies around an anchor in embedding space, as in the training
objective, but everything here is local: the network never sees the whole image,
so far apart objects may share an embedding and only neighbours are told apart.

1. Foreground: voxels farther than `foreground` from the background prototype.
2. Seeds: connected foreground voxels whose surroundings agree, that is where the
   root-mean-square spread of the embeddings in a box of 3 voxels is at most
   `smoothness`. Across the border between two objects the spread is large.
3. Growth: in rings outwards from the seeds, every foreground voxel joins the
   neighbouring seed whose mean embedding is nearest to its own.
4. Merging: touching objects whose mean embeddings are closer than `bandwidth`
   are one.
5. Foreground that no seed reached is an object of its own; objects of fewer than
   `min_size` voxels are dropped, or, where there is no background, given to the
   touching object with the nearest mean embedding.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["cluster"]


def cluster(
    embeddings,
    *,
    background=None,
    bandwidth=0.5,
    foreground=3.0,
    smoothness=0.3,
    min_size=20,
    **_other_methods,
):
    """Turn embeddings into instance labels.

    Parameters
    ----------
    embeddings : ndarray
        float (E, [Z,] Y, X).
    background : sequence of float, optional
        Background prototype, length E. Without it every voxel belongs to an object.
    bandwidth, foreground, smoothness : float
        Distances in embedding space, see the steps above.
    min_size : int
        Smallest object in voxels.

    Returns
    -------
    ndarray
        int32 ([Z,] Y, X): 0 is background, 1..n are connected objects.
    """
    field = np.asarray(embeddings, np.float32)
    mask = foreground_mask(field, background, foreground)
    seeds, count = ndimage.label(mask & (spread(field) <= smoothness))
    labels = grow(field, seeds.astype(np.int32), mask, mean_embeddings(field, seeds, count))
    missed, _ = ndimage.label(mask & (labels == 0))
    labels = np.where(missed > 0, missed + count, labels).astype(np.int32)
    labels = merge_alike(field, labels, bandwidth)
    if background is None:
        labels = absorb_small(field, labels, min_size)
        return renumber(labels, np.ones(labels.max(initial=0) + 1, bool))
    return renumber(labels, np.bincount(labels.ravel()) >= min_size)


def foreground_mask(field, background, radius):
    """Voxels farther than `radius` from the background prototype; all if there is none."""
    if background is None:
        return np.ones(field.shape[1:], bool)
    square = np.zeros(field.shape[1:], np.float32)
    for channel, centre in zip(field, background):
        square += (channel - np.float32(centre)) ** 2
    return square > radius**2


def spread(field):
    """Root-mean-square distance of the embeddings in a box of 3 voxels from their mean."""
    square = np.zeros(field.shape[1:], np.float32)
    for channel in field:
        square += ndimage.uniform_filter(channel * channel, 3, mode="nearest")
        square -= ndimage.uniform_filter(channel, 3, mode="nearest") ** 2
    return np.sqrt(np.maximum(square, 0))


def mean_embeddings(field, labels, count):
    """Mean embedding of labels 0..count, float32 (count + 1, E)."""
    flat = labels.ravel()
    size = np.maximum(np.bincount(flat, minlength=count + 1), 1)
    sums = [np.bincount(flat, channel.ravel(), count + 1) for channel in field]
    return (np.stack(sums, axis=1) / size[:, None]).astype(np.float32)


def grow(field, seeds, mask, anchors):
    """Grow seeds through the mask, ring by ring, to the nearest anchor in embedding space."""
    ndim = seeds.ndim
    padded = np.pad(seeds, 1).ravel()
    shape = tuple(n + 2 for n in seeds.shape)
    steps = [int(np.prod(shape[axis + 1 :])) for axis in range(ndim)]
    todo = np.flatnonzero(np.pad(mask & (seeds == 0), 1))
    where = np.unravel_index(todo, shape)
    rows = np.stack([channel[tuple(w - 1 for w in where)] for channel in field], axis=1)
    while todo.size:
        nearest = np.full(todo.size, np.inf, np.float32)
        owner = np.zeros(todo.size, seeds.dtype)
        for step in (*steps, *(-s for s in steps)):
            beside = padded[todo + step]
            touch = np.flatnonzero(beside)
            distance = ((rows[touch] - anchors[beside[touch]]) ** 2).sum(1)
            closer = distance < nearest[touch]
            nearest[touch[closer]] = distance[closer]
            owner[touch[closer]] = beside[touch[closer]]
        reached = owner > 0
        if not reached.any():
            break
        padded[todo[reached]] = owner[reached]
        todo, rows = todo[~reached], rows[~reached]
    return padded.reshape(shape)[(slice(1, -1),) * ndim]


def contacts(labels):
    """Pairs of different labels > 0 that share a face, int (n, 2), each once, smaller first."""
    span = np.int64(labels.max(initial=0)) + 1
    keys = []
    for axis in range(labels.ndim):
        first = np.moveaxis(labels, axis, 0)[:-1].ravel()
        second = np.moveaxis(labels, axis, 0)[1:].ravel()
        differ = (first != second) & (first > 0) & (second > 0)
        low = np.minimum(first[differ], second[differ]).astype(np.int64)
        keys.append(np.unique(low * span + np.maximum(first[differ], second[differ])))
    unique = np.unique(np.concatenate(keys))
    return np.stack([unique // span, unique % span], axis=1)


def merge_alike(field, labels, bandwidth):
    """Join touching objects whose mean embeddings are closer than `bandwidth`."""
    count = int(labels.max(initial=0))
    pairs = contacts(labels)
    means = mean_embeddings(field, labels, count)
    alike = pairs[((means[pairs[:, 0]] - means[pairs[:, 1]]) ** 2).sum(1) < bandwidth**2]
    graph = coo_matrix((np.ones(len(alike), bool), tuple(alike.T)), shape=(count + 1, count + 1))
    _, component = connected_components(graph, directed=False)
    # Label 0 has no edges and comes first, so its component stays 0.
    return component.astype(np.int32)[labels]


def absorb_small(field, labels, min_size):
    """Give each small object to the touching object with the nearest mean embedding."""
    while True:
        count = int(labels.max(initial=0))
        size = np.bincount(labels.ravel(), minlength=count + 1)
        pairs = contacts(labels)
        both = np.concatenate([pairs, pairs[:, ::-1]])
        both = both[size[both[:, 0]] < min_size]
        if not len(both):
            return labels
        means = mean_embeddings(field, labels, count)
        distance = ((means[both[:, 0]] - means[both[:, 1]]) ** 2).sum(1)
        order = np.lexsort((both[:, 1], distance, both[:, 0]))
        first = order[np.r_[True, np.diff(both[order, 0]) > 0]]
        graph = coo_matrix(
            (np.ones(len(first), bool), tuple(both[first].T)), shape=(count + 1,) * 2
        )
        labels = connected_components(graph, directed=False)[1].astype(np.int32)[labels]


def renumber(labels, keep):
    """Drop labels that are not kept and number the rest 1..n."""
    keep = keep.copy()
    keep[0] = False
    table = np.zeros(len(keep), np.int32)
    table[keep] = np.arange(1, keep.sum() + 1)
    return table[labels]
