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
   With `scoring`, instead of 4 and of what is dropped in 5: regions are joined and dropped
   so that what is left looks most like the objects that the scores were learned from.
6. On request (`fill_holes`), background that one object alone encloses becomes
   part of that object.

Voxels are visited in slabs along the first axis, and objects are joined and dropped in
tables with a row each. So time grows with the number of voxels, and beside embeddings
and labels there are one byte per voxel, and a few for each that is far from a seed.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from spoco_zoo.segment.cluster.regions import (
    Regions,
    absorb_small,
    alike,
    components,
    joined_pairs,
    renumbering,
    unique_pairs,
)
from spoco_zoo.segment.cluster.scores import Traits, scored

__all__ = ["cluster"]

SLAB = 1 << 18  # voxels that are looked at at once: temporary arrays then fit a cache


def cluster(
    embeddings,
    *,
    background=None,
    bandwidth=0.5,
    foreground=3.0,
    smoothness=0.3,
    min_size=20,
    fill_holes=False,
    scoring=None,
    **_other_methods,
):
    """Turn embeddings into instance labels.

    Parameters
    ----------
    embeddings : ndarray
        float (E, [Z,] Y, X), of any float type.
    background : sequence of float, optional
        Background prototype, length E. Without it every voxel belongs to an object.
    bandwidth, foreground, smoothness : float
        Distances in embedding space, see the steps above.
    min_size : int
        Smallest object in voxels.
    fill_holes : bool
        Whether background that one object encloses is given to it.
    scoring : dict, optional
        What `scored` needs, and a `smoothness` of its own. Only with a background prototype.

    Returns
    -------
    ndarray
        int32 ([Z,] Y, X): 0 is background, 1..n are connected objects.
    """
    if background is None:
        scoring = None
    field = embeddings if isinstance(embeddings, Field) else Field(embeddings)
    labels = np.zeros(field.shape, np.int32)
    if labels.size == 0:
        return labels
    if scoring is not None:
        regions = split(field, labels, background, foreground, scoring["smoothness"])
        table = scored(regions.means, traits_of(field, labels, background), scoring)
    else:
        regions = split(field, labels, background, foreground, smoothness)
        pairs = contacts(labels)
        table = alike(regions, pairs, bandwidth)
        regions, pairs = regions.joined(table), joined_pairs(pairs, table)
        if background is None:
            table = absorb_small(regions, pairs, min_size)[table]
        else:
            table = renumbering(regions.sizes >= min_size)[table]
    apply(table, labels)
    if fill_holes:
        close_holes(labels)
    return labels


def split(field, labels, background, foreground, smoothness):
    """Steps 1 to 3, and what no seed reached: number regions into `labels`, and measure them."""
    left = np.empty(labels.shape, bool)  # foreground without a label so far

    def seeds(slab):
        inside, smooth = field.foreground_and_seeds(slab, background, foreground, smoothness)
        left[slab] = inside & ~smooth
        return ndimage.label(smooth)[0], None

    count = number_parts(labels, seeds)
    regions = measure(field, labels, count)
    grow(field, labels, left, regions)
    total = number_parts(labels, lambda slab: (ndimage.label(left[slab])[0], None), count)
    return measure(field, labels, total, regions)


class Field:
    """Embeddings (E, [Z,] Y, X) of any float type, turned to float32 part by part."""

    def __init__(self, embeddings):
        self.values = np.ascontiguousarray(embeddings)
        self.dim, self.shape = len(self.values), self.values.shape[1:]

    def foreground_and_seeds(self, slab, background, radius, smoothness):
        """Two bool arrays of a slab: foreground, and foreground that can be a seed."""
        depth = slab.stop - slab.start
        padded = np.empty([depth + 2, *(n + 2 for n in self.shape[1:])], np.float32)
        square = np.zeros(padded.shape, np.float32)
        squared_sum = np.zeros((depth, *self.shape[1:]), np.float32)
        for channel, origin in zip(self.values, background or [0.0] * self.dim):
            put_padded(padded, channel, slab)
            # The spread does not depend on the origin, so one difference serves both tests.
            padded -= np.float32(origin)
            square += padded * padded
            total = box_sum(padded)
            total *= total
            squared_sum += total
        inside = np.ones(squared_sum.shape, bool)
        if background is not None:
            inside = square[(slice(1, -1),) * inside.ndim] > np.float32(radius) ** 2
        n = np.float32(3**inside.ndim)
        spread = box_sum(square) / n - squared_sum / n**2
        return inside, inside & (spread <= np.float32(smoothness) ** 2)

    def rows(self, where):
        """Embeddings of voxels that are given by flat index, float32 (n, E)."""
        flat = self.values.reshape(self.dim, -1)
        return np.stack([channel[where] for channel in flat], axis=1).astype(np.float32)


def measure(field, labels, count, known=None):
    """Regions 0..count of the labels; what is `known` of the first ones is not counted again."""
    regions, above = Regions(np.zeros(count + 1), np.zeros((count + 1, field.dim))), 0
    if known is not None:
        above = len(known.sizes) - 1
        regions.sizes[: above + 1], regions.sums[: above + 1] = known.sizes, known.sums
    for slab in slabs(labels.shape) if above < count else []:
        ids = labels[slab].reshape(-1)
        where = np.flatnonzero(ids > above)
        if where.size:
            regions.add(ids[where], field.rows(where + slab.start * labels[:1].size))
    return regions


def slabs(shape):
    """Slices along the first axis of about `SLAB` voxels; not thinner than four planes."""
    thick = max(4, SLAB // max(1, math.prod(shape[1:])))
    return [slice(at, min(at + thick, shape[0])) for at in range(0, shape[0], thick)]


def put_padded(padded, channel, slab):
    """Copy a slab with one voxel more on every side; at the border the last one again."""
    low, high = max(slab.start - 1, 0), min(slab.stop + 1, len(channel))
    rest = (slice(1, -1),) * (padded.ndim - 1)
    padded[(slice(low - slab.start + 1, high - slab.start + 1), *rest)] = channel[low:high]
    if low == slab.start:
        padded[0] = padded[1]
    if high == slab.stop:
        padded[-1] = padded[-2]
    for axis in range(1, padded.ndim):
        turned = np.moveaxis(padded, axis, 0)
        turned[0], turned[-1] = turned[1], turned[-2]


def box_sum(padded):
    """Sum over a box of 3 voxels; the result is smaller by 2 along every axis."""
    for axis in range(padded.ndim):
        turned = np.moveaxis(padded, axis, 0)
        total = turned[:-2] + turned[1:-1]
        total += turned[2:]
        padded = np.moveaxis(total, 0, axis)
    return padded


def number_parts(labels, split, first=0):
    """Number connected parts from first + 1, in the order of their first voxels, into `labels`.

    `split` takes a slab and returns its parts (int, 0 for none), and an array of kinds of
    which only equal ones are joined across slabs, or None. The last number is returned.
    """
    last, links, before = first, [np.zeros((0, 2), np.int64)], None
    for slab in slabs(labels.shape):
        parts, kinds = split(slab)
        # A copy, because `kinds` may be the labels that are about to be overwritten.
        ends = None if kinds is None else kinds[[0, -1]]
        found, count = parts > 0, int(parts.max(initial=0))
        np.add(parts, np.int32(last), out=labels[slab], where=found, casting="unsafe")
        if before is not None:
            both = before[0] & found[0]
            if ends is not None:
                both &= before[1] == ends[0]
            links.append(unique_pairs(labels[slab.start - 1][both], labels[slab.start][both]))
        before = found[-1], None if ends is None else ends[1]
        last += count
    links = np.concatenate(links) - (first + 1)
    if not len(links):
        return last
    parts = components(links, last - first) + np.int32(first + 1)
    apply(np.concatenate([np.arange(first + 1, dtype=np.int32), parts]), labels)
    return int(parts.max())


def apply(table, labels):
    """Replace each label by its entry in the table, in place."""
    for slab in slabs(labels.shape):
        labels[slab] = table[labels[slab]]


def index_type(shape):
    """Smallest integer type that holds every flat index, and one step along any axis beyond."""
    return np.int32 if math.prod(shape) + math.prod(shape[1:]) < 2**31 else np.int64


def grow(field, labels, left, regions):
    """Grow seeds through `left`, ring by ring, to the nearest mean embedding, all in place."""
    means, plane = regions.means, labels[:1].size
    flat, todo = labels.reshape(-1), left.reshape(-1)

    def reach(part):
        owner, rows = nearest_owner(field, labels, means, part)
        regions.add(owner, rows)
        # Not yet visible to the rest of this ring: rings are grown all at once.
        flat[part] = -owner

    def following(part):
        flat[part] = -flat[part]
        beside = []
        for _, where in neighbours(part.astype(index_type(labels.shape)), labels.shape):
            beside.append(where[todo[where]])
            todo[beside[-1]] = False
        return np.concatenate(beside)

    # The first ring may be half of all voxels: it is never listed as a whole.
    for slab in slabs(labels.shape):
        part = first_ring(labels, left, slab)
        if part.size:
            reach(part + slab.start * plane)
    first = (np.flatnonzero(labels[slab] < 0) + slab.start * plane for slab in slabs(labels.shape))
    ring = [following(part) for part in first]
    while ring := [part for part in ring if part.size]:
        for part in ring:
            reach(part)
        ring = [following(part) for part in ring]


def first_ring(labels, left, slab):
    """Indices within a slab of voxels in `left` that touch a label > 0; these leave `left`."""
    low = max(slab.start - 1, 0)
    inside = labels[low : slab.stop + 1] > 0
    near = np.zeros(inside.shape, bool)
    for axis in range(labels.ndim):
        to, of = np.moveaxis(near, axis, 0), np.moveaxis(inside, axis, 0)
        to[1:] |= of[:-1]
        to[:-1] |= of[1:]
    near = near[slab.start - low :][: slab.stop - slab.start] & left[slab]
    left[slab] &= ~near
    return np.flatnonzero(near)


def neighbours(where, shape):
    """Per direction, which of the voxels have a neighbour (bool), and its flat index."""
    step = 1
    for axis in reversed(range(len(shape))):
        at = where // step % shape[axis]
        for has, move in ((at > 0, -step), (at < shape[axis] - 1, step)):
            yield has, where[has] + move
        step *= shape[axis]


def nearest_owner(field, labels, means, where):
    """Neighbouring label > 0 with the nearest mean, and the embedding, of each voxel."""
    flat, rows = labels.reshape(-1), field.rows(where)
    beside = np.zeros((2 * labels.ndim, len(where)), np.int32)
    for line, (has, there) in zip(beside, neighbours(where, labels.shape)):
        line[has] = np.maximum(flat[there], 0)
    owner = beside.max(0)
    # Most voxels touch one seed only, and need no distance.
    contested = np.flatnonzero(((beside > 0) & (beside != owner)).any(0))
    nearest = np.full(len(contested), np.inf, np.float32)
    for line in beside[:, contested]:
        difference = rows[contested] - means[line]
        distance = np.einsum("ij,ij->i", difference, difference)
        closer = (line > 0) & (distance < nearest)
        nearest[closer] = distance[closer]
        owner[contested[closer]] = line[closer]
    return owner, rows


def borders(labels):
    """Labels on both sides of every face where they differ, (n,) each, slab by slab."""
    for slab in slabs(labels.shape):
        part = labels[max(slab.start - 1, 0) : slab.stop]
        for axis in range(labels.ndim):
            # Faces across the last axes were seen with the slab before, in its last plane.
            turned = np.moveaxis(part if axis == 0 else labels[slab], axis, 0)
            first, second = turned[:-1], turned[1:]
            where = first != second
            yield first[where], second[where]


def contacts(labels):
    """Pairs of different labels > 0 that share a face, int64 (n, 2), each once, smaller first."""
    pairs = [np.zeros((0, 2), np.int64)]
    for first, second in borders(labels):
        both = (first > 0) & (second > 0)
        pairs.append(unique_pairs(first[both], second[both]))
    pairs = np.concatenate(pairs)
    return unique_pairs(pairs[:, 0], pairs[:, 1])


def traits_of(field, labels, background):
    """What the scores of regions rest on, see `Traits`; row 0 is of no region."""
    traits = Traits(int(labels.max(initial=0)) + 1, field.dim, labels.ndim)
    for slab in slabs(labels.shape):
        ids = labels[slab].reshape(-1)
        where = np.flatnonzero(ids)
        if where.size:
            places = np.unravel_index(where + slab.start * labels[:1].size, labels.shape)
            rows = field.rows(where + slab.start * labels[:1].size)
            traits.add_voxels(ids[where], rows, background, places)
    for first, second in borders(labels):
        traits.add_faces(first, second)
    return traits


def close_holes(labels):
    """Give background that one object alone encloses to that object, in place."""
    count = int(labels.max(initial=0))
    total = number_parts(labels, lambda slab: (ndimage.label(labels[slab] == 0)[0], None), count)
    pairs = contacts(labels)
    pairs = pairs[pairs[:, 1] > count]
    owner = np.zeros(total + 1, np.int32)
    owner[pairs[:, 1]] = pairs[:, 0]
    owner[np.bincount(pairs[:, 1], minlength=total + 1) != 1] = 0
    for axis in range(labels.ndim):
        border = labels.take((0, -1), axis)
        owner[border[border > count]] = 0
    owner[: count + 1] = np.arange(count + 1)
    apply(owner, labels)
