"""Which objects of two neighbouring blocks are one object.

The two blocks have both labelled the slab around their face. Touching there is
no reason to merge; seeing the same thing is::

    A's view of the slab       B's view           joined
    . 1 1 | 1 . 2 2 | 2        5 5 5 6 6 6        1-5 and 2-6: mutual best overlap
    1 1 . . 2 2                5 5 5 5 5 5        1-5 and 2-5: B sees the arch that
                                                  connects the legs, A does not
    1 1 1 2 2 2                5 5 5 5 5 5        1-5 only (or 2-5): 1 and 2 touch,
                                                  so A means two objects

A part must pass the face together with the whole, as the legs of an arch do that one block
does not see. Elsewhere it is likely an error of one block near the end of its view: a cell
that reaches into the slab with a few voxels lies inside of its neighbour if outlines differ.

An overlap is accepted only if the mean embeddings of the two objects over the
slab are nearer than the distance that training put between objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Match", "Rule", "Side", "make_side", "match"]


@dataclass(frozen=True)
class Rule:
    """When two objects are one."""

    iou: float
    """Least overlap in the slab, as a fraction."""
    distance: float
    """Mean embeddings must be nearer than this, in units of the embedding space."""


@dataclass(frozen=True)
class Side:
    """One block's view of a slab."""

    labels: np.ndarray
    """Local ids, unsigned, shape of the slab; 0 = background."""
    ids: np.ndarray
    """The ids that occur, ascending, shape (k,)."""
    means: np.ndarray
    """Mean embedding of each over the slab, float32 (k, E)."""


@dataclass(frozen=True)
class Judged:
    """Every pair of objects that was considered, as indices into the sides' ids."""

    a: np.ndarray
    b: np.ndarray
    iou: np.ndarray
    """Overlap in the slab, or the part of the smaller one if it was taken as a part."""
    distance: np.ndarray
    """Of the mean embeddings."""
    verdict: np.ndarray
    """0 joined, 1 refused by overlap, 2 refused by embedding."""


@dataclass(frozen=True)
class Match:
    """What a face decided."""

    pairs: np.ndarray
    """int64 (m, 2): local id below, local id above the face."""
    refused_overlap: int
    """Best partners of one side that overlap too little, or would join touching objects."""
    refused_embedding: int
    """Pairs that overlap enough but whose embeddings differ."""
    judged: Judged


def make_side(labels: np.ndarray, embeddings: np.ndarray) -> Side:
    """A block's view of a slab.

    Parameters
    ----------
    labels : unsigned integer, shape ([Z,] Y, X)
    embeddings : float32, shape (E, [Z,] Y, X)

    Returns
    -------
    Side
    """
    where = np.flatnonzero(labels)
    ids, index = np.unique(labels.ravel()[where], return_inverse=True)
    counts = np.maximum(np.bincount(index, minlength=len(ids)), 1)
    flat = embeddings.reshape(len(embeddings), -1)
    sums = [np.bincount(index, channel[where], minlength=len(ids)) for channel in flat]
    return Side(labels, ids, (np.stack(sums, axis=1) / counts[:, None]).astype(np.float32))


def match(below: Side, above: Side, rule: Rule, face: tuple[int, int] | None = None) -> Match:
    """Decide which objects on the two sides of a face are one.

    Parameters
    ----------
    below, above : Side
        Views of the same slab by the block below and above the face.
    rule : Rule
    face : (int, int), optional
        Axis along which the sides meet, and the first layer of the views above the face. Several
        objects of one side may then be parts of one of the other. Without a face the sides
        saw different voxels, and each object has one partner at most.

    Returns
    -------
    Match
        The same for the same views; swapping the sides swaps the pairs.
    """
    pairs = _Overlaps.of(below, above, face)
    distance = np.linalg.norm(below.means[pairs.a] - above.means[pairs.b], axis=1)
    near = distance < rule.distance
    best_a, best_b = _best(pairs.a, pairs.iou), _best(pairs.b, pairs.iou)
    mutual = best_a & best_b & (pairs.iou >= rule.iou)
    joined = mutual & near
    possible = near & pairs.passing
    parts_a = _Parts(pairs.a, pairs.b, pairs.inside_a, pairs.shared)
    parts_b = _Parts(pairs.b, pairs.a, pairs.inside_b, pairs.shared)
    split_a, clash_a = _splits(parts_a, joined, possible, below, rule)
    split_b, clash_b = _splits(parts_b, joined, possible, above, rule)
    accepted = joined | split_a | split_b
    contained = pairs.passing & (np.maximum(pairs.inside_a, pairs.inside_b) >= rule.iou)
    overlapping = mutual | contained & ~(clash_a | clash_b)
    by_embedding = overlapping & ~near & ~accepted
    by_overlap = (best_a | best_b) & ~accepted & ~by_embedding
    every = np.flatnonzero(accepted | by_overlap | by_embedding)
    overlap = np.maximum(pairs.iou, np.maximum(pairs.inside_a * split_a, pairs.inside_b * split_b))
    verdict = np.where(by_embedding, 2, np.where(by_overlap, 1, 0))
    judged = Judged(*(v[every] for v in (pairs.a, pairs.b, overlap, distance, verdict)))
    return Match(
        np.stack([below.ids[pairs.a[accepted]], above.ids[pairs.b[accepted]]], axis=1).astype(
            np.int64
        ),
        int(by_overlap.sum()),
        int(by_embedding.sum()),
        judged,
    )


@dataclass(frozen=True)
class _Overlaps:
    """Every pair of objects that share a voxel, as indices into the sides' ids."""

    a: np.ndarray
    b: np.ndarray
    shared: np.ndarray
    """Voxels that both have."""
    iou: np.ndarray
    inside_a: np.ndarray
    """Shared part of the object below."""
    inside_b: np.ndarray
    """Shared part of the object above."""
    passing: np.ndarray
    """Whether they share voxels on both sides of the face, in the layers next to it."""

    @classmethod
    def of(cls, below: Side, above: Side, face: tuple[int, int] | None) -> _Overlaps:
        a, b = _ranks(below), _ranks(above)
        size_a = np.bincount(a, minlength=len(below.ids) + 1)
        size_b = np.bincount(b, minlength=len(above.ids) + 1)
        both = (a > 0) & (b > 0)
        width = len(above.ids) + 1
        every = np.where(both, a * width + b, 0)
        codes, shared = np.unique(every[both], return_counts=True)
        passing = np.zeros(len(codes), bool)
        if face is not None:
            axis, first = face
            layers = np.moveaxis(every.reshape(below.labels.shape), axis, 0)
            passing = np.isin(codes, layers[first - 1]) & np.isin(codes, layers[first])
        a, b = codes // width, codes % width
        return cls(
            a - 1,
            b - 1,
            shared,
            shared / (size_a[a] + size_b[b] - shared),
            shared / size_a[a],
            shared / size_b[b],
            passing,
        )


def _ranks(side: Side) -> np.ndarray:
    """Flat labels as 1-based positions in the side's ids; 0 stays 0."""
    table = np.zeros(int(side.ids.max(initial=0)) + 1, np.int64)
    table[side.ids] = np.arange(1, len(side.ids) + 1)
    ranks: np.ndarray = table[side.labels.ravel()]
    return ranks


def _best(group: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mask of each group's pair with the highest score; the first of equal ones."""
    order = np.lexsort((np.arange(len(group)), -score, group))
    first = np.ones(len(order), bool)
    first[1:] = group[order[1:]] != group[order[:-1]]
    mask = np.zeros(len(group), bool)
    mask[order[first]] = True
    return mask


class _Parts(NamedTuple):
    """The same pairs, the objects of one side taken as parts of those of the other."""

    part: np.ndarray
    whole: np.ndarray
    inside: np.ndarray
    """Share of the part that lies in the whole."""
    shared: np.ndarray


def _splits(
    pairs: _Parts, joined: np.ndarray, possible: np.ndarray, view: Side, rule: Rule
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose part lies in the whole and touches no other part of it, and those that do touch.

    Parts are taken in the order of how much of them the whole holds, the largest first of those
    that it holds alike: a crumb must not keep out the part that it touches.
    """
    accepted = np.zeros(len(pairs.part), bool)
    clashing = np.zeros(len(pairs.part), bool)
    candidates = np.flatnonzero((pairs.inside >= rule.iou) & ~joined & possible)
    if not len(candidates):
        return accepted, clashing
    touching = _touching(view)
    taken: dict[int, set[int]] = {}
    for i in np.flatnonzero(joined):
        taken.setdefault(int(pairs.whole[i]), set()).add(int(pairs.part[i]))
    order = np.lexsort((-pairs.shared[candidates], -pairs.inside[candidates]))
    for i in candidates[order]:
        part = int(pairs.part[i])
        siblings = taken.setdefault(int(pairs.whole[i]), set())
        if touching.get(part, set()) & siblings:
            clashing[i] = True
            continue
        accepted[i] = True
        siblings.add(part)
    return accepted, clashing


def _touching(side: Side) -> dict[int, set[int]]:
    """For each object (index into the side's ids) the objects that share a voxel face with it."""
    ranks = _ranks(side).reshape(side.labels.shape)
    neighbours: dict[int, set[int]] = {}
    width = len(side.ids) + 1
    for axis in range(ranks.ndim):
        low = np.moveaxis(ranks, axis, 0)[:-1]
        high = np.moveaxis(ranks, axis, 0)[1:]
        differ = (low != high) & (low > 0) & (high > 0)
        for code in np.unique(low[differ] * width + high[differ]):
            a, b = int(code // width) - 1, int(code % width) - 1
            neighbours.setdefault(a, set()).add(b)
            neighbours.setdefault(b, set()).add(a)
    return neighbours
