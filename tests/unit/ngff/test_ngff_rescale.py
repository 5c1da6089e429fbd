"""An image at another voxel size: what is read, and that it does not depend on the region."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from spoco_zoo import ngff
from spoco_zoo.ngff import rescale
from spoco_zoo.ngff.rescale import axis_map, resampled, rescale_image


def whole(image: ngff.Image) -> np.ndarray:
    return image.read(0, 0, None, [slice(0, n) for n in image.spatial_shape()])


def write(path: Path, values: np.ndarray) -> ngff.Image:
    tifffile.imwrite(path, values, photometric="minisblack")
    return ngff.open_image(path)


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_a_part_of_an_axis_is_the_part_of_the_whole(old: int, new: int, data: st.DataObject):
    start = data.draw(st.integers(0, new - 1))
    stop = data.draw(st.integers(start + 1, new))
    values = np.random.default_rng(old * new).random((old, 3), np.float32)

    def apply(where: slice) -> np.ndarray:
        found = axis_map(old, new, where)
        part = values[found.source]
        return part if found.weights is None else found.weights @ part / found.unit

    every, some = apply(slice(0, new)), apply(slice(start, stop))
    assert np.array_equal(every[start:stop], some)
    whole_axis = axis_map(old, new, slice(0, new))
    if whole_axis.weights is not None:
        assert (whole_axis.weights.sum(axis=1) == whole_axis.unit).all()
    if old > new:
        assert np.allclose(every.mean(axis=0), values.mean(axis=0), atol=1e-5)


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["u1", "u2", "u4", "i2", "f2", "f4"]),
    st.floats(0, 1),
)
def test_what_is_of_one_value_stays_so(old, new, kind: str, share: float) -> None:
    value = np.array(share * (200 if kind == "u1" else 30_000)).astype(kind)
    assert (resampled(np.full((1, *old), value), new) == value).all()


@pytest.mark.parametrize("new", [(3, 5, 7), (9, 11, 12), (26, 11, 40), (1, 1, 1)])
def test_what_is_resampled_in_parts_is_the_same(new, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a billion voxels took 4 GB."""
    values = np.random.default_rng(0).random((2, 13, 11, 12), np.float32)
    at_once = resampled(values, new)
    monkeypatch.setattr(rescale, "PIECE", 2**9)
    assert np.array_equal(resampled(values, new), at_once)
    assert at_once.shape == (2, *new)


@pytest.mark.parametrize("factor", [(2.5, 2.5, 2.5), (1.0, 0.4, 3.0), (4.0, 0.5, 1.0)])
def test_regions_of_a_volume_do_not_depend_on_where_they_end(
    tmp_path: Path, factor: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).integers(0, 60000, (13, 31, 37)).astype(np.uint16)
    view = rescale_image(write(tmp_path / "a.tif", values), 0, factor)
    every = whole(view)
    assert every.dtype == np.float32
    assert every.shape[1:] == view.spatial_shape()
    where = [slice(n // 3, n // 3 + max(n // 2, 1)) for n in view.spatial_shape()]
    assert np.array_equal(view.read(0, 0, [0], where), every[(slice(None), *where)])
    # In pieces of few rows, and from another process, as workers read it.
    monkeypatch.setattr(rescale, "PIECE", 1)
    assert np.array_equal(whole(pickle.loads(pickle.dumps(view))), every)


def test_larger_voxels_are_means_and_keep_their_place(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    ngff.write_label_tiff(tmp_path / "a.tif", values, (0.1, 0.2))
    image = ngff.open_image(tmp_path / "a.tif")
    view = rescale_image(image, 0, (3, 2))
    assert np.allclose(whole(view)[0], values.reshape(2, 3, 4, 2).mean(axis=(1, 3)))
    assert view.voxel_size() == pytest.approx((0.3, 0.4))
    # The centre of the first view voxel, seen from that of the first voxel of the image.
    assert view.levels[0].translation == pytest.approx((0.1, 0.1))


def test_smaller_voxels_are_interpolated(tmp_path: Path) -> None:
    values = np.arange(10, dtype=np.float32)[None].repeat(4, 0)
    view = rescale_image(write(tmp_path / "a.tif", values), 0, (1, 0.5))
    row = whole(view)[0, 0]
    assert row[:4].tolist() == [0, 0.25, 0.75, 1.25]
    assert row[-1] == 9


@pytest.mark.parametrize(
    ("shape", "axes", "order"),
    [((40, 30, 3), ("c", "y", "x"), (2, 0, 1)), ((3, 40, 30), ("z", "y", "x"), (0, 1, 2)),
     ((40, 30, 5), ("z", "y", "x"), (0, 1, 2)), ((40, 3, 3), ("z", "y", "x"), (0, 1, 2))],
)  # fmt: skip
def test_channels_that_were_saved_last(tmp_path, shape, axes, order) -> None:
    values = np.random.default_rng(0).integers(0, 9, shape).astype(np.uint16)
    image = write(tmp_path / "a.tif", values)
    assert image.axes == axes
    assert not image.colour
    assert np.array_equal(image.read_region(0, [slice(0, n) for n in image.levels[0].shape]),
                          values.transpose(order))  # fmt: skip


def test_photographs_are_known_as_such(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30, 3), np.uint8), photometric="rgb")
    image = ngff.open_image(tmp_path / "a.tif")
    assert image.colour
    assert image.axes == ("c", "y", "x")


def test_resampling_keeps_small_differences_of_large_counts(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 100, (20, 30))
    wide = whole(rescale_image(write(tmp_path / "a.tif", (2**31 + counts).astype("u4")), 0, (2, 2)))
    low = whole(rescale_image(write(tmp_path / "b.tif", counts.astype("u1")), 0, (2, 2)))
    assert np.allclose(wide - 2.0**31, low, atol=1e-3)
