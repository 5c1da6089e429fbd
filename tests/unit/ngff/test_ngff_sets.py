"""OME-TIFFs of several files: one image in all of them, or one image in each."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from spoco_zoo.errors import InputError, StoreError
from spoco_zoo.image_folder import find_images
from spoco_zoo.ngff import convert, open_image
from spoco_zoo.train.files import read_array

SIDE = 16
NAMES = ("GFP", "DAPI")
SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
PREFIX = "urn:uuid:00000000-0000-4000-8000-00000000000"


def planes(position: int) -> np.ndarray:
    """Two channels that tell channel and position."""
    values = 10 * position + np.arange(2, dtype=np.uint16)
    return np.tile(values[:, None, None], (1, SIDE, SIDE))


def described(here: int, places: Sequence[tuple[int, int, int, int]], files: Sequence[str]) -> str:
    """OME-XML of file `here`; of each plane its image, channel, file and number there."""
    images = []
    for image in sorted({place[0] for place in places}):
        channels = "".join(
            f'<Channel ID="Channel:{image}:{i}" Name="{name}" SamplesPerPixel="1"/>'
            for i, name in enumerate(NAMES)
        )
        data = "".join(
            f'<TiffData FirstC="{c}" IFD="{ifd}" PlaneCount="1">'
            f'<UUID FileName="{files[file]}">{PREFIX}{file}</UUID></TiffData>'
            for of, c, file, ifd in places
            if of == image
        )
        images.append(
            f'<Image ID="Image:{image}"><Pixels ID="Pixels:{image}" DimensionOrder="XYCZT" '
            f'Type="uint16" SizeX="{SIDE}" SizeY="{SIDE}" SizeC="2" SizeZ="1" SizeT="1" '
            f'PhysicalSizeX="{image + 1}" PhysicalSizeY="{image + 1}">{channels}{data}'
            "</Pixels></Image>"
        )
    return f'<OME xmlns="{SCHEMA}" UUID="{PREFIX}{here}">{"".join(images)}</OME>'


def write(path: Path, values: np.ndarray, text: str, compression: str | None = None) -> None:
    tifffile.imwrite(
        path,
        values,
        photometric="minisblack",
        description=text,
        metadata=None,
        compression=compression,
    )


def write_positions(folder: Path, *, binary_only: bool, compression: str | None) -> list[Path]:
    files = [f"Pos{i}.ome.tif" for i in range(3)]
    places = [(i, c, i, c) for i in range(3) for c in range(2)]
    part = f'<BinaryOnly MetadataFile="{files[0]}" UUID="{PREFIX}0"/>'
    for i, name in enumerate(files):
        text = described(i, places, files)
        if i and binary_only:
            text = f'<OME xmlns="{SCHEMA}" UUID="{PREFIX}{i}">{part}</OME>'
        write(folder / name, planes(i), text, compression)
    return [folder / name for name in files]


def write_channels(folder: Path) -> list[Path]:
    files = ["a_w1.ome.tif", "a_w2.ome.tif"]
    places = [(0, c, c, 0) for c in range(2)]
    for c, name in enumerate(files):
        write(folder / name, planes(0)[c], described(c, places, files))
    return [folder / name for name in files]


def pixels(path: Path, series: int | None = None) -> np.ndarray:
    return open_image(path, series=series).read(0, 0, None, (slice(0, SIDE),) * 2)


@pytest.mark.parametrize("binary_only", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_of_a_set_of_positions_each_file_is_its_own(
    tmp_path: Path, binary_only: bool, compression: str | None
) -> None:
    files = write_positions(tmp_path, binary_only=binary_only, compression=compression)
    for i, path in enumerate(files):
        image = open_image(path)
        assert (image.series, image.voxel_size(), image.notes) == (i, (i + 1, i + 1), ())
        np.testing.assert_array_equal(pixels(path), planes(i))
        np.testing.assert_array_equal(read_array(path), planes(i))
        # Another one of the set, wherever it lies.
        np.testing.assert_array_equal(pixels(path, series=1), planes(1))
    assert find_images(tmp_path) == ({path.name: path for path in files}, "")
    convert(files[0], tmp_path / "second.ome.zarr", series=1)
    np.testing.assert_array_equal(pixels(tmp_path / "second.ome.zarr"), planes(1))


@pytest.mark.parametrize("binary_only", [False, True])
def test_links_lead_to_the_position_that_they_name(tmp_path: Path, binary_only: bool) -> None:
    real = tmp_path / "real"
    real.mkdir()
    files = write_positions(real, binary_only=binary_only, compression="zlib")
    (tmp_path / "folder").symlink_to(real)
    for i, path in enumerate(files):
        (tmp_path / f"{i}.tif").symlink_to(path)
        for linked in (tmp_path / "folder" / path.name, tmp_path / f"{i}.tif"):
            np.testing.assert_array_equal(pixels(linked), planes(i))
            np.testing.assert_array_equal(read_array(linked), planes(i))


@pytest.mark.parametrize("text", ["<OME", '<OME><BinaryOnly MetadataFile="b.tif"/>'])
def test_a_file_that_is_refused_is_closed(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a.ome.tif", planes(0), f"{text}</OME>")
    with pytest.raises(StoreError) as refused:  # which keeps all that was not closed
        open_image(tmp_path / "a.ome.tif")
    held = [os.path.realpath(place) for place in Path("/proc/self/fd").iterdir()]
    assert str(tmp_path / "a.ome.tif") not in held, refused


def test_a_renamed_file_that_another_one_describes_is_refused(tmp_path: Path) -> None:
    files = write_positions(tmp_path, binary_only=True, compression=None)
    renamed = files[1].rename(tmp_path / "best.ome.tif")
    write(files[1], planes(1), files[1].name)  # else files are missing
    for read in (open_image, read_array):
        with pytest.raises(InputError, match=r"must name it; found none .* in Pos0.ome.tif"):
            read(renamed)


def test_the_file_that_describes_the_others_is_missed(tmp_path: Path) -> None:
    files = write_positions(tmp_path, binary_only=True, compression=None)
    files[0].unlink()
    with pytest.raises(StoreError, match=r"must lie beside it; found no Pos0"):
        open_image(files[1])


def test_an_image_in_several_files_is_one_of_a_folder(tmp_path: Path) -> None:
    files = write_channels(tmp_path)
    for path in files:
        image = open_image(path)
        np.testing.assert_array_equal(pixels(path), planes(0))
        assert image.channel_names == NAMES
        assert image.notes == (f"{path.name} is one of 2 files of one image: all are read.",)
    images, note = find_images(tmp_path)
    assert list(images.values()) == files[:1]
    assert "parts of an image, which is read with another of its files: 1." in note
    # Where one file describes the others, it is that one.
    for path in write_channels(tmp_path):
        if path != files[1]:
            part = f'<BinaryOnly MetadataFile="{files[1].name}" UUID="{PREFIX}1"/>'
            text = f'<OME xmlns="{SCHEMA}" UUID="{PREFIX}0">{part}</OME>'
            write(path, planes(0)[0], text)
    assert list(find_images(tmp_path)[0].values()) == files[1:]
    np.testing.assert_array_equal(pixels(files[0]), planes(0))


def test_positions_of_micro_manager_are_images(tmp_path: Path) -> None:
    files = [f"run_MMStack_Pos{i}.ome.tif" for i in range(2)]
    places = [(i, c, i, c) for i in range(2) for c in range(2)]
    for i, name in enumerate(files):
        as_micro_manager(tmp_path / name, i, described(i, places, files))
    with tifffile.TiffFile(tmp_path / files[0]) as tiff:
        assert tiff.series[0].axes == "RCYX"
    for i, name in enumerate(files):
        np.testing.assert_array_equal(pixels(tmp_path / name), planes(i))
    assert list(find_images(tmp_path)[0]) == files


def as_micro_manager(path: Path, position: int, text: str) -> None:
    """A file with that program's own header and index of planes, as well as OME-XML."""
    tag = (51123, "s", 0, "of a plane", True)
    tifffile.imwrite(
        path,
        planes(position),
        photometric="minisblack",
        description=text,
        metadata=None,
        extratags=[tag],
    )
    with tifffile.TiffFile(path) as tiff:
        offsets = [page.offset for page in tiff.pages]
    data = bytearray(path.read_bytes())
    # The first plane's entry moves to the end, to make room for the header.
    (count,) = struct.unpack_from("<H", data, offsets[0])
    entry, old = data[offsets[0] : offsets[0] + 6 + 12 * count], offsets[0]
    offsets[0] = len(data)
    struct.pack_into("<I", data, 4, offsets[0])
    summary = json.dumps({"MicroManagerVersion": "2", "Frames": 1, "Positions": 2}).encode()
    data += entry
    index = [(c, 0, 0, position, offset) for c, offset in enumerate(offsets)]
    header = (54773648, len(data), 0, 0, 0, 0, 2355492, len(summary))
    data += struct.pack("<II", 3453623, len(index)) + np.array(index, "<u4").tobytes()
    assert old == 8
    assert 32 + len(summary) <= len(entry)
    struct.pack_into("<8I", data, 8, *header)
    data[40 : 40 + len(summary)] = summary
    path.write_bytes(data)
