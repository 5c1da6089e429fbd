"""Stacks as one plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.ngff import convert, open_image

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
