"""TIFF files of many makers read as t, c, z, y, x; label TIFFs come back as they were."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff import convert, open_image, read_tiff, write_label_tiff, write_tiff

from .conftest import ramp

LAYOUTS: dict[str, tuple[str, tuple[int, ...], str, dict[str, Any]]] = {
    "plain plane": ("YX", (9, 7), "yx", {}),
    "unnamed pages": ("QYX", (5, 9, 7), "zyx", {}),
    "ome stack": ("ZYX", (5, 9, 7), "zyx", {"ome": True}),
    "ome all axes": ("TCZYX", (2, 3, 4, 9, 7), "tczyx", {"ome": True}),
    "ome z first": ("TZCYX", (2, 3, 4, 9, 7), "tczyx", {"ome": True}),
    "imagej": ("TZCYX", (2, 3, 4, 9, 7), "tczyx", {"imagej": True}),
    "rgb": ("YXS", (9, 7, 3), "cyx", {"photometric": "rgb"}),
    "rgb stack": ("ZYXS", (4, 9, 7, 3), "czyx", {"photometric": "rgb"}),
    "big": ("ZYX", (5, 9, 7), "zyx", {"bigtiff": True}),
    "big-endian": ("ZYX", (5, 9, 7), "zyx", {"byteorder": ">"}),
}


@pytest.mark.parametrize(
    "packing",
    [{}, {"compression": "zlib"}, {"compression": "zlib", "rowsperstrip": 2}],
    ids=["raw", "compressed", "strips"],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_in_canonical_order(
    tmp_path: Path, layout: str, packing: dict[str, Any]
) -> None:
    stored, shape, axes, options = LAYOUTS[layout]
    data = ramp(shape, np.uint8 if "S" in stored else np.uint16)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, data, metadata={"axes": stored}, **options, **packing)
    order = [stored.index({"c": "S"}.get(a, a.upper())) if "S" in stored else
             stored.replace("Q", "Z").index(a.upper()) for a in axes]  # fmt: skip
    expected = data.transpose(order)
    array, found, _, _ = read_tiff(path)
    assert "".join(found) == axes
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == data.dtype.newbyteorder("=")

    image = open_image(path)
    assert image.kind == "tiff"
    where = tuple(slice(1, n - 1) for n in image.spatial_shape())
    last = expected[-1] if "t" in axes else expected
    last = last if "c" in axes else last[None]
    got = image.read(0, image.n_times - 1, None, where)
    np.testing.assert_array_equal(got, last[(slice(None), *where)])


def test_voxel_size_and_channels_come_from_ome(tmp_path: Path) -> None:
    metadata = {
        "axes": "CZYX",
        "Channel": {"Name": ["DAPI", "GFP"]},
        "PhysicalSizeX": 200.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 0.001,
        "PhysicalSizeZUnit": "mm",
    }
    tifffile.imwrite(tmp_path / "a.tif", ramp((2, 3, 8, 8)), ome=True, metadata=metadata)
    image = open_image(tmp_path / "a.tif")
    assert image.channel_names == ("DAPI", "GFP")
    assert image.voxel_size() == pytest.approx((1.0, 0.25, 0.2))
    assert image.units == (None, *("micrometer",) * 3)


def test_channels_without_a_name_have_their_index(tmp_path: Path) -> None:
    about = {"axes": "CYX", "Channel": {"Name": ["DAPI", "", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.tif", ramp((3, 8, 8)), ome=True, metadata=about)
    assert open_image(tmp_path / "a.tif").channel_names == ("DAPI", "1", "GFP")


def test_voxel_size_comes_from_imagej(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        ramp((3, 8, 8)),
        imagej=True,
        resolution=(5.0, 4.0),
        metadata={"spacing": 1.5, "unit": "um", "axes": "ZYX"},
    )
    assert open_image(tmp_path / "a.tif").voxel_size() == pytest.approx((1.5, 0.25, 0.2))
    # ImageJ does not write a spacing of 1.
    about: dict[str, object] = {"unit": "um", "axes": "ZYX"}
    tifffile.imwrite(
        tmp_path / "b.tif", ramp((3, 8, 8)), imagej=True, resolution=(5, 4), metadata=about
    )
    assert open_image(tmp_path / "b.tif").voxel_size() == pytest.approx((1.0, 0.25, 0.2))
    # Of a stage that went down; such sizes were taken for none.
    about["spacing"] = -0.5
    tifffile.imwrite(
        tmp_path / "c.tif", ramp((3, 8, 8)), imagej=True, resolution=(5, 4), metadata=about
    )
    assert open_image(tmp_path / "c.tif").voxel_size() == pytest.approx((0.5, 0.25, 0.2))


def test_screen_resolution_is_no_voxel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "inch.tif", ramp((8, 8)), resolution=(72, 72), resolutionunit=2)
    assert open_image(tmp_path / "inch.tif").voxel_size() is None
    tifffile.imwrite(tmp_path / "cm.tif", ramp((8, 8)), resolution=(2e4, 1e4), resolutionunit=3)
    assert open_image(tmp_path / "cm.tif").voxel_size() == pytest.approx((1.0, 0.5))
    for dots in (1, 28.346, 300 / 2.54):
        tifffile.imwrite(
            tmp_path / "page.tif", ramp((8, 8)), resolution=(dots, dots), resolutionunit=3
        )
        assert open_image(tmp_path / "page.tif").voxel_size() is None


def test_numbers_of_colours_are_no_intensities(tmp_path: Path) -> None:
    numbers = np.arange(64, dtype=np.uint8).reshape(8, 8)
    tint, mixed = np.zeros((2, 3, 256), np.uint16)
    tint[0] = np.arange(256) * 257  # as Fiji stores an image that is shown in red
    mixed[:, :32] = np.random.default_rng(0).integers(0, 2**16, (3, 32))
    for name, palette in (("red", tint), ("mixed", mixed)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, numbers, photometric="palette", colormap=palette)
        image = open_image(path)
        assert image.indexed == (name == "mixed")
        assert bool(image.notes) == image.indexed
        np.testing.assert_array_equal(image.read_region(0, (slice(0, 8),) * 2), numbers)


def test_colours_that_are_no_red_green_and_blue_are_refused(tmp_path: Path) -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    tifffile.imwrite(tmp_path / "cmyk.tif", inks, photometric="separated")
    with pytest.raises(StoreError, match=r"red, green and blue; found CMYK.*Save it as RGB"):
        open_image(tmp_path / "cmyk.tif")
    tifffile.imwrite(tmp_path / "white.tif", ramp((8, 8)), photometric="miniswhite")
    (note,) = open_image(tmp_path / "white.tif").notes
    assert "says that 0 is white" in note


def test_files_that_an_ome_tiff_names_must_be_there(tmp_path: Path) -> None:
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:'
        f"{z}1111111-1111-4111-8111-111111111111</UUID></TiffData>"
        for z, name in enumerate(("a.ome.tif", "b.ome.tif"))
    )
    about = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:01111111-1111-4111-8111-111111111111"><Image ID="Image:0"><Pixels '
        'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="2" '
        f'SizeC="1" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}'
        "</Pixels></Image></OME>"
    )
    first = tmp_path / "a.ome.tif"
    tifffile.imwrite(first, np.ones((8, 8), np.uint8), description=about, metadata=None)
    with pytest.raises(StoreError, match=r"1 are not there, the first is b\.ome\.tif"):
        open_image(first)
    tifffile.imwrite(tmp_path / "b.ome.tif", np.full((8, 8), 2, np.uint8), metadata=None)
    assert open_image(first).read(0, 0, None, (slice(0, 2), slice(0, 1), slice(0, 1))).max() == 2


def test_sub_resolutions_are_levels(tmp_path: Path) -> None:
    data = ramp((64, 48))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "axes": "YX"}
        tiff.write(data, subifds=1, metadata=size)
        tiff.write(data[::2, ::2], subfiletype=1)
    image = open_image(tmp_path / "a.ome.tif")
    assert [level.shape for level in image.levels] == [(64, 48), (32, 24)]
    assert image.levels[1].scale == (1.0, 1.0)
    assert image.levels[1].translation == (0.25, 0.25)
    got = image.read(1, 0, None, (slice(0, 32), slice(0, 24)))[0]
    np.testing.assert_array_equal(got, data[::2, ::2])


@pytest.mark.parametrize(
    ("kind", "axes"),
    [
        *[(kind, axes) for kind in ("ome", "plain") for axes in ("YX", "ZYX", "YXS")],
        *[(kind, axes) for kind in ("pages", "nameless pages") for axes in ("YX", "YXS")],
    ],
)
def test_a_tiled_pyramid_could_not_be_read_at_its_finest_level(
    tmp_path: Path, kind: str, axes: str
) -> None:
    data = ramp({"YX": (128, 96), "ZYX": (3, 128, 96), "YXS": (128, 96, 3)}[axes], np.uint8)
    half = data[:, ::2, ::2] if axes == "ZYX" else data[::2, ::2]
    options: dict[str, Any] = {"tile": (32, 32), "compression": "zlib"}
    options["photometric"] = "rgb" if axes == "YXS" else "minisblack"
    metadata = None if kind == "nameless pages" else {"axes": axes}
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=kind == "ome") as tiff:
        subifds = None if "pages" in kind else 1
        tiff.write(data, subifds=subifds, metadata=metadata, **options)
        tiff.write(half, subfiletype=1, metadata=None, **options)
    image = open_image(tmp_path / "a.tif")
    assert len(image.levels) == 2
    for level, values in enumerate((data, half)):
        expected = np.moveaxis(values, -1, 0) if axes == "YXS" else values
        everything = [slice(0, n) for n in image.levels[level].shape]
        np.testing.assert_array_equal(image.read_region(level, everything), expected)
        assert image.chunks(level)[-2:] == (32, 32)
    finest = np.moveaxis(data, -1, 0) if axes == "YXS" else data
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif")[0], finest)


def test_a_series_is_chosen_by_number(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif", ome=True) as tiff:
        tiff.write(ramp((8, 8)), metadata={"axes": "YX"})
        tiff.write(ramp((3, 5, 6)), metadata={"axes": "ZYX"})
    assert open_image(tmp_path / "two.tif").spatial_shape() == (8, 8)
    (note,) = open_image(tmp_path / "two.tif").notes
    assert "0: YX (8, 8); 1: ZYX (3, 5, 6). The first is used" in note
    assert open_image(tmp_path / "two.tif", series=1).notes == ()
    second = open_image(tmp_path / "two.tif", series=1)
    assert second.spatial_shape() == (3, 5, 6)
    np.testing.assert_array_equal(
        second.read(0, 0, None, (slice(0, 3), slice(0, 5), slice(0, 6)))[0], ramp((3, 5, 6))
    )
    with pytest.raises(StoreError, match=r"0: YX \(8, 8\); 1: ZYX \(3, 5, 6\)"):
        open_image(tmp_path / "two.tif", series=2)


def test_two_unnamed_axes_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((2, 3, 8, 8)), photometric="minisblack")
    with pytest.raises(StoreError, match="named axes"):
        open_image(tmp_path / "a.tif")


def test_damaged_pixels_raise_with_file_and_region(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp((64, 64)), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages.first.dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    image = open_image(path)
    with pytest.raises(StoreError, match=r"a.tif, level 0, region \[0:64, 0:64\]"):
        image.read(0, 0, None, (slice(0, 64), slice(0, 64)))
    with pytest.raises(StoreError, match="readable"):
        read_tiff(path)


@pytest.mark.parametrize("shape", [(9, 7), (4, 9, 7)])
@pytest.mark.parametrize("top", [200, 70_000, 2**32 - 1])
def test_label_tiffs_come_back(tmp_path: Path, shape: tuple[int, ...], top: int) -> None:
    labels = np.zeros(shape, np.int64)
    labels[..., 2:5, 3] = top
    scale = (1.5, 0.25, 0.2)[-len(shape) :]
    write_label_tiff(tmp_path / "labels.tif", labels, scale)
    array, axes, voxel, _ = read_tiff(tmp_path / "labels.tif")
    np.testing.assert_array_equal(array, labels)
    assert array.dtype == (np.uint16 if top < 2**16 else np.uint32)
    assert "".join(axes) == "zyx"[-len(shape) :]
    assert voxel == pytest.approx(scale)
    assert [file.name for file in tmp_path.iterdir()] == ["labels.tif"]


@pytest.mark.parametrize(
    ("scale", "pixels"), [((0.3, 0.2, 0.1), (1e5, 5e4)), ((None, 1e-7, 1e-7), None), (None, None)]
)
def test_programs_without_ome_xml_find_the_pixel_size(
    tmp_path: Path, scale: tuple[float, ...] | None, pixels: tuple[float, float] | None
) -> None:
    write_label_tiff(tmp_path / "a.tif", np.ones((2, 3, 4), np.uint8), scale)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages.first
        in_cm = page.tags["ResolutionUnit"].value == 3
        assert in_cm == (pixels is not None)
        if pixels:
            assert page.get_resolution("CENTIMETER") == pytest.approx(pixels)


def test_stored_labels_are_written_without_holding_all_of_them(tmp_path: Path) -> None:
    labels = zarr.create_array(
        tmp_path / "l.zarr", shape=(2, 48, 256, 256), chunks=(1, 5, 64, 64), dtype="uint64"
    )
    for t in range(2):
        labels[t] = np.arange(labels[t].size).reshape(labels.shape[1:]) % 70_000
    tracemalloc.start()
    try:
        write_label_tiff(tmp_path / "l.tif", labels, (1, 1, 1), axes="TZYX", highest=69_999)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < labels.nbytes / 3
    array, axes, _, _ = read_tiff(tmp_path / "l.tif")
    assert axes == ("t", "z", "y", "x")
    assert array.dtype == np.uint32
    np.testing.assert_array_equal(array, labels[...])


@pytest.mark.parametrize("shape", [(150, 333), (64, 64), (2, 3, 150, 200)])
def test_planes_that_are_too_large_are_written_in_tiles(
    tmp_path: Path, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_tiff, "SLAB_BYTES", 2 * 64 * 64 * 4)
    monkeypatch.setattr(write_tiff, "TILE", 64)
    labels = np.random.default_rng(0).integers(0, 2**20, shape, np.uint32)
    stored = zarr.create_array(
        tmp_path / "l.zarr", data=labels, chunks=(1,) * (len(shape) - 2) + (64, 64)
    )
    axes = "TZYX"[-len(shape) :]
    write_label_tiff(tmp_path / "l.tif", stored, (1.0, 0.5, 0.5)[-len(axes) :], axes=axes)
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        assert file.pages.first.is_tiled == (shape != (64, 64))
    array, _, voxel, _ = read_tiff(tmp_path / "l.tif")
    np.testing.assert_array_equal(array, labels)
    assert voxel[-1] == 0.5
    steps: list[tuple[int, int]] = []
    convert(tmp_path / "l.tif", tmp_path / "l.ome.zarr")
    convert(
        tmp_path / "l.ome.zarr", tmp_path / "again.tif", progress=lambda *now: steps.append(now)
    )
    np.testing.assert_array_equal(read_tiff(tmp_path / "again.tif")[0], labels)
    pieces = 1 if shape == (64, 64) else -(-shape[-2] // 64) * -(-shape[-1] // 64)
    pieces *= int(np.prod(shape[:-2]))
    assert steps[-1] == (pieces, pieces)


def test_label_films_keep_their_time_axis(tmp_path: Path) -> None:
    labels = ramp((3, 8, 6))
    write_label_tiff(tmp_path / "film.tif", labels, (0.5, 0.5), axes="TYX")
    array, axes, _, _ = read_tiff(tmp_path / "film.tif")
    assert axes == ("t", "y", "x")
    np.testing.assert_array_equal(array, labels)
    assert open_image(tmp_path / "film.tif").interval is None


@pytest.mark.parametrize("of_imagej", [False, True])
def test_films_keep_their_interval(tmp_path: Path, of_imagej: bool) -> None:
    about = {"axes": "TYX", "finterval": 90.0, "unit": "um"}
    if not of_imagej:
        about = {"axes": "TYX", "TimeIncrement": 1.5, "TimeIncrementUnit": "min"}
    film = tmp_path / "film.tif"
    tifffile.imwrite(film, ramp((3, 8, 6)), imagej=of_imagej, ome=not of_imagej, metadata=about)
    assert open_image(film).interval == 90.0
    convert(film, tmp_path / "film.ome.zarr")
    image = open_image(tmp_path / "film.ome.zarr")
    assert (image.units[0], image.levels[0].scale[0]) == ("second", 90.0)
    convert(tmp_path / "film.ome.zarr", tmp_path / "back.ome.tif")
    assert open_image(tmp_path / "back.ome.tif").interval == 90.0
    # Also under a name that is no UTF-8.
    odd = tmp_path / os.fsdecode(b"l\xff.tif")
    write_label_tiff(odd, ramp((3, 8, 6)), axes="TYX", interval=90.0)
    odd.rename(tmp_path / "labels.tif")
    assert open_image(tmp_path / "labels.tif").interval == 90.0


@pytest.mark.parametrize(("unit", "seconds"), [("sec", 2.0), ("min", 120.0), ("fortnight", None)])
def test_imagej_states_the_unit_of_an_interval(
    tmp_path: Path, unit: str, seconds: float | None
) -> None:
    about = {"axes": "TYX", "finterval": 2.0, "tunit": unit}  # and no unit of length
    tifffile.imwrite(tmp_path / "film.tif", ramp((3, 8, 6)), imagej=True, metadata=about)
    assert open_image(tmp_path / "film.tif").interval == seconds


def test_labels_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    for bad in (np.array([[2**32]]), np.array([[-1]])):
        with pytest.raises(StoreError, match="32 bits"):
            write_label_tiff(tmp_path / "labels.tif", bad)
    with pytest.raises(StoreError, match="writable"):
        write_label_tiff(tmp_path / "missing" / "labels.tif", np.ones((4, 4), int))
    assert list(tmp_path.iterdir()) == []
