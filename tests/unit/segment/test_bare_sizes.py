"""Voxel sizes that an OME-Zarr states without a unit: numbers that nobody was told of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from test_fit import recipe

from spoco_zoo import ngff
from spoco_zoo.config import SegmentConfig
from spoco_zoo.segment.plan import make_plan


@pytest.mark.parametrize(
    ("scale", "unit", "said"),
    [
        ([0.568, 0.254, 0.254], None, "--voxel-size 0.568,0.254,0.254."),
        ([0.568, 0.254, 0.254], "furlong", "--voxel-size 0.568,0.254,0.254."),
        ([1.0, 1.0, 1.0], None, "states no voxel size"),
        ([1.0, 1.0, 1.0], "pixel", "states no voxel size"),
    ],
)
def test_sizes_without_a_unit_are_offered(tmp_path: Path, scale, unit, said) -> None:
    """A stack at half the size, which was taken for the model's: AP@0.5 of 0.26 for 0.46."""
    tiff, store = tmp_path / "a.tif", tmp_path / "a.ome.zarr"
    tifffile.imwrite(tiff, np.zeros((10, 16, 16), np.uint8), photometric="minisblack")
    ngff.convert(tiff, store)
    group = zarr.open_group(store, mode="r+")
    ome = dict(group.attrs["ome"])
    one = ome["multiscales"][0]
    for axis in one["axes"]:
        axis.pop("unit", None)
        if unit:
            axis["unit"] = unit
    for dataset in one["datasets"]:
        dataset["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    group.attrs["ome"] = ome
    known = recipe(size=(0.284, 0.127, 0.127))
    plan = make_plan(ngff.open_image(store), known, SegmentConfig())
    assert not plan.rescaled
    assert said in plan.notes[-1]
    assert "taken for the model's, 0.284 x 0.127 x 0.127 um" in plan.notes[-1]
