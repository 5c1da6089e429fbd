"""Planes that hold one value inside a stack, and what is read in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from spoco_zoo import ngff
from spoco_zoo.ngff import find_lost, read_mended, rescale_image

WHOLE = (slice(0, 20), slice(0, 40), slice(0, 30))


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 200, (20, 40, 30)).astype(np.uint16)


def opened(path: Path, values: np.ndarray, axes: str = "ZYX") -> ngff.Image:
    tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": axes}, ome=True)
    return ngff.open_image(path)


@pytest.mark.parametrize("value", [0, 100, 65535])
def test_a_few_planes_of_one_value_are_read_as_the_nearest_others(
    tmp_path: Path, stack: np.ndarray, value: int
) -> None:
    good = stack.copy()
    stack[[4, 9, 10, 11]] = value
    image = opened(tmp_path / "a.ome.tif", stack)
    lost = find_lost(image, 0, 0, (0,))
    assert lost == ((4, 3), (9, 8), (10, 8), (11, 12))
    values = read_mended(image, 0, 0, (0,), WHOLE, lost)[0]
    assert np.array_equal(values[[4, 9, 10, 11]], good[[3, 8, 8, 12]])
    rest = np.setdiff1d(np.arange(20), [4, 9, 10, 11])
    assert np.array_equal(values[rest], good[rest])
    # The same where the good plane lies outside of what is read.
    part = (slice(10, 12), slice(5, 9), slice(0, 30))
    some = read_mended(image, 0, 0, (0,), part, lost)[0]
    assert np.array_equal(some, values[10:12, 5:9])
    view = rescale_image(image, 0, (2, 1, 1))
    plain = view.read(0, 0, (0,), (slice(4, 5), *WHOLE[1:]))
    mended = ngff.cut_off(view, -np.inf, np.inf, np.inf, lost)
    assert not np.array_equal(mended.read(0, 0, (0,), (slice(4, 5), *WHOLE[1:])), plain)


def test_gaps_ends_and_what_is_not_of_one_value_stay(tmp_path: Path, stack: np.ndarray) -> None:
    stack[:2] = stack[18:] = stack[5:9] = 0
    stack[13] = 7
    stack[13, 39, 29] = 8
    assert find_lost(opened(tmp_path / "a.ome.tif", stack), 0, 0, (0,)) == ()


def test_planes_without_objects_of_an_image_on_even_ground_stay(tmp_path: Path) -> None:
    """As of masked or drawn ones: nothing is there, and nothing is lost."""
    values = np.zeros((20, 40, 30), np.uint8)
    values[2:9, 5:20, 5:20] = values[10:18, 20:38, 5:28] = 90
    assert find_lost(opened(tmp_path / "a.ome.tif", values), 0, 0, (0,)) == ()


def test_planes_are_lost_per_time_and_in_all_channels(tmp_path: Path, stack: np.ndarray) -> None:
    both = np.stack([stack, stack[::-1]])
    movie = np.stack([both, both])
    movie[1, :, 6] = 0
    movie[0, 0, 8] = 0
    image = opened(tmp_path / "a.ome.tif", movie, "TCZYX")
    assert find_lost(image, 0, 1, (0, 1)) == ((6, 5),)
    assert find_lost(image, 0, 0, (0, 1)) == ()
    assert find_lost(image, 0, 0, (0,)) == ((8, 7),)
    assert find_lost(opened(tmp_path / "b.ome.tif", stack[0], "YX"), 0, 0, (0,)) == ()


def test_of_a_wide_stack_a_column_is_looked_at(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 200, (70, 300, 300)).astype(np.uint8)
    values[33] = 0
    values[40, 100:200, 100:200] = 0  # in the column, and not elsewhere
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": "ZYX"})
    ngff.convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    image = ngff.open_image(tmp_path / "a.ome.zarr")
    assert find_lost(image, 0, 0, (0,)) == ((33, 32),)


def test_a_stack_that_cannot_be_read_has_no_lost_planes(tmp_path: Path, stack: np.ndarray) -> None:
    """The blocks that hold the damage say so."""
    tifffile.imwrite(tmp_path / "a.tif", stack, metadata={"axes": "ZYX"})
    ngff.convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    chunks = tmp_path / "a.ome.zarr" / "0" / "c"
    next(p for p in chunks.rglob("*") if p.is_file()).write_bytes(b"damaged")
    assert find_lost(ngff.open_image(tmp_path / "a.ome.zarr"), 0, 0, (0,)) == ()
