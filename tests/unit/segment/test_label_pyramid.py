"""Coarser levels hold the most frequent label of each cell, whatever the write units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_zoo.segment.output import pyramid
from spoco_zoo.segment.output.pyramid import coarse_block, pyramid_steps


def plain(labels: np.ndarray, shape: tuple[int, ...], factors: tuple[int, ...]) -> np.ndarray:
    """Cell by cell; a cell cut by the end counts the voxels that it has."""
    out = np.zeros(shape, labels.dtype)
    for cell in np.ndindex(shape):
        where = tuple(slice(c * f, (c + 1) * f) for c, f in zip(cell, factors, strict=True))
        ids, counts = np.unique(labels[where], return_counts=True)
        out[cell] = ids[counts.argmax()]
    return out


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_whole_factors_take_the_mode(data) -> None:
    ndim = data.draw(st.sampled_from([2, 3]))
    shape = tuple(data.draw(st.integers(2, 9)) for _ in range(ndim))
    factors = tuple(data.draw(st.sampled_from([1, 2, 3])) for _ in range(ndim))
    up = data.draw(st.booleans())
    coarse = tuple(
        -(-n // f) if up else max(n // f, 1) for n, f in zip(shape, factors, strict=True)
    )
    labels = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 4, shape)
    labels = labels.astype(np.uint64) + (2**63 if data.draw(st.booleans()) else 0)
    steps = pyramid_steps(shape, coarse, factors)
    whole = coarse_block(labels, steps, tuple(slice(0, n) for n in coarse))
    kept = tuple(slice(0, min(m * f, n)) for m, f, n in zip(coarse, factors, shape, strict=True))
    np.testing.assert_array_equal(whole, plain(labels[kept], coarse, factors))
    start = tuple(data.draw(st.integers(0, n - 1)) for n in coarse)
    unit = tuple(slice(a, n) for a, n in zip(start, coarse, strict=True))
    np.testing.assert_array_equal(coarse_block(labels, steps, unit), whole[unit])


def test_other_ratios_take_the_voxel_under_the_centre() -> None:
    labels = np.arange(10, dtype=np.uint32)[:, None] * np.ones((1, 4), np.uint32)
    steps = pyramid_steps((10, 4), (7, 2), (10 / 7, 2.0))
    assert [s.factor for s in steps] == [None, 2]
    coarse = coarse_block(labels, steps, (slice(0, 7), slice(0, 2)))
    centres = ((np.arange(7) + 0.5) * 10 / 7).astype(int)
    np.testing.assert_array_equal(coarse, np.repeat(centres[:, None], 2, axis=1))
    part = coarse_block(labels, steps, (slice(3, 6), slice(1, 2)))
    np.testing.assert_array_equal(part, coarse[3:6, 1:])


@pytest.mark.parametrize(
    ("fine", "ratio", "coarse"), [(204, 2.5, 81), (103, 2.5, 42), (60, 3.3, 19), (2048, 1.5, 1365)]
)
def test_levels_that_do_not_end_together_do_not_drift(fine: int, ratio: float, coarse: int) -> None:
    (step,) = pyramid_steps((fine,), (coarse,), (ratio,))
    centres = (np.arange(coarse) + 0.5) * ratio - 0.5
    assert np.abs(step.picks(0, coarse) - np.minimum(centres, fine - 1)).max() <= 0.5


def test_a_level_with_a_shape_that_fits_no_factor_is_not_misread() -> None:
    assert pyramid_steps((100,), (40,), (2.0,))[0].factor is None
    assert pyramid_steps((5,), (3,), (2.0,))[0].factor == 2
    assert pyramid_steps((5,), (2,), (2.0,))[0].factor == 2
    assert pyramid_steps((5,), (5,), (1.0,))[0].factor == 1


def test_pieces_in_memory_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (23, 17)).astype(np.uint32)
    steps = pyramid_steps((23, 17), (12, 9), (2.0, 2.0))
    where = (slice(0, 12), slice(0, 9))
    whole = coarse_block(labels, steps, where)
    monkeypatch.setattr(pyramid, "PIECE", 40)
    np.testing.assert_array_equal(coarse_block(labels, steps, where), whole)


@pytest.mark.parametrize("first", [(), (1,)])
def test_memory_is_bounded_with_a_time_axis_and_without(
    first: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched:
        """Labels that note how many voxels are read at once."""

        most = 0

        def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
            part = labels[where]
            self.most = max(self.most, part.size)
            return part

    shape = (*first, 16, 24, 20)
    labels = np.random.default_rng(0).integers(0, 5, shape).astype(np.uint32)
    coarse = (*first, 8, 12, 10)
    steps = pyramid_steps(shape, coarse, tuple(n / m for n, m in zip(shape, coarse, strict=True)))
    unit = tuple(slice(0, n) for n in coarse)
    whole = coarse_block(labels, steps, unit)
    monkeypatch.setattr(pyramid, "PIECE", 2000)
    watched = Watched()
    np.testing.assert_array_equal(coarse_block(watched, steps, unit), whole)
    assert watched.most <= 2000
