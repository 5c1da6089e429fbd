"""Zeiss LSM: a TIFF with a header of its own and small pictures between its planes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from typer.testing import CliRunner

from spoco_zoo.cli import app
from spoco_zoo.ngff import open_image
from spoco_zoo.train.files import read_array

HEADER = np.dtype([(n or "rest", t) for n, t in tifffile.TIFF.CZ_LSMINFO]).newbyteorder("<")


def write_lsm(path: Path, data: NDArray[np.uint8], sizes: tuple[float, float, float]) -> None:
    """An LSM of axes z, c, y, x with three channels, and a voxel size in metres."""
    header = np.zeros((), HEADER)
    header["MagicNumber"], header["StructureSize"] = 67127628, HEADER.itemsize
    for axis, length in zip(("Z", "Channels", "Y", "X"), data.shape, strict=True):
        header[f"Dimension{axis}"] = length
    header["DimensionTime"] = header["DataType"] = 1
    for axis, size in zip("ZYX", sizes, strict=True):
        header[f"VoxelSize{axis}"] = size
    tag = (34412, "B", HEADER.itemsize, header.tobytes(), True)
    with tifffile.TiffWriter(path, byteorder="<") as file:
        for n, plane in enumerate(data):
            common = {"metadata": None, "software": False, "contiguous": False}
            file.write(
                plane, planarconfig="separate", photometric="minisblack",
                extratags=[tag] if n == 0 else [], **common,
            )  # fmt: skip
            file.write(np.zeros((4, 4, 3), np.uint8), subfiletype=1, photometric="rgb", **common)


@pytest.fixture
def lsm(tmp_path: Path) -> tuple[Path, NDArray[np.uint8]]:
    data = np.random.default_rng(0).integers(0, 255, (5, 3, 32, 24)).astype(np.uint8)
    write_lsm(tmp_path / "stack.lsm", data, (4e-7, 2e-7, 1e-7))
    return tmp_path / "stack.lsm", data


def test_its_voxel_size_was_not_known_and_its_small_pictures_were_images(
    lsm: tuple[Path, NDArray[np.uint8]],
) -> None:
    path, data = lsm
    image = open_image(path)
    assert image.voxel_size() == pytest.approx((0.4, 0.2, 0.1))
    assert not image.notes
    seen = image.read(0, 0, (1,), (slice(0, 5), slice(0, 32), slice(0, 24)))
    np.testing.assert_array_equal(seen[0], data[:, 1])


def test_it_was_no_image_of_a_folder_nor_one_to_train_on(
    lsm: tuple[Path, NDArray[np.uint8]],
) -> None:
    path = lsm[0]
    assert read_array(path).shape == (3, 5, 32, 24)  # channels first
    asked = [str(path.parent), "--model", "nuclei-confocal-3d", "--channel", "1", "--dry-run"]
    done = CliRunner().invoke(app, ["segment", *asked])
    assert json.loads(done.stdout)["images"] == ["stack.lsm"]


def test_its_labels_are_named_without_its_ending(lsm: tuple[Path, NDArray[np.uint8]]) -> None:
    asked = [str(lsm[0]), "--model", "nuclei-confocal-3d", "--channel", "1", "--dry-run"]
    done = CliRunner().invoke(app, ["segment", *asked])
    assert json.loads(done.stdout)["output"] == str(lsm[0].with_name("stack.spoco.tif"))
