"""Blocks tile the region, and two neighbours agree on the slab between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_zoo.errors import ConfigError
from spoco_zoo.segment.blocks import BlockGrid, make_grid, owned_first


@st.composite
def grids(draw) -> BlockGrid:
    ndim = draw(st.sampled_from([2, 3]))
    shape = tuple(draw(st.integers(1, 20)) for _ in range(ndim))
    block = tuple(draw(st.integers(1, 25)) for _ in range(ndim))
    overlap = tuple(draw(st.integers(1, b)) for b in block)
    return make_grid(shape, block, overlap, draw(st.integers(1, 3)))


@settings(max_examples=60, deadline=None)
@given(grids())
def test_cores_cover_every_voxel_once(grid: BlockGrid) -> None:
    seen = np.zeros((grid.times, *grid.shape), int)
    for n in range(grid.total):
        seen[(grid.time(n), *grid.core(n).slices)] += 1
    assert (seen == 1).all()


@settings(max_examples=60, deadline=None)
@given(grids())
def test_neighbours_share_the_slab_and_nothing_crosses_time(grid: BlockGrid) -> None:
    for n in range(min(grid.total, 40)):
        for axis in range(len(grid.shape)):
            above = grid.above(n, axis)
            if above is None:
                assert grid.core(n).stop[axis] == grid.shape[axis]
                continue
            assert grid.below(above, axis) == n
            assert grid.time(above) == grid.time(n)
            slab = grid.slab(n, axis)
            assert slab.overlap(grid.outer(n)) == slab
            assert slab.overlap(grid.outer(above)) == slab
            face = grid.core(n).stop[axis]
            assert slab.start[axis] == face - min(grid.overlap[axis], face)
            assert slab.stop[axis] == min(face + grid.overlap[axis], grid.shape[axis])


@given(
    st.lists(st.integers(0, 5), min_size=12, max_size=12),
    st.integers(0, 2),
    st.integers(3, 4),
)
def test_objects_of_the_core_come_first(values: list[int], start: int, stop: int) -> None:
    labels = np.array(values).reshape(4, 3) * 7
    core = (slice(start, stop), slice(0, 2))
    new, sizes = owned_first(labels, core)
    pairs = set(zip(labels.ravel().tolist(), new.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(labels))
    assert all((old == 0) == (now == 0) for old, now in pairs)
    inside = np.unique(new[core][new[core] > 0])
    assert inside.tolist() == list(range(1, len(sizes) + 1))
    assert sizes.tolist() == [int((new[core] == i).sum()) for i in inside]
    assert new.max() == len(np.unique(labels[labels > 0]))


@pytest.mark.parametrize("overlap", [(0, 4), (11, 4)])
def test_an_overlap_that_hides_or_skips_a_neighbour_is_refused(overlap) -> None:
    with pytest.raises(ConfigError, match="overlap"):
        make_grid((30, 30), (10, 10), overlap)


def test_one_block_needs_no_overlap() -> None:
    assert make_grid((30, 30), (30, 40), (0, 0)).total == 1
