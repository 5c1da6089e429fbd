"""Labels: planned, begun, resumed, published, refused; and what other software makes of them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff import (
    LabelTarget,
    create_label,
    open_image,
    open_label_array,
    open_scratch,
    plan_label,
    publish_label,
    remove_label,
    scratch_array,
    write_blocks,
)
from spoco_zoo.ngff.store import emptied_blocks

from .conftest import ramp

Make = Callable[..., Path]
CHANNELS = {"channels": ["a", "b"]}
LAYOUTS = [
    ("yx", [(40, 30), (20, 15)], {}),
    ("zyx", [(9, 33, 31), (9, 17, 16), (5, 9, 8)], {}),
    ("tczyx", [(2, 2, 5, 20, 20), (2, 2, 5, 10, 10)], CHANNELS),
]


def write(target: LabelTarget, *, publish: bool = True, value: int = 5) -> None:
    n = len(target.spatial_shape())
    create_label(target, dtype=np.uint32, shard=(16,) * n, chunk=(8,) * n)
    for level in range(len(target.levels)):
        array = open_label_array(target, level)
        for where in write_blocks(array):
            array[where] = value + level
    if publish:
        publish_label(target)


def validate(path: Path) -> None:
    """Raise unless both validators accept the store."""
    import ome_zarr_models
    import yaozarrs

    version = "0.4" if (path / ".zattrs").exists() else "0.5"
    with warnings.catch_warnings():
        # The validators' own libraries warn about each other's releases.
        warnings.simplefilter("ignore")
        ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"), version=version)
        yaozarrs.validate_zarr_store(str(path))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("axes", "shapes", "options"), LAYOUTS)
def test_labels_in_place_are_valid_and_found(
    make_image: Make, version: str, axes: str, shapes: list[tuple[int, ...]], options: dict
) -> None:
    path = make_image([ramp(s) for s in shapes], axes, version=version, **options)
    image = open_image(path)
    target = plan_label(image, name="cells")
    assert (target.path, target.in_place) == (f"{path}/labels/cells", True)
    assert [lv.shape for lv in target.levels] == [
        tuple(n for n, a in zip(s, axes, strict=True) if a != "c") for s in shapes
    ]
    assert target.axes == tuple(a for a in axes if a != "c")
    validate(path)
    write(target)
    validate(path)
    label = open_image(f"{path}/labels/cells")
    assert (label.is_label, label.version, label.units[-1]) == (True, version, "micrometer")
    for level in range(len(shapes)):
        assert label.levels[level].scale[-2:] == image.levels[level].scale[-2:]
        block = label.read(level, 0, None, [slice(0, n) for n in label.spatial_shape(level)])
        assert (block == 5 + level).all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_new_store_is_a_valid_label_beside_its_image(
    make_image: Make, tmp_path: Path, version: str
) -> None:
    image = open_image(make_image([ramp(s) for s in LAYOUTS[1][1]], version="0.4"))
    target = plan_label(image, name="cells", output=tmp_path / "out.zarr", version=version)
    write(target)
    validate(tmp_path / "out.zarr")
    label = open_image(tmp_path / "out.zarr")
    assert (label.version, label.is_label, len(label.levels)) == (version, True, 3)
    assert target.source == ("../image.ome.zarr" if version == "0.4" else None)


def test_the_command_line_validator_agrees(make_image: Make) -> None:
    path = make_image([ramp((20, 20))], "yx")
    write(plan_label(open_image(path), name="cells"))
    tool = Path(sys.executable).with_name("ome-zarr-models")
    if not tool.exists():
        pytest.skip("the ome-zarr-models command is not installed")
    done = subprocess.run([tool, "validate", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.filterwarnings("ignore")  # ome-zarr-py and dask warn about their own internals
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_py_finds_the_label(make_image: Make, version: str) -> None:
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    path = make_image([ramp((9, 33, 31)), ramp((9, 17, 16))], version=version)
    write(plan_label(open_image(path), name="cells"))
    nodes = list(Reader(parse_url(str(path)))())
    found = {os.path.basename(str(node.zarr.path).rstrip("/")): node for node in nodes}
    assert "cells" in found
    assert [data.shape for data in found["cells"].data] == [(9, 33, 31), (9, 17, 16)]
    assert (np.asarray(found["cells"].data[0]) == 5).all()


@pytest.mark.filterwarnings("ignore")  # napari's own imports warn
def test_napari_shows_a_labels_layer(make_image: Make, tmp_path: Path) -> None:
    plugin = pytest.importorskip("napari_ome_zarr", reason="napari-ome-zarr is not installed")
    path = make_image([ramp((20, 20))], "yx")
    write(plan_label(open_image(path), name="cells"))
    write(plan_label(open_image(path), name="cells", output=tmp_path / "out.zarr"))
    for place in (path, tmp_path / "out.zarr"):
        layers = plugin.napari_get_reader(str(place))(str(place))
        assert "labels" in [layer[2] for layer in layers]


def test_nothing_shows_before_it_is_published(make_image: Make) -> None:
    path = make_image([ramp((20, 20))], "yx")
    target = plan_label(open_image(path), name="cells")
    write(target, publish=False)
    listed = json.loads((path / "labels" / "zarr.json").read_text())["attributes"]["ome"]
    assert listed == {"version": "0.5", "labels": []}
    with pytest.raises(StoreError, match="no `ome`"):
        open_image(target.path)
    publish_label(target)
    publish_label(target)
    listed = json.loads((path / "labels" / "zarr.json").read_text())["attributes"]["ome"]
    assert listed["labels"] == ["cells"]


def test_other_labels_stay_listed(make_image: Make) -> None:
    for version in ("0.4", "0.5"):
        path = make_image([ramp((20, 20))], "yx", version=version)
        for name in ("one", "two"):
            write(plan_label(open_image(path), name=name))
        labels = zarr.open_group(path / "labels", mode="r").attrs
        assert (labels["labels"] if version == "0.4" else labels["ome"]["labels"]) == ["one", "two"]
        remove_label(plan_label(open_image(path), name="one", overwrite=True))
        assert not (path / "labels" / "one").exists()
        validate(path)


def test_a_begun_label_is_kept_with_its_content(make_image: Make) -> None:
    path = make_image([ramp((20, 20))], "yx")
    target = plan_label(open_image(path), name="cells")
    write(target, publish=False, value=9)
    again = plan_label(open_image(path), name="cells")
    create_label(again, dtype=np.uint32, shard=(16, 16), chunk=(8, 8))
    assert (open_label_array(again, 0, "r")[...] == 9).all()
    with pytest.raises(StoreError, match="same shape, dtype and chunks"):
        create_label(again, dtype=np.uint64, shard=(16, 16), chunk=(8, 8))
    fresh = plan_label(open_image(path), name="cells", overwrite=True)
    create_label(fresh, dtype=np.uint64, shard=(16, 16), chunk=(8, 8))
    assert open_label_array(fresh, 0).dtype == np.uint64
    assert not open_label_array(fresh, 0)[...].any()


@pytest.mark.parametrize("in_place", [True, False])
def test_a_finished_label_is_replaced_only_when_asked(
    make_image: Make, tmp_path: Path, in_place: bool
) -> None:
    image = open_image(make_image([ramp((20, 20))], "yx"))
    output = None if in_place else tmp_path / "out.zarr"
    target = plan_label(image, name="cells", output=output)
    write(target)
    with pytest.raises(StoreError, match="--overwrite"):
        plan_label(image, name="cells", output=output)
    with pytest.raises(StoreError, match="--overwrite"):
        create_label(target, dtype=np.uint32, shard=(16, 16), chunk=(8, 8))
    with pytest.raises(StoreError, match="--overwrite"):
        remove_label(target)
    write(plan_label(image, name="cells", output=output, overwrite=True), value=3)
    label = open_image(target.path)
    assert (label.read(0, 0, None, (slice(0, 20), slice(0, 20))) == 3).all()


def test_what_is_no_label_is_never_replaced(make_image: Make, tmp_path: Path) -> None:
    image = open_image(make_image([ramp((20, 20))], "yx"))
    other = make_image([ramp((8, 8))], "yx", name="precious.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("text")
    (tmp_path / "file").write_text("text")
    for place in (other, tmp_path / "folder", tmp_path / "file"):
        with pytest.raises(StoreError, match="only labels are ever replaced"):
            plan_label(image, name="cells", output=place, overwrite=True)
    assert (tmp_path / "folder" / "thesis.txt").exists()
    assert open_image(other).spatial_shape() == (8, 8)


def test_an_empty_folder_may_become_the_output(make_image: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    image = open_image(make_image([ramp((20, 20))], "yx"))
    write(plan_label(image, name="cells", output=tmp_path / "out"))
    assert open_image(tmp_path / "out").is_label


@pytest.mark.parametrize("left", [["zarr.json.1a2b.partial"], ["zarr.json"], []])
def test_a_start_that_was_cut_short_is_taken_up(
    make_image: Make, tmp_path: Path, left: list[str]
) -> None:
    image = open_image(make_image([ramp((20, 20))], "yx"))
    zarr.open_group(tmp_path / "out", mode="w", zarr_format=3)
    (tmp_path / "out" / "zarr.json").rename(tmp_path / "kept")
    for name in left:
        shutil.copy(tmp_path / "kept", tmp_path / "out" / name)
    write(plan_label(image, name="cells", output=tmp_path / "out"))
    assert open_image(tmp_path / "out").is_label


def test_targets_that_cannot_be_are_refused(make_image: Make, tmp_path: Path) -> None:
    image = open_image(make_image([ramp((20, 20)), ramp((10, 10))], "yx"))
    tifffile.imwrite(tmp_path / "a.tif", ramp((20, 20)))
    tiff = open_image(tmp_path / "a.tif")
    for options, message in [
        ({"level": 1}, "--output"),
        ({"roi": [(0, 5), (0, 5)]}, "--output"),
        ({"version": "0.4"}, "its OME-Zarr version"),
        ({"version": "0.6", "output": tmp_path / "o"}, r"0\.4 or 0\.5"),
        ({"output": image.uri}, "outside its input"),
        ({"output": f"{image.uri}/labels/x"}, "outside its input"),
        ({"output": tmp_path}, "outside its input"),
    ]:
        with pytest.raises(StoreError, match=message):
            plan_label(image, name="cells", **options)
    for name in ("", "a/b", "..", ".zarr.json", "_x"):
        with pytest.raises(StoreError, match="name"):
            plan_label(image, name=name)
    with pytest.raises(StoreError, match="--output"):
        plan_label(tiff, name="cells")


def test_a_region_keeps_its_place_in_the_world(make_image: Make, tmp_path: Path) -> None:
    transforms = [
        [
            {"type": "scale", "scale": [2.0, 0.5, 0.5]},
            {"type": "translation", "translation": [100, 0, 0]},
        ],
        [
            {"type": "scale", "scale": [2.0, 1.0, 1.0]},
            {"type": "translation", "translation": [100, 0.25, 0.25]},
        ],
        [
            {"type": "scale", "scale": [4.0, 2.0, 2.0]},
            {"type": "translation", "translation": [101, 0.75, 0.75]},
        ],
    ]
    shapes = [(9, 33, 31), (9, 17, 16), (5, 9, 8)]
    image = open_image(make_image([ramp(s) for s in shapes], transforms=transforms))
    target = plan_label(image, name="cells", output=tmp_path / "o", roi=[(2, 9), (10, 31), (0, 31)])
    assert [level.shape for level in target.levels] == [(7, 21, 31), (7, 11, 16), (4, 6, 8)]
    assert target.levels[0].translation == (104.0, 5.0, 0.0)
    assert target.levels[2].translation == (105.0, 5.75, 0.75)
    coarse = plan_label(image, name="cells", output=tmp_path / "o", level=1)
    assert [level.shape for level in coarse.levels] == shapes[1:]
    assert coarse.levels[0].scale == (2.0, 1.0, 1.0)


def test_regions_of_odd_pyramids_keep_their_ratios(make_image: Make, tmp_path: Path) -> None:
    image = open_image(make_image([ramp((100, 90)), ramp((40, 36)), ramp((13, 12))], "yx"))
    target = plan_label(image, name="cells", output=tmp_path / "o", roi=[(0, 50), (0, 45)])
    assert [level.shape for level in target.levels] == [(50, 45), (20, 18), (7, 6)]


def test_an_image_without_pyramid_gives_the_new_store_one(make_image: Make, tmp_path: Path) -> None:
    image = open_image(make_image([ramp((600, 520))], "yx"))
    target = plan_label(image, name="cells", output=tmp_path / "o")
    assert [level.shape for level in target.levels] == [(600, 520), (300, 260), (150, 130)]
    assert target.levels[2].translation == (1.5, 1.5)
    assert len(plan_label(image, name="cells").levels) == 1, "in place the image decides"


def test_consolidated_metadata_learn_of_the_label(make_image: Make) -> None:
    path = make_image([ramp((20, 20))], "yx", version="0.4")
    zarr.consolidate_metadata(path)
    write(plan_label(open_image(path), name="cells"))
    assert "cells" in zarr.open_consolidated(path)["labels"].attrs["labels"]


@pytest.mark.parametrize(("version", "zarr_format"), [("0.4", 2), ("0.5", 3)])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_consolidated_metadata_of_a_plate_learn_of_the_label(
    make_image: Make, tmp_path: Path, version: str, zarr_format: int
) -> None:
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate / "A" / "1", mode="w", zarr_format=zarr_format)
    for group in (plate, plate / "A"):
        zarr.open_group(group, mode="a", zarr_format=zarr_format)
    field = shutil.move(make_image([ramp((20, 20))], "yx", version=version), plate / "A" / "1")
    zarr.consolidate_metadata(plate)
    write(plan_label(open_image(str(field)), name="cells"))
    well = zarr.open_consolidated(plate)[f"A/1/{Path(field).name}"]
    assert well["labels"].attrs.get("labels", well["labels"].attrs.get("ome"))
    assert "cells" in well["labels"]


def test_targets_and_arrays_pickle(make_image: Make) -> None:
    target = plan_label(open_image(make_image([ramp((20, 20))], "yx")), name="cells")
    write(target, publish=False)
    assert pickle.loads(pickle.dumps(target)) == target
    array = pickle.loads(pickle.dumps(open_label_array(target, 0)))
    array[0, 0] = 77
    assert open_label_array(target, 0, "r")[0, 0] == 77


def test_labels_0_4_use_nested_chunks_with_checksums(make_image: Make) -> None:
    path = make_image([ramp((20, 20))], "yx", version="0.4")
    target = plan_label(open_image(path), name="cells")
    write(target)
    array = open_label_array(target, 0, "r")
    assert (array.shards, array.chunks) == (None, (8, 8))
    chunk = Path(target.path) / "0" / "2" / "2"
    content = bytearray(chunk.read_bytes())
    content[-6] ^= 0xFF
    chunk.write_bytes(content)
    label = open_image(target.path)
    with pytest.raises(StoreError, match="labels/cells, level 0"):
        label.read(0, 0, None, (slice(0, 20), slice(0, 20)))


# --- staging arrays


def test_scratch_is_created_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "run" / "local"
    array = scratch_array(path, (20, 30), np.uint32, (8, 8), (16, 16))
    array[0:16, 0:16] = 4
    again = scratch_array(path, (20, 30), np.uint32, (8, 8), (16, 16))
    assert (again[0:16, 0:16] == 4).all()
    assert open_scratch(path, "r").shards == (16, 16)
    with pytest.raises(StoreError, match="same shape"):
        scratch_array(path, (20, 31), np.uint32, (8, 8), (16, 16))
    with pytest.raises(StoreError, match="must exist"):
        open_scratch(tmp_path / "nothing")


def test_write_blocks_tile_the_array(tmp_path: Path) -> None:
    for shard in (None, (16, 16)):
        array = scratch_array(tmp_path / str(shard), (20, 35), np.uint8, (8, 8), shard)
        count = np.zeros(array.shape, int)
        for where in write_blocks(array):
            count[where] += 1
            step = shard or (8, 8)
            assert all(w.start % s == 0 for w, s in zip(where, step, strict=True))
        assert (count == 1).all()


def test_emptied_shards_are_seen(tmp_path: Path) -> None:
    array = scratch_array(tmp_path / "a", (32, 32), np.uint32, (8, 8), (16, 16))
    where, whole = (slice(16, 32), slice(0, 16)), (slice(0, 32),) * 2
    array[where] = 1
    assert emptied_blocks(array, whole) == []  # not stored is not lost: nothing was written there
    shard = tmp_path / "a" / "c" / "1" / "0"
    shard.write_bytes(b"")
    assert emptied_blocks(array, where) == emptied_blocks(array, whole) == [str(shard)]
    shard.unlink()
    assert emptied_blocks(array, whole) == []


def test_a_place_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError) as caught:
        scratch_array(tmp_path / "file" / "a", (8,), np.uint8, (8,))
    assert "\n" not in str(caught.value)
    shutil.rmtree(tmp_path)
