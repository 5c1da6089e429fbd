"""Stacks as one plane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.ngff import Image, convert, open_image
from spoco_zoo.ngff.project import project

STACK = np.random.default_rng(0).integers(-99, 99, (2, 3, 4, 40, 50), dtype=np.int16)


@pytest.mark.parametrize("axes", ["TCZYX", "TZCYX", "ZTCYX"])
@pytest.mark.parametrize("name", ["flat.ome.zarr", "flat.tif"])
def test_a_stack_becomes_its_brightest_values(tmp_path: Path, axes: str, name: str) -> None:
    sizes = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (2, 0.5, 0.25), strict=True)}
    words = {"axes": axes, "Channel": {"Name": ["a", "b", "c"]}, "TimeIncrement": 5, **sizes}
    stored = STACK.transpose(["TCZYX".index(axis) for axis in axes])
    tifffile.imwrite(tmp_path / "a.ome.tif", stored, photometric="minisblack", metadata=words)
    convert(tmp_path / "a.ome.tif", tmp_path / name, projected=True)
    flat = open_image(tmp_path / name)
    assert (flat.axes, flat.voxel_size(), flat.interval) == (tuple("tcyx"), (0.5, 0.25), 5)
    assert flat.channel_names == ("a", "b", "c")
    for time in range(2):
        got = flat.read(0, time, None, (slice(0, 40), slice(0, 50)))
        np.testing.assert_array_equal(got, STACK[time].max(axis=1))


def test_what_is_no_stack_is_not_projected(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.uint8))
    with pytest.raises(StoreError, match=r"must be a stack, and hold no labels; found axes y, x"):
        convert(tmp_path / "a.tif", tmp_path / "b.tif", projected=True)
    tifffile.imwrite(tmp_path / "z.tif", np.ones((5, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match="labels are not projected"):
        convert(tmp_path / "z.tif", tmp_path / "b.tif", projected=True, labels=True)


def test_a_stack_that_names_no_axes_is_told_of(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 99, (7, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "z.tif", stack)
    told: list[str] = []
    convert(tmp_path / "z.tif", tmp_path / "b.tif", projected=True, on_note=told.append)
    assert any("7 planes of 8 x 9 pixels are taken as z" in text for text in told)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), stack.max(0))


@pytest.mark.parametrize("most", [1, 30, 2**26])
def test_chunks_of_several_planes_are_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    stack = np.random.default_rng(0).integers(0, 99, (7, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "z.tif", stack, metadata={"axes": "ZYX"})
    convert(tmp_path / "z.tif", tmp_path / "z.ome.zarr", chunk=(4, 8, 8))
    monkeypatch.setattr("spoco_zoo.ngff.project.READ_VOXELS", most)
    origin = open_image(tmp_path / "z.ome.zarr")
    depths: list[int] = []
    read = Image.read_region

    def counted(self: Image, level: int, region: Sequence[slice]) -> Any:
        depths.append(region[0].stop - region[0].start)
        return read(self, level, region)

    monkeypatch.setattr(Image, "read_region", counted)
    got = project(origin).read_region(0, (slice(1, 8), slice(0, 9)))
    np.testing.assert_array_equal(got, stack.max(0)[1:])
    assert depths == ([4, 3] if most > 30 else [1] * 7)
