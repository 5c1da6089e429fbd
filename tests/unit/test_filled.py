"""Volumes of which a tissue fills only a part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_zoo.demo.synth import crowded_cells
from spoco_zoo.filled import moments_of, that_hold_something, windows_of
from spoco_zoo.intensities import Statistics, statistics_of
from spoco_zoo.train.data import make_sample

SHAPES = st.tuples(st.integers(1, 3), *[st.integers(1, 50)] * 3)
TISSUE, LABELS = crowded_cells((48, 64, 64), 3, diameter=18, gaps=2.0)


def by_parts(volume: np.ndarray) -> Statistics:
    return statistics_of(lambda: [volume[None]], by_parts=True)


def surrounded(margin: int, noise: float, seed: int = 0) -> np.ndarray:
    """The tissue amid ground, uint8."""
    ground = np.random.default_rng(seed).normal(
        np.percentile(TISSUE, 1), noise, [n + 2 * margin for n in TISSUE.shape]
    )
    middle = tuple(slice(margin, margin + n) for n in TISSUE.shape)
    ground[middle] = TISSUE
    return ground.clip(0, 255).round().astype(np.uint8)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(0, 2**32 - 1), st.floats(-1e5, 1e5))
def test_windows_know_the_moments_of_all_voxels(
    shape: tuple[int, ...], seed: int, offset: float
) -> None:
    values = np.random.default_rng(seed).normal(offset, 3, shape)
    windows = windows_of(values)
    assert windows[:, 0].sum() == values.size
    assert (windows[:, 0] >= 1).all()
    assert moments_of(windows) == pytest.approx((values.mean(), values.std()), rel=1e-6, abs=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.integers(16, 50), st.floats(0.5, 4), st.integers(0, 9))
def test_statistics_are_those_of_the_tissue_whatever_lies_around(
    margin: int, noise: float, seed: int
) -> None:
    volume = surrounded(margin, noise, seed)
    found, alone = by_parts(volume), by_parts(TISSUE)
    assert found.std == pytest.approx(alone.std, rel=0.2)
    assert abs(found.mean - alone.mean) < alone.std
    share = TISSUE.size / volume.size
    assert share * 0.7 < found.filled < share * 3.4
    plain = statistics_of(lambda: [volume[None]])
    assert plain.filled == 1
    assert abs(plain.mean - alone.mean) > abs(found.mean - alone.mean)


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_pieces_may_be_any(pieces: int) -> None:
    volume = surrounded(32, 2)[None]
    whole = statistics_of(lambda: [volume], by_parts=True)
    parts = np.array_split(volume, pieces, axis=1)
    found = statistics_of(lambda: parts[::-1], by_parts=True)
    # Windows begin with their piece, so some hold other shares of the ground.
    assert abs(found.mean - whole.mean) < whole.std
    assert found.std == pytest.approx(whole.std, rel=0.1)


NOISE = np.random.default_rng(1).normal(100, 10, (40, 64, 64))
BLOCKS = np.kron(np.random.default_rng(2).random((3, 4, 4)), np.ones((16, 16, 16)))
RAMP = np.linspace(1, 0.1, 48)[:, None, None]


@pytest.mark.parametrize(
    "volume",
    [
        TISSUE,
        TISSUE[:5],
        TISSUE * RAMP,
        NOISE,
        NOISE + 50 * (np.arange(64) > 31),
        np.where(np.arange(64) > 31, 7.0, 3.0) * np.ones((40, 64, 1)),
        np.where(np.arange(64) > 31, 0.7, 0.1) * np.ones((40, 64, 1)),
        BLOCKS,
        np.ones((1, 1, 1)),
    ],
    ids=["full", "thin", "fading", "noise", "step", "values", "fractions", "blocks", "voxel"],
)
def test_where_nothing_is_clearly_empty_all_counts(volume: np.ndarray) -> None:
    found, plain = by_parts(volume), statistics_of(lambda: [volume[None]])
    assert found == plain
    assert found.filled == 1


def test_few_voxels_that_differ_make_no_content_where_the_rest_makes_most() -> None:
    windows = np.array([[4096, 10, 0, 1, 0.1]] * 999 + [[4096, 10, 0, 30, 20]], float)
    assert that_hold_something(windows).all()
    windows[-1, 3] = 3000.0
    assert that_hold_something(windows).nonzero()[0].tolist() == [999]

    windows[:999, 4] = 0.7  # as of a tissue with a speck of debris in it
    assert that_hold_something(windows).all()


@pytest.mark.parametrize("times", [4, 16, 80])
@pytest.mark.parametrize("side", [4, 8, 12])
def test_a_bright_speck_in_a_tissue_is_not_all_that_it_holds(times: int, side: int) -> None:
    speck = TISSUE.astype(np.float32)
    speck[20 : 20 + side, 20 : 20 + side, 30 : 30 + side] = times * float(TISSUE.max())
    assert by_parts(speck).filled == 1


def test_a_training_normalises_as_segment_does() -> None:
    volume = surrounded(24, 2)
    labels = np.pad(LABELS, 24).astype(np.int32)
    sample = make_sample("a", volume[None].astype(np.float32), labels)
    assert sample.statistics == by_parts(volume)
    plane = make_sample("a", volume[None, 40].astype(np.float32), labels[40])
    assert plane.statistics == statistics_of(lambda: [volume[None, 40]])
