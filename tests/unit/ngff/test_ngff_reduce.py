"""Pyramids: every coarse voxel is the mean or the mode of its own cell, and nothing else."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spoco_zoo.ngff import mean_cells, mode_cells, pyramid_factors

BLOCKS = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=7).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint16, shape, elements=st.integers(0, 4)),
        st.tuples(*(st.integers(1, 4) for _ in shape)),
    )
)


def cells(block: np.ndarray, factors: tuple[int, ...]) -> dict[tuple[int, ...], np.ndarray]:
    """The voxels of every cell, found the slow way."""
    shape = [-(-n // f) for n, f in zip(block.shape, factors, strict=True)]
    return {
        index: block[tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factors, strict=True))]
        for index in product(*map(range, shape))
    }


@settings(max_examples=150, deadline=None)
@given(BLOCKS)
def test_mean_is_that_of_the_cell(case: tuple[np.ndarray, tuple[int, ...]]) -> None:
    block, factors = case
    coarse = mean_cells(block.astype(np.float64), factors)
    rounded = mean_cells(block, factors)
    for index, cell in cells(block, factors).items():
        assert coarse[index] == pytest.approx(cell.mean())
        assert abs(float(rounded[index]) - cell.mean()) <= 0.5 + 1e-9
    assert rounded.dtype == block.dtype


@settings(max_examples=150, deadline=None)
@given(BLOCKS)
def test_mode_is_the_most_frequent_label_of_the_cell(
    case: tuple[np.ndarray, tuple[int, ...]],
) -> None:
    block, factors = case
    coarse = mode_cells(block, factors)
    for index, cell in cells(block, factors).items():
        counts = Counter(cell.ravel().tolist())
        most = max(counts.values())
        assert coarse[index] == min(k for k, v in counts.items() if v == most)
    assert coarse.dtype == block.dtype


def test_a_cut_cell_counts_no_voxel_twice() -> None:
    assert mode_cells(np.array([5, 5, 3]), [4]).tolist() == [5]
    assert mode_cells(np.array([9, 9, 9, 3, 7]), [3]).tolist() == [9, 3]


def test_mode_keeps_ids_beyond_double_precision() -> None:
    top = np.uint64(2**63 + 3)
    assert mode_cells(np.full((4, 4), top), (2, 2)).tolist() == [[int(top)] * 2] * 2


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2)])
def test_pieces_reduce_like_the_whole(factors: tuple[int, ...]) -> None:
    block = np.random.default_rng(1).integers(0, 5, (9, 13, 11)).astype(np.uint32)
    for reduce in (mean_cells, mode_cells):
        whole = reduce(block, factors)
        cut = 2 * factors[1]
        parts = [reduce(block[:, :cut], factors), reduce(block[:, cut:], factors)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize(
    ("shape", "scale", "expected"),
    [
        ((100, 256), (1, 1), []),
        ((257, 300), (1, 1), [(2, 2)]),
        ((1000, 1000), (1, 1), [(2, 2), (2, 2)]),
        # z is four times as thick: two steps in the plane, then all axes.
        ((300, 2100, 2000), (1.0, 0.25, 0.25), [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]),
        # A single plane says nothing about isotropy and cannot shrink.
        ((1, 600, 600), (0.1, 1, 1), [(1, 2, 2), (1, 2, 2)]),
        # One axis far longer than the others.
        ((3, 2, 1100), (1, 1, 1), [(2, 2, 2), (2, 1, 2), (1, 1, 2)]),
    ],
)
def test_pyramids_end_small_and_near_isotropic(
    shape: tuple[int, ...], scale: tuple[float, ...], expected: list[tuple[int, ...]]
) -> None:
    assert pyramid_factors(shape, scale) == expected


@settings(deadline=None)
@given(
    st.integers(2, 3).flatmap(
        lambda n: st.tuples(
            st.tuples(*(st.integers(1, 10**6) for _ in range(n))),
            st.tuples(*(st.floats(1e-3, 1e3) for _ in range(n))),
        )
    )
)
def test_every_pyramid_ends(case: tuple[tuple[int, ...], tuple[float, ...]]) -> None:
    shape, scale = case
    for step in pyramid_factors(shape, scale):
        assert max(step) == 2
        shape = tuple(-(-n // f) for n, f in zip(shape, step, strict=True))
    assert max(shape) <= 256


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_the_highest_number_of_64_bits_stays(dtype: type) -> None:
    highest = np.iinfo(dtype).max
    coarse = mean_cells(np.full((4, 4), highest, dtype), (2, 2))
    assert coarse.dtype == dtype
    assert (coarse == highest).all()
    assert mean_cells(np.array([4, 7], dtype), (2,)).tolist() == [6]
