"""Perfect labels of blocks become exactly the planted objects; doubtful ones stay apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import same_partition, split_connected, tissue

from spoco_zoo.segment.blocks import BlockGrid, make_grid, owned_first
from spoco_zoo.segment.relabel import apply_table, number_objects
from spoco_zoo.segment.review.audit import count_cut
from spoco_zoo.segment.stitch import Match, Rule, make_side, match

RULE = Rule(iou=0.5, distance=2.0)


def codes(ids: np.ndarray) -> np.ndarray:
    """Embeddings (2, ...) of which different ids differ by at least 4."""
    return np.stack([4.0 * (ids % 64), 4.0 * (ids // 64)]).astype(np.float32)


def assemble(
    truth: np.ndarray, grid: BlockGrid, seed: int = 0, see=split_connected, codes=codes
) -> np.ndarray:
    """Segment every block, perfectly if nothing else, under shuffled names, stitch, and number."""
    rng = np.random.default_rng(seed)
    blocks, counts, owned = [], [], []
    for n in range(grid.total):
        outer = grid.outer(n)
        labels = see(truth[outer.slices])
        names = np.concatenate([[0], rng.permutation(labels.max()) + 1])
        labels, sizes = owned_first(names[labels], grid.core(n).within(outer))
        blocks.append(labels)
        counts.append(labels.max())
        owned.append(len(sizes))
    edges = [np.empty((0, 4), np.int64)]
    for n in range(grid.total):
        for axis in range(truth.ndim):
            above = grid.above(n, axis)
            if above is None:
                continue
            slab = grid.slab(n, axis)
            shown = codes(truth[slab.slices])
            low, high = (
                make_side(blocks[m][slab.within(grid.outer(m))], shown) for m in (n, above)
            )
            face = grid.core(n).stop[axis] - slab.start[axis]
            pairs = match(low, high, RULE, (axis, face)).pairs
            ends = np.broadcast_to([[n, above]], pairs.shape)
            edges.append(np.stack([ends, pairs], axis=2).reshape(-1, 4))
    order = rng.permutation(sum(map(len, edges)))
    numbering = number_objects(np.array(counts), np.array(owned), np.concatenate(edges)[order])
    final = np.zeros(truth.shape, np.uint32)
    for n in range(grid.total):
        core = grid.core(n)
        local = blocks[n][core.within(grid.outer(n))]
        ids = numbering.ids(int(numbering.base[n]), int(numbering.base[n + 1]))
        final[core.slices] = apply_table(local, ids)
    assert np.array_equal(np.unique(final[final > 0]), np.arange(1, numbering.objects + 1))
    return final


@st.composite
def planted(draw) -> np.ndarray:
    """Thin, bent, touching, nested and space-filling objects in any mixture."""
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(6, 26 if ndim == 2 else 14)) for _ in range(ndim))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    truth = np.zeros(shape, np.int32)
    if draw(st.booleans()):
        truth = tissue(shape, int(rng.integers(1, 12)), int(rng.integers(2**31)))
    for one in range(20, 20 + draw(st.integers(0, 4))):
        place = rng.integers(0, shape)
        for _ in range(int(rng.integers(1, 8))):
            axis = int(rng.integers(ndim))
            there = place.copy()
            there[axis] = rng.integers(shape[axis])
            low, high = np.minimum(place, there), np.maximum(place, there)
            truth[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = one
            place = there
    return split_connected(truth)


@settings(max_examples=150, deadline=None)
@given(planted(), st.data())
def test_any_blocking_gives_the_planted_objects(truth: np.ndarray, data) -> None:
    block = tuple(data.draw(st.integers(3, 12)) for _ in truth.shape)
    overlap = tuple(data.draw(st.integers(1, b)) for b in block)
    final = assemble(truth, make_grid(truth.shape, block, overlap), data.draw(st.integers(0, 99)))
    assert same_partition(final, truth)


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_object_at_the_corner_of_all_blocks_is_one(ndim: int) -> None:
    truth = np.zeros((16,) * ndim, np.int32)
    truth[(slice(6, 10),) * ndim] = 1
    final = assemble(truth, make_grid(truth.shape, (8,) * ndim, (3,) * ndim))
    assert same_partition(final, truth)


def test_an_arch_seen_as_two_legs_is_one() -> None:
    truth = np.zeros((12, 40), np.int32)
    truth[2:4, 4:38] = truth[8:10, 4:38] = truth[2:10, 34:38] = 1
    final = assemble(truth, make_grid(truth.shape, (12, 8), (2, 2)))
    assert same_partition(final, truth)


def test_300_of_300_gap_free_cells() -> None:
    truth = tissue((512, 512), 300, seed=1)
    final = assemble(truth, make_grid(truth.shape, (128, 128), (16, 16)))
    assert final.max() == 300
    assert same_partition(final, truth)


def test_a_tissue_of_5000_cells() -> None:
    truth = tissue((96, 112, 120), 5000, seed=2)
    final = assemble(truth, make_grid(truth.shape, (40, 48, 48), (8, 8, 8)))
    assert final.max() == 5000
    assert same_partition(final, truth)


def seen_with_errors(rng: np.random.Generator, margin: int):
    """Labels of a block that near the ends of its view lie a voxel beside where they are."""

    def see(truth: np.ndarray) -> np.ndarray:
        where = [
            np.clip(np.arange(n) + rng.integers(-1, 2), 0, n - 1).astype(int) for n in truth.shape
        ]
        seen = truth[np.ix_(*where)]
        inner = (slice(margin, -margin),) * truth.ndim
        seen[inner] = truth[inner]
        return split_connected(seen)

    return see


def test_errors_near_the_ends_of_views_join_few_neighbours() -> None:
    """Even where all embeddings are alike; 13 % are if parts need not pass the face."""
    wrong = total = 0
    for seed in range(15):
        truth = tissue((32, 32, 32), 40, seed)
        grid = make_grid(truth.shape, (12, 12, 12), (6, 6, 6))
        see = seen_with_errors(np.random.default_rng(seed), margin=3)
        final = assemble(truth, grid, seed, see, lambda ids: np.zeros((1, *ids.shape), np.float32))
        pairs, shared = np.unique(
            np.stack([final, truth]).reshape(2, -1), axis=1, return_counts=True
        )
        mostly = shared > np.bincount(truth.ravel())[pairs[1]] / 2
        wrong += int((np.bincount(pairs[0][mostly]) > 1).sum())
        total += 40
    assert wrong <= 0.03 * total


def compare(a: list[list[int]], b: list[list[int]], points=None, *, parts: bool = True) -> Match:
    """Match two small views, the same on both sides of the face; all embeddings are equal."""
    below, above = (np.repeat(np.array(view, np.uint32), 2, axis=0) for view in (a, b))
    means = np.zeros((1, *below.shape), np.float32)
    other = means if points is None else np.repeat(np.asarray(points, np.float32), 2, axis=0)[None]
    return match(
        make_side(below, means), make_side(above, other), RULE, (0, len(a)) if parts else None
    )


def test_touching_objects_that_one_side_keeps_apart_stay_apart() -> None:
    found = compare([[1, 1, 1, 2, 2]], [[5, 5, 5, 5, 5]])
    assert found.pairs.tolist() == [[1, 5]]
    assert found.refused_overlap == 1


def test_objects_that_only_touch_are_not_joined() -> None:
    found = compare([[1, 1, 0, 0]], [[0, 0, 3, 3]])
    assert len(found.pairs) == 0
    assert found.refused_overlap == found.refused_embedding == 0


def test_parts_that_do_not_touch_are_joined_through_the_whole() -> None:
    found = compare([[1, 1, 0, 2, 2]], [[5, 5, 5, 5, 5]])
    assert found.pairs.tolist() == [[1, 5], [2, 5]]


ACROSS = [[0, 0, 5, 5], [5, 5, 5, 5], [5, 5, 5, 5]]


@pytest.mark.parametrize(
    ("part", "joined"),
    [
        ([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 2]], False),
        ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2]], False),
        ([[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 2, 2]], True),
    ],
)
def test_what_does_not_pass_the_face_is_no_part(part: list[list[int]], joined: bool) -> None:
    """A cell that reaches into the slab from its block's side lies in its neighbour's outline."""
    shown = np.zeros((1, 3, 4), np.float32)
    sides = (make_side(np.array(view, np.uint32), shown) for view in (part, ACROSS))
    pairs = match(*sides, RULE, (1, 2)).pairs.tolist()
    assert ([1, 5] in pairs) == joined


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0, 1]))
def test_where_nothing_passes_the_face_each_object_has_one_partner(seed: int, axis: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (8, 8)
    views = [tissue(shape, 6, int(rng.integers(2**31))) * (rng.random(shape) > 0.2) for _ in "ab"]
    np.moveaxis(views[0], axis, 0)[4] = 0
    shown = np.zeros((1, *shape), np.float32)
    found = match(*(make_side(v.astype(np.uint32), shown) for v in views), RULE, (axis, 4))
    for ends in found.pairs.T:
        assert len(np.unique(ends)) == len(ends)


@pytest.mark.parametrize(("crumb", "part"), [(1, 2), (2, 1)])
def test_of_touching_parts_the_large_one_is_joined_however_they_are_numbered(
    crumb: int, part: int
) -> None:
    found = compare([[crumb, part, part, part, part, 0, 0, 0, 0, 0]], [[5] * 10])
    assert found.pairs.tolist() == [[part, 5]]


@pytest.mark.parametrize(("shared", "joined"), [(4, True), (3, False)])
def test_the_overlap_is_that_of_both_together(shared: int, joined: bool) -> None:
    """Two objects of six: shared by four they are eight together, by three nine."""
    below = [1] * 6 + [0] * 6
    above = [0] * (6 - shared) + [4] * 6 + [0] * shared
    assert len(compare([below], [above], parts=False).pairs) == joined


def test_too_little_overlap_is_refused() -> None:
    found = compare([[1, 1, 1, 1, 0, 0, 0]], [[0, 0, 0, 4, 4, 4, 4]])
    assert len(found.pairs) == 0
    assert found.refused_overlap == 1


def test_different_embeddings_are_refused() -> None:
    found = compare([[1, 1, 1]], [[4, 4, 4]], [[3, 3, 3]])
    assert len(found.pairs) == 0
    assert (found.refused_overlap, found.refused_embedding) == (0, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_swapping_the_sides_swaps_the_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (6, 9)
    views = [tissue(shape, 5, int(rng.integers(2**31))) * (rng.random(shape) > 0.2) for _ in "ab"]
    shown = rng.normal(size=(2, *shape)).astype(np.float32)
    low, high = (make_side(v.astype(np.uint32), shown) for v in views)
    there = match(low, high, RULE, (0, 2))
    # Seen from the other side, the slab begins at its other end.
    back = match(*(replace(side, labels=side.labels[::-1]) for side in (high, low)), RULE, (0, 4))
    assert sorted(there.pairs.tolist()) == sorted(p[::-1] for p in back.pairs.tolist())
    assert there.refused_overlap == back.refused_overlap


def test_cut_counts_objects_that_pass_the_face_without_partner() -> None:
    shown = np.zeros((1, 2, 6), np.float32)
    low = make_side(np.array([[1, 1, 1, 1, 0, 0], [2, 2, 2, 0, 0, 0]], np.uint32), shown)
    high = make_side(np.array([[0, 0, 0, 7, 7, 7], [0, 0, 0, 0, 0, 0]], np.uint32), shown)
    nothing = np.empty((0, 2), np.int64)
    assert count_cut(low, high, nothing, axis=1, face=3) == 1
    assert count_cut(low, high, np.array([[1, 7]]), axis=1, face=3) == 0


def edges_of(joins: list[tuple[int, int]], owners: list[int]) -> np.ndarray:
    base = np.cumsum([0, *owners])
    rows = []
    for pair in joins:
        row: list[int] = []
        for node in pair:
            block = int(np.searchsorted(base, node, side="right") - 1)
            row += [block, node - int(base[block]) + 1]
        rows.append(row)
    return np.array(rows, np.int64).reshape(-1, 4)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_numbers_are_those_of_a_plain_search(data) -> None:
    objects = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    owned = [data.draw(st.integers(0, n)) for n in objects]
    total = sum(objects)
    node = st.integers(0, max(total - 1, 0))
    joins = data.draw(st.lists(st.tuples(node, node), max_size=8)) if total else []
    edges = edges_of(joins, objects)
    numbering = number_objects(np.array(objects), np.array(owned), edges)
    # Plain search: spread the smallest member of every joined set until nothing changes.
    group = list(range(total))
    for _ in range(total):
        for a, b in joins:
            group = [min(group[a], group[b]) if g in (group[a], group[b]) else g for g in group]
    base = np.cumsum([0, *objects])
    mine = [int(base[b]) + i for b, k in enumerate(owned) for i in range(k)]
    order = list(dict.fromkeys(group[n] for n in mine))
    assert numbering.objects == len(order)
    expected = [order.index(group[n]) + 1 for n in mine]
    assert numbering.ids(0, len(mine)).tolist() == expected
    split = data.draw(st.integers(0, len(mine)))
    parts = np.concatenate([numbering.ids(0, split), numbering.ids(split, len(mine))])
    assert parts.tolist() == expected


def test_ids_widen_beyond_32_bits() -> None:
    few = number_objects(np.array([3]), np.array([3]), np.empty((0, 4), np.int64))
    many = number_objects(np.array([2**32]), np.array([2**32]), np.empty((0, 4), np.int64))
    assert few.dtype == np.uint32
    assert many.dtype == np.uint64
    last = many.ids(2**32 - 1, 2**32)
    assert last.dtype == np.uint64
    assert last[0] == 2**32


def test_pairs_of_blocks_are_matched_in_ascending_order() -> None:
    found = compare([[1, 1, 0, 2, 2]], [[5, 5, 0, 6, 6]])
    assert all(a <= b for a, b in pairwise(found.pairs[:, 0].tolist()))
