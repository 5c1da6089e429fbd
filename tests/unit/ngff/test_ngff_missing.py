"""Images of which a part is missing, or that state sizes that no image has."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from spoco_zoo.errors import DataError, StoreError
from spoco_zoo.ngff import convert, open_image
from spoco_zoo.train.files import read_array

STACK = np.arange(10 * 32 * 32, dtype=np.uint16).reshape(10, 32, 32)
IMAGEJ = "ImageJ=1.53t\nimages=10\nslices=10\nunit=um\nspacing=0.5\nloop=false\n"


def ome(folder: Path) -> str:
    tifffile.imwrite(folder / "whole.ome.tif", STACK, ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(folder / "whole.ome.tif") as file:
        assert file.ome_metadata is not None
        return file.ome_metadata


def write_planes(path: Path, text: str | None, count: int, **more: object) -> None:
    """Plane by plane, each with an entry of its own behind its pixels."""
    with tifffile.TiffWriter(path) as file:
        for n in range(count):
            words = text if n == 0 else None
            file.write(STACK[n], contiguous=False, metadata=None, description=words, **more)


def cut(path: Path, planes: int) -> None:
    """Keep the first planes of a file; the entry of the last one still names the next."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[planes]
        end = min(page.offset, *page.dataoffsets)
    path.write_bytes(path.read_bytes()[:end])


@pytest.mark.parametrize("kind", ["ome", "imagej", "plain"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_behind_the_end_of_a_cut_file_are_missed(
    tmp_path: Path, kind: str, compression: str | None
) -> None:
    text = {"ome": ome(tmp_path), "imagej": IMAGEJ, "plain": None}[kind]
    path = tmp_path / "a.tif"
    write_planes(path, text, 10, compression=compression)
    assert open_image(path).spatial_shape() == STACK.shape
    cut(path, 6)
    found = "6 planes and a mark that more follow" if kind == "plain" else "6 of 10 planes"
    with pytest.raises(StoreError, match=f"must be in it; found {found}"):
        open_image(path)
    with pytest.raises((DataError, StoreError), match=found):
        read_array(path)


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_planes_that_are_stated_and_were_never_written_are_missed(
    tmp_path: Path, kind: str
) -> None:
    write_planes(tmp_path / "a.tif", ome(tmp_path) if kind == "ome" else IMAGEJ, 6)
    with pytest.raises(StoreError, match="6 of 10 planes"):
        open_image(tmp_path / "a.tif")


def test_one_other_file_that_is_not_there_is_missed(tmp_path: Path) -> None:
    first = '<TiffData FirstZ="0" IFD="0" PlaneCount="5"/>'
    uuid = '<UUID FileName="b.ome.tif">urn:uuid:11111111-ea6e-11f1-8d98-02fc00000001</UUID>'
    second = f'<TiffData FirstZ="5" IFD="0" PlaneCount="5">{uuid}</TiffData>'
    text = re.sub(r"<TiffData[^>]*/>", first + second, ome(tmp_path))
    write_planes(tmp_path / "a.ome.tif", text, 5)
    with pytest.raises(StoreError, match="5 of 10 planes"):
        open_image(tmp_path / "a.ome.tif")


def test_axes_of_imagej_with_units_of_their_own(tmp_path: Path) -> None:
    header = {"axes": "ZYX", "unit": "um", "zunit": "nm", "yunit": "nm", "spacing": 300.0}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, imagej=True, metadata=header, resolution=(10, 0.005))
    assert open_image(path).voxel_size(0) == pytest.approx((0.3, 0.2, 0.1))


@pytest.mark.parametrize("stated", ["INF", "nan", "1e200", "5e-324", "", "1,5", "0", "-1"])
def test_sizes_that_no_voxel_has_are_unknown_ones(tmp_path: Path, stated: str) -> None:
    sizes = dict.fromkeys(("PhysicalSizeZ", "PhysicalSizeY", "PhysicalSizeX"), 0.25)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    tifffile.tiffcomment(path, tifffile.tiffcomment(path).replace('"0.25"', f'"{stated}"'))
    assert open_image(path).voxel_size(0) is None


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_that_is_moved_while_it_is_read_became_zeros(tmp_path: Path, version: str) -> None:
    """A disk that was pulled out gave labels without objects, and exit code 0."""
    tifffile.imwrite(tmp_path / "a.tif", STACK + 1)
    convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr", version=version)
    image = open_image(tmp_path / "a.ome.zarr")
    everything = tuple(slice(0, n) for n in STACK.shape)
    assert image.read_region(0, everything).all()
    (tmp_path / "a.ome.zarr").rename(tmp_path / "b.ome.zarr")
    with pytest.raises(StoreError, match=r"nothing at .*a\.ome\.zarr/0 any more"):
        image.read_region(0, everything)
    (tmp_path / "b.ome.zarr").rename(tmp_path / "a.ome.zarr")
    assert image.read_region(0, everything).all()


def test_a_tiff_that_is_cut_while_it_is_read_killed_the_process(tmp_path: Path) -> None:
    """By a bus error, without a word: as where another file was copied over it."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK)
    image = open_image(path)
    everything = tuple(slice(0, n) for n in STACK.shape)
    whole = image.read_region(0, everything)
    data = path.read_bytes()
    os.truncate(path, 0)
    with pytest.raises(StoreError, match=r"0 of \d+ bytes are left in .*a\.tif, level 0"):
        image.read_region(0, everything)
    np.testing.assert_array_equal(whole, STACK)
    path.write_bytes(data)
    np.testing.assert_array_equal(image.read_region(0, everything), STACK)
