"""Images whose metadata reach for other files, or for time and memory."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from spoco_zoo.errors import DataError, InputError, StoreError, is_denied
from spoco_zoo.locking import LOCK, RunLock
from spoco_zoo.ngff import open_image
from spoco_zoo.replacing import replacing
from spoco_zoo.shapes import MOST_BYTES, read_shapes
from spoco_zoo.train.files import read_array

PLANE = np.arange(64, dtype=np.uint8).reshape(8, 8)
OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" '
    'SizeY="8" SizeZ="2" SizeC="1" SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="1"/>'
    '<TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID>'
    '</TiffData><TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="{other}">urn:uuid:2'
    "</UUID></TiffData>"
    "</Pixels></Image></OME>"
)


def write_pair(path: Path, other: str) -> Path:
    """An OME-TIFF of two planes, the second of which lies in another file."""
    tifffile.imwrite(path, PLANE, description=OME.format(other=other), metadata=None)
    return path


def write_other(path: Path) -> None:
    uuid = '<OME UUID="urn:uuid:2"/>'
    tifffile.imwrite(path, PLANE[::-1], description=uuid, metadata=None)


@pytest.mark.parametrize("how", ["absolute", "above", "pipe"])
def test_an_ome_tiff_read_whatever_it_named(how: str, tmp_path: Path) -> None:
    """Another image of the user became a plane of this one; a pipe was waited for, for ever."""
    folder = tmp_path / "given"
    folder.mkdir()
    write_other(tmp_path / "private.tif")
    os.mkfifo(folder / "pipe")
    other = {"absolute": str(tmp_path / "private.tif"), "above": "../private.tif", "pipe": "pipe"}
    path = write_pair(folder / "a.ome.tif", other[how])
    with pytest.raises(InputError, match="must be files beside it"):
        open_image(path)
    with pytest.raises(InputError, match="must be files beside it"):
        read_array(path)


def test_an_ome_tiff_of_two_files_is_read(tmp_path: Path) -> None:
    write_other(tmp_path / "b.ome.tif")
    image = open_image(write_pair(tmp_path / "a.ome.tif", "b.ome.tif"))
    values = image.read(0, 0, None, [slice(0, 2), slice(0, 8), slice(0, 8)])
    np.testing.assert_array_equal(values[0], [PLANE, PLANE[::-1]])


def test_a_small_archive_of_rois_took_all_memory(tmp_path: Path) -> None:
    path = tmp_path / "rois.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.roi", bytes(MOST_BYTES + 1))
    assert path.stat().st_size < MOST_BYTES // 500
    with pytest.raises(DataError, match="a ROI of 16,777,217 bytes"):
        read_shapes(path)


def write_store(path: Path, levels: int) -> Path:
    """OME-Zarr 0.4 that lists one array so many times."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", shape=(8, 8), dtype="uint8")
    scale = [{"type": "scale", "scale": [1, 1]}]
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": axis, "type": "space"} for axis in "yx"],
            "datasets": [{"path": "0", "coordinateTransformations": scale}] * levels,
        }
    ]
    return path


def test_levels_without_number_were_all_opened(tmp_path: Path) -> None:
    assert len(open_image(write_store(tmp_path / "a.zarr", 100)).levels) == 100
    with pytest.raises(StoreError, match="must not list over 100 `datasets`; found 101"):
        open_image(write_store(tmp_path / "b.zarr", 101))


def test_a_reader_repeated_a_million_letters_in_its_error(tmp_path: Path) -> None:
    described = write_store(tmp_path / "a.zarr", 1) / "0" / ".zarray"
    described.write_text(
        json.dumps({**json.loads(described.read_text()), "fill_value": "A" * 10**6})
    )
    with pytest.raises(StoreError) as caught:
        open_image(tmp_path / "a.zarr")
    assert len(str(caught.value)) < 1000


def test_a_link_in_place_of_a_temporary_file_had_its_target_overwritten(tmp_path: Path) -> None:
    private = tmp_path / "private.txt"
    private.write_text("mine")
    table = tmp_path / "images.csv"
    table.with_name("images.csv.partial").symlink_to(private)
    with replacing(table) as partial:
        partial.write_text("image,objects")
    assert private.read_text() == "mine"
    assert table.read_text() == "image,objects"
    assert not table.is_symlink()


def test_a_link_in_place_of_a_lock_had_its_target_overwritten(tmp_path: Path) -> None:
    private = tmp_path / "private.txt"
    private.write_text("mine")
    (tmp_path / LOCK).symlink_to(private)
    with pytest.raises(OSError, match=LOCK) as caught, RunLock(tmp_path):
        pass
    assert is_denied(caught.value)
    assert private.read_text() == "mine"
