"""TIFF to OME-Zarr and back: same voxels, true pyramid, nothing left behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff import (
    convert,
    find_labels,
    mean_cells,
    mode_cells,
    open_image,
    open_labels,
    read_tiff,
)
from spoco_zoo.ngff.image import Image

from .conftest import ramp
from .test_ngff_write import plan_label, validate, write

Make = Callable[..., Path]
SIZES = {"PhysicalSizeZ": 1.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.5}


def whole(image: Image, level: int = 0) -> list[slice]:
    return [slice(0, n) for n in image.levels[level].shape]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    "packing",
    [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (64, 64)}],
    ids=["mapped", "unpacked", "tiled"],
)
def test_a_stack_becomes_a_pyramid(tmp_path: Path, version: str, packing: dict) -> None:
    data = ramp((9, 301, 150))
    tifffile.imwrite(
        tmp_path / "a.tif", data, ome=True, metadata={"axes": "ZYX", **SIZES}, **packing
    )
    steps: list[tuple[int, int]] = []
    convert(
        tmp_path / "a.tif",
        tmp_path / "a.zarr",
        version=version,
        chunk=(4, 32, 32),
        progress=lambda done, total: steps.append((done, total)),
    )
    validate(tmp_path / "a.zarr")
    image = open_image(tmp_path / "a.zarr")
    assert image.version == version
    assert [level.shape for level in image.levels] == [(9, 301, 150), (9, 151, 75)]
    np.testing.assert_array_equal(image.read_region(0, whole(image)), data)
    np.testing.assert_array_equal(
        image.read_region(1, whole(image, 1)), mean_cells(data, (1, 2, 2))
    )
    assert image.voxel_size(1) == (1.0, 1.0, 1.0)
    assert image.levels[1].translation == (0.0, 0.25, 0.25)
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "a.zarr"]


def test_films_with_channels_keep_all_axes_and_names(tmp_path: Path) -> None:
    data = ramp((2, 3, 2, 20, 30))
    names = {"Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.tif", data, ome=True, metadata={"axes": "TZCYX", **names})
    convert(tmp_path / "a.tif", tmp_path / "a.zarr")
    validate(tmp_path / "a.zarr")
    image = open_image(tmp_path / "a.zarr")
    assert (image.axes, image.channel_names) == (tuple("tczyx"), ("DAPI", "GFP"))
    np.testing.assert_array_equal(image.read_region(0, whole(image)), data.swapaxes(1, 2))
    convert(tmp_path / "a.zarr", tmp_path / "back.tif")
    back = open_image(tmp_path / "back.tif")
    assert back.channel_names == ("DAPI", "GFP")
    np.testing.assert_array_equal(back.read_region(0, whole(back)), data.swapaxes(1, 2))


def test_colour_images_become_three_channels(tmp_path: Path) -> None:
    data = ramp((300, 40, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", compression="zlib")
    convert(tmp_path / "a.tif", tmp_path / "a.zarr", chunk=(32, 8))
    validate(tmp_path / "a.zarr")
    image = open_image(tmp_path / "a.zarr")
    np.testing.assert_array_equal(image.read_region(0, whole(image)), data.transpose(2, 0, 1))


@pytest.mark.parametrize(("count", "more"), [(3, {}), (4, {"extrasamples": ["unassalpha"]})])
def test_a_photograph_lost_its_colours_and_that_it_is_one(
    tmp_path: Path, count: int, more: dict[str, Any]
) -> None:
    data = ramp((40, 30, count), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", **more)
    convert(tmp_path / "a.tif", tmp_path / "a.zarr")
    convert(tmp_path / "a.zarr", tmp_path / "b.tif")
    for name in ("a.tif", "a.zarr", "b.tif"):
        image = open_image(tmp_path / name)
        assert image.colour
        assert image.channel_names == ("red", "green", "blue", "alpha")[:count]
    omero = dict(zarr.open_group(tmp_path / "a.zarr").attrs)["ome"]["omero"]
    colours = [channel["color"] for channel in omero["channels"]]
    assert colours[:3] == ["FF0000", "00FF00", "0000FF"]


@pytest.mark.parametrize("name", ["out.png", "labels.h5", "a.NPY", "s.csv"])
def test_a_name_of_another_kind_of_file_became_a_folder(tmp_path: Path, name: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((8, 8)))
    with pytest.raises(StoreError, match=r"ends in \."):
        convert(tmp_path / "a.tif", tmp_path / name)
    with pytest.raises(StoreError, match=r"ends in \."):
        plan_label(open_image(tmp_path / "a.tif"), name="spoco", output=tmp_path / name)


def test_colours_and_windows_of_channels_stay(tmp_path: Path) -> None:
    image = ramp((3, 64, 64))
    tifffile.imwrite(tmp_path / "a.tif", image, metadata={"axes": "CYX"}, photometric="minisblack")
    convert(tmp_path / "a.tif", tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr")
    ome = dict(group.attrs)["ome"]
    first, second, third = ome["omero"]["channels"]
    ends = {"min": 0.0, "max": 4095.0, "start": 100, "end": 900.5}
    first |= {"color": "0ab4F0", "window": ends, "active": False}
    # What viewers could not show is made anew.
    kept = {"color": second["color"], "window": second["window"], "active": True}
    second |= {"color": "blue", "window": {**ends, "end": 50}, "active": 1}
    third["window"] = {"min": 0, "max": None}
    group.attrs["ome"] = ome
    convert(tmp_path / "a.zarr", tmp_path / "b.zarr", version="0.4")
    validate(tmp_path / "b.zarr")
    shown = dict(zarr.open_group(tmp_path / "b.zarr").attrs)["omero"]["channels"]
    assert {name: shown[0][name] for name in ("color", "window", "active")} == {
        "color": "0ab4F0",
        "window": ends,
        "active": False,
    }
    assert {name: shown[1][name] for name in kept} == kept
    assert shown[2]["window"]["start"] < shown[2]["window"]["end"]


def test_labels_take_the_mode(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (300, 270)).astype(np.uint32) * 70_000
    tifffile.imwrite(tmp_path / "a.tif", labels)
    convert(tmp_path / "a.tif", tmp_path / "a.zarr", labels=True)
    validate(tmp_path / "a.zarr")
    image = open_image(tmp_path / "a.zarr")
    assert image.is_label
    assert image.dtype == np.uint32
    np.testing.assert_array_equal(image.read_region(1, whole(image, 1)), mode_cells(labels, (2, 2)))
    convert(tmp_path / "a.zarr", tmp_path / "b.zarr", version="0.4")
    other = open_image(tmp_path / "b.zarr")
    assert (other.version, other.is_label) == ("0.4", True)
    np.testing.assert_array_equal(other.read_region(0, whole(other)), labels)


def test_a_level_goes_back_to_tiff_with_its_voxel_size(make_image: Make, tmp_path: Path) -> None:
    fine, coarse = ramp((6, 40, 40)), ramp((6, 20, 20))
    path = make_image([fine, coarse], chunks=(4, 8, 8))
    convert(path, tmp_path / "b.tif", level=1)
    array, axes, voxel, _ = read_tiff(tmp_path / "b.tif")
    np.testing.assert_array_equal(array, coarse)
    assert (axes, voxel) == (("z", "y", "x"), (1.0, 2.0, 2.0))


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.uint64, np.int16, np.float32])
def test_types_that_tiff_lacks_keep_their_values(
    make_image: Make, tmp_path: Path, dtype: type
) -> None:
    data = (ramp((12, 10)) % 100).astype(dtype)
    convert(make_image([data], "yx"), tmp_path / "a.tif")
    np.testing.assert_array_equal(read_tiff(tmp_path / "a.tif")[0], data)


def test_ids_that_tiff_cannot_hold_are_refused(make_image: Make, tmp_path: Path) -> None:
    path = make_image([np.full((4, 4), 2**32, np.uint64)], "yx")
    with pytest.raises(StoreError, match="32 bits"):
        convert(path, tmp_path / "a.tif")
    assert os.listdir(tmp_path) == [path.name]


def test_targets_are_replaced_only_when_asked(make_image: Make, tmp_path: Path) -> None:
    path = make_image([ramp((20, 20))], "yx")
    tifffile.imwrite(tmp_path / "new.tif", ramp((30, 30)))
    other = make_image([ramp((8, 8))], "yx", name="old.zarr")
    with pytest.raises(StoreError, match="--overwrite"):
        convert(tmp_path / "new.tif", other)
    convert(tmp_path / "new.tif", other, overwrite=True)
    assert open_image(other).spatial_shape() == (30, 30)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("text")
    with pytest.raises(StoreError):
        convert(tmp_path / "new.tif", tmp_path / "folder", overwrite=True)
    assert (tmp_path / "folder" / "thesis.txt").exists()
    for bad in (path, f"{path}/labels/x", tmp_path):
        with pytest.raises(StoreError, match="outside"):
            convert(path, bad, overwrite=True)


def test_a_store_under_another_name_was_replaced_by_one_of_its_own_levels(
    make_image: Make, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    levels = [ramp((40, 40)), ramp((20, 20))]
    path = make_image(levels, "yx", name="real/a.zarr")
    with pytest.raises(StoreError, match="outside"):
        convert(path, tmp_path / "link" / "a.zarr", level=1, overwrite=True)
    assert open_image(path).spatial_shape() == (40, 40)


def test_a_damaged_source_leaves_nothing_behind(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((64, 64)), compression="zlib")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"a\.tif"):
        convert(tmp_path / "a.tif", tmp_path / "a.zarr")
    assert os.listdir(tmp_path) == ["a.tif"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 3}, "level"),
        ({"version": "0.6"}, "0.4 or 0.5"),
        ({"chunk": (8,)}, "chunk"),
        ({"chunk": (0, 8)}, "chunk"),
        ({"labels": True}, "labels must be integers"),
        ({"series": 1}, "series"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.float32))
    with pytest.raises(StoreError, match=message):
        convert(tmp_path / "a.tif", tmp_path / "a.zarr", **options)
    assert os.listdir(tmp_path) == ["a.tif"]


# --- labels as labelled arrays


def test_labels_open_with_physical_coordinates(make_image: Make, tmp_path: Path) -> None:
    transforms = [[{"type": "scale", "scale": [2.0, 0.5]}]]
    path = make_image([ramp((20, 30))], "yx", transforms=transforms)
    write(plan_label(open_image(path), name="cells"))
    labels = open_labels(path)
    assert isinstance(labels, xr.DataArray)
    assert (labels.dims, labels.name) == (("y", "x"), "cells")
    assert labels.coords["x"].attrs["units"] == "micrometer"
    np.testing.assert_allclose(labels.coords["y"].values, np.arange(20) * 2.0)
    crop = plan_label(open_image(path), name="c", output=tmp_path / "o", roi=[(5, 9), (4, 30)])
    write(crop)
    assert float(open_labels(tmp_path / "o").coords["y"][0]) == 10.0


def test_labels_are_lazy_and_index_like_numpy(make_image: Make) -> None:
    path = make_image([ramp((20, 30))], "yx")
    target = plan_label(open_image(path), name="cells")
    write(target)
    reference = np.random.default_rng(0).integers(0, 9, (20, 30)).astype(np.uint32)
    labels = open_labels(path, "cells")
    target_array = Path(target.path) / "0"
    zarr.open_array(target_array, mode="r+")[...] = reference
    for key in [
        (slice(2, 9), slice(None, None, 3)),
        (slice(None, None, -1), 4),
        (-1, slice(5, 5)),
        ([4, 1, 1], slice(0, 3)),
        (3, 3),
    ]:
        np.testing.assert_array_equal(labels[key].values, reference[key])
    np.testing.assert_array_equal(labels.values, reference)


def test_a_label_must_be_named_where_there_are_two(make_image: Make) -> None:
    path = make_image([ramp((20, 20))], "yx")
    with pytest.raises(StoreError, match="without labels"):
        open_labels(path)
    for name in ("one", "two"):
        write(plan_label(open_image(path), name=name), value=len(name))
    with pytest.raises(StoreError, match="one, two"):
        open_labels(path)
    with pytest.raises(StoreError, match="'three'"):
        open_labels(path, "three")
    assert open_labels(path, "two").name == "two"
    with pytest.raises(StoreError, match="level"):
        open_labels(path, "two", level=1)


def test_the_name_of_a_label_was_ignored_where_there_is_nothing_to_choose(
    make_image: Make, tmp_path: Path
) -> None:
    path = make_image([ramp((20, 20))], "yx")
    write(plan_label(open_image(path), name="one"), value=1)
    tifffile.imwrite(tmp_path / "a.tif", ramp((9, 8)))
    for one in (path / "labels" / "one", tmp_path / "a.tif"):
        with pytest.raises(StoreError, match="'other'"):
            open_labels(one, "other")


def test_label_tiffs_open_the_same_way(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp((9, 8)))
    np.testing.assert_array_equal(open_labels(tmp_path / "a.tif")[2:4].values, ramp((9, 8))[2:4])
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((9, 8), np.float32))
    with pytest.raises(StoreError, match="integers"):
        open_labels(tmp_path / "b.tif")


def test_axes_may_count_in_units_of_their_own(make_image: Make, tmp_path: Path) -> None:
    source = make_image(
        [ramp((6, 300, 300))], transforms=[[{"type": "scale", "scale": [500, 0.5, 0.5]}]]
    )
    file = source / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["ome"]["multiscales"][0]["axes"][0]["unit"] = "nanometer"
    file.write_text(json.dumps(content))
    convert(source, tmp_path / "b.ome.zarr")
    image = open_image(tmp_path / "b.ome.zarr")
    assert [level.shape for level in image.levels] == [(6, 300, 300), (3, 150, 150)]
    target = plan_label(image=open_image(source), output=tmp_path / "l.ome.zarr", name="l")
    assert [level.shape for level in target.levels] == [(6, 300, 300), (3, 150, 150)]


def test_of_several_labels_one_must_be_named(make_image: Make) -> None:
    source = make_image([ramp((9, 7))], "yx")
    zarr.open_group(source / "labels", mode="w").attrs["ome"] = {
        "version": "0.5", "labels": ["f1", "f2"]
    }  # fmt: skip
    with pytest.raises(StoreError, match=r"found several: f1, f2 .*--label-name in train, tune, c"):
        find_labels(source)


def test_labels_of_an_image_were_left_behind_without_a_word(
    make_image: Make, tmp_path: Path
) -> None:
    path = make_image([ramp((20, 20))], "yx")
    write(plan_label(open_image(path), name="cells"))
    notes: list[str] = []
    convert(path, tmp_path / "o.zarr", version="0.4", on_note=notes.append)
    assert "labels/cells" in notes[-1]


def test_a_tiff_has_the_sizes_that_are_known(tmp_path: Path) -> None:
    """Of axes that state a unit, also where another does not."""
    tifffile.imwrite(tmp_path / "a.tif", ramp((6, 16, 16)), metadata={"axes": "ZYX"})
    convert(tmp_path / "a.tif", tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    ome = json.loads(json.dumps(group.attrs["ome"]))
    multiscale = ome["multiscales"][0]
    for axis, unit in zip(multiscale["axes"][1:], ("micrometer", "nanometer"), strict=True):
        axis["unit"] = unit
    for level in multiscale["datasets"]:
        level["coordinateTransformations"] = [
            {"type": "scale", "scale": [2, 0.25, 250]},
            {"type": "translation", "translation": [0, 10, -3]},
        ]
    group.attrs["ome"] = ome
    notes = list[str]()
    convert(tmp_path / "a.zarr", tmp_path / "b.tif", on_note=notes.append)
    assert open_image(tmp_path / "b.tif").incomplete == "y 0.25 um, x 0.25 um, but no z"
    assert any("y 10 micrometer, x -3 nanometer is left out" in note for note in notes)
