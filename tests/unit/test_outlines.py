"""Outlines hold exactly the voxels of their objects, and lie where the image is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from roifile import ImagejRoi
from skimage.draw import disk
from typer.testing import CliRunner

from spoco_zoo import label_sums, ngff, outlines
from spoco_zoo.cli import app
from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.ngff import convert, open_image
from spoco_zoo.outline_files import write_outlines
from spoco_zoo.outlines import trace


def filled(rings: list[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels whose centres lie within an odd number of rings."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    inside = np.zeros(len(centres), bool)
    for ring in rings:
        inside ^= Polygon(np.asarray(ring)).contains_points(centres)
    return inside.reshape(shape)


def signed(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_the_rings_hold_the_pixels_and_no_others(mask: NDArray[np.bool_]) -> None:
    pieces = trace(mask)
    np.testing.assert_array_equal(filled([r for p in pieces for r in p], mask.shape), mask)
    for outer, *holes in pieces:
        assert signed(outer) > 0
        assert all(signed(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            assert len(ring) >= 4
            assert (ring[0] != ring[-1]).any()


def test_a_square_has_eight_vertices_in_the_middle_of_the_sides() -> None:
    (((ring),),) = trace(np.ones((2, 3), bool))
    assert sorted(map(tuple, ring.tolist())) == [
        (0.0, 0.5), (0.0, 1.5), (0.5, 0.0), (0.5, 2.0),
        (2.5, 0.0), (2.5, 2.0), (3.0, 0.5), (3.0, 1.5),
    ]  # fmt: skip


def drawn(shape: tuple[int, ...], radius: int, count: int) -> NDArray[np.uint16]:
    """Discs, with a hole in every second and one label in two pieces."""
    labels = np.zeros(shape, np.uint16)
    rng = np.random.default_rng(3)
    for number in range(1, count + 1):
        where = rng.integers(radius, np.array(shape[-2:]) - radius)
        plane = labels[rng.integers(shape[0])] if len(shape) == 3 else labels
        plane[disk(where, radius, shape=plane.shape)] = number
        if number % 2:
            plane[tuple(where)] = 0
    return labels


def read_geojson(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text())
    assert found["type"] == "FeatureCollection"
    return list(found["features"])


def painted(features: list[dict[str, Any]], shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Labels that features describe, in an image (Z, Y, X)."""
    labels = np.zeros(shape, np.uint16)
    for feature in features:
        geometry = feature["geometry"]
        polygons = geometry["coordinates"]
        if geometry["type"] == "Polygon":
            polygons = [polygons]
        assert all(ring[0] == ring[-1] for polygon in polygons for ring in polygon)
        mask = filled([ring for polygon in polygons for ring in polygon], shape[1:])
        labels[geometry.get("plane", {}).get("z", 0)][mask] = int(feature["properties"]["name"])
    return labels


@pytest.mark.parametrize("tile", [2**24, 500])
def test_the_labels_come_back_from_geojson(
    tmp_path: Path, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines, "TILE_VOXELS", tile)
    labels = drawn((90, 120), 7, 40)
    tifffile.imwrite(tmp_path / "a.tif", labels, tile=(16, 16))
    count = write_outlines(tmp_path / "a.tif", tmp_path / "a.geojson")
    features = read_geojson(tmp_path / "a.geojson")
    assert count == len(features) == len(np.unique(labels)) - 1
    assert {f["properties"]["objectType"] for f in features} == {"detection"}
    np.testing.assert_array_equal(painted(features, (1, *labels.shape))[0], labels)


@pytest.mark.parametrize("tile", [2**24, 3000])
def test_every_plane_of_a_stack_has_its_outlines(
    tmp_path: Path, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines, "TILE_VOXELS", tile)
    labels = np.maximum(drawn((7, 60, 50), 6, 20), np.roll(drawn((7, 60, 50), 6, 20), 1, 0))
    tifffile.imwrite(tmp_path / "a.tif", labels, metadata={"axes": "ZYX"})
    convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr", labels=True, chunk=(2, 16, 16))
    for source in ("a.tif", "a.ome.zarr"):
        count = write_outlines(tmp_path / source, tmp_path / "a.geojson", kind="annotation")
        features = read_geojson(tmp_path / "a.geojson")
        assert count == len(features) == sum(len(np.unique(plane)) - 1 for plane in labels)
        assert {f["properties"]["objectType"] for f in features} == {"annotation"}
        np.testing.assert_array_equal(painted(features, labels.shape), labels)


def test_labels_of_a_region_of_a_coarser_level_lie_on_their_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((600, 700), np.uint16), tile=(64, 64))
    convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    image = open_image(tmp_path / "a.ome.zarr")
    assert len(image.levels) > 1
    # One pixel of level 1 covers 2 x 2 of the image; the region begins at (20, 10) there.
    place = tmp_path / "part.ome.zarr"
    roi = ((20, 50), (10, 50))
    target = ngff.plan_label(image, name="part", output=place, roi=roi, level=1)
    ngff.create_label(target, dtype=np.uint32, shard=(32, 64), chunk=(16, 32))
    labels = np.zeros((30, 40), np.uint32)
    labels[3:5, 7] = 9
    ngff.open_label_array(target, 0)[...] = labels
    ngff.publish_label(target)
    write_outlines(place, tmp_path / "a.geojson", image=image.uri)
    (feature,) = read_geojson(tmp_path / "a.geojson")
    expected = np.zeros((1, 600, 700), np.uint16)
    expected[0, 46:50, 34:36] = 9
    np.testing.assert_array_equal(painted([feature], expected.shape), expected)


def test_every_plane_that_a_coarse_one_covers_has_its_outline(tmp_path: Path) -> None:
    """Only every second had one."""
    about = {"axes": "ZYX", "spacing": 1.0, "unit": "um"}
    pixels = np.zeros((60, 600, 600), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(1, 1), metadata=about)
    convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    image = open_image(tmp_path / "a.ome.zarr")
    assert image.levels[1].shape == (30, 300, 300)
    place = tmp_path / "part.ome.zarr"
    roi = ((10, 30), (0, 32), (0, 32))
    target = ngff.plan_label(image, name="part", output=place, roi=roi, level=1)
    ngff.create_label(target, dtype=np.uint32, shard=(20, 32, 32), chunk=(20, 32, 32))
    labels = np.zeros((20, 32, 32), np.uint32)
    labels[3:5, 7, 9] = 9
    ngff.open_label_array(target, 0)[...] = labels
    ngff.publish_label(target)
    assert write_outlines(place, tmp_path / "a.geojson", image=image.uri) == 4
    expected = np.zeros(pixels.shape, np.uint16)
    expected[26:30, 14:16, 18:20] = 9
    painted_again = painted(read_geojson(tmp_path / "a.geojson"), expected.shape)
    np.testing.assert_array_equal(painted_again, expected)


def test_an_object_as_wide_as_its_image_is_read_in_few_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All planes of a chunk, of an image of 20,000 x 20,000 pixels, fill any memory."""
    labels = np.ones((16, 40, 50), np.uint16)
    labels[:, 5:9, 5:9] = 2
    tifffile.imwrite(tmp_path / "a.tif", labels, metadata={"axes": "ZYX"})
    convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr", labels=True, chunk=(16, 16, 16))
    monkeypatch.setattr(outlines, "READ_VOXELS", 3 * 40 * 50)
    found = open_image(tmp_path / "a.ome.zarr")
    read, sizes = type(found).read, []

    def watched(*args: Any) -> NDArray[Any]:
        sizes.append(read(*args).size)
        return read(*args)

    monkeypatch.setattr(type(found), "read", watched)
    monkeypatch.setattr(outlines, "sum_objects", lambda *args: summed)
    summed = label_sums.sum_objects(found, 0, lambda done, total: None)
    sizes.clear()
    assert len(list(outlines.trace_labels(found, None, lambda *told: None))) == 32
    assert max(sizes) == 3 * 40 * 50


def test_labels_of_one_plane_lie_in_it(tmp_path: Path) -> None:
    pixels, axes = np.zeros((20, 32, 32), np.uint16), {"axes": "ZYX"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata=axes)
    convert(tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    image = open_image(tmp_path / "a.ome.zarr")
    place = tmp_path / "part.ome.zarr"
    roi = ((7, 8), (8, 24), (8, 24))
    target = ngff.plan_label(image, name="part", output=place, roi=roi)
    ngff.create_label(target, dtype=np.uint32, shard=(1, 16, 16), chunk=(1, 16, 16))
    labels = np.zeros((1, 16, 16), np.uint32)
    labels[0, 2:5, 2:5] = 3
    ngff.open_label_array(target, 0)[...] = labels
    ngff.publish_label(target)
    write_outlines(place, tmp_path / "a.geojson", image=image.uri)
    (feature,) = read_geojson(tmp_path / "a.geojson")
    assert feature["geometry"]["plane"]["z"] == 7
    write_outlines(place, tmp_path / "a.zip", image=image.uri)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert ImagejRoi.frombytes(archive.read("3.roi")).position == 8


def test_rois_of_imagej_name_object_and_slice(tmp_path: Path) -> None:
    labels = np.zeros((3, 20, 20), np.uint16)
    labels[1, 2:8, 3:9], labels[2, 2:8, 3:9], labels[2, 12:15, 12:15] = 5, 5, 7
    labels[2, 17:19, 1:3], labels[1, 4, 5] = 7, 0
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="minisblack", metadata={"axes": "ZYX"})
    assert write_outlines(tmp_path / "a.tif", tmp_path / "a.zip") == 3
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        rois = {name: ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()}
    assert set(rois) == {"5.roi", "5-2.roi", "7.roi"}
    for roi in rois.values():
        mask = filled(list(roi.coordinates(multi=True)), labels.shape[1:])
        np.testing.assert_array_equal(mask, labels[roi.position - 1] == int(roi.name))
    first = (tmp_path / "a.zip").read_bytes()
    write_outlines(tmp_path / "a.tif", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == first


def test_films_of_stacks_name_both(tmp_path: Path) -> None:
    labels = np.zeros((2, 3, 9, 9), np.uint16)
    labels[1, 2, 2:5, 2:5] = 4
    tifffile.imwrite(tmp_path / "a.ome.tif", labels, metadata={"axes": "TZYX"})
    write_outlines(tmp_path / "a.ome.tif", tmp_path / "a.geojson")
    (feature,) = read_geojson(tmp_path / "a.geojson")
    assert feature["geometry"]["plane"] == {"c": -1, "z": 2, "t": 1}
    write_outlines(tmp_path / "a.ome.tif", tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        roi = ImagejRoi.frombytes(archive.read("4.roi"))
    assert (roi.z_position, roi.t_position) == (3, 2)


def test_no_object_is_an_empty_collection(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9), np.uint8))
    done = CliRunner().invoke(
        app, ["outlines", str(tmp_path / "a.tif"), "--out", str(tmp_path / "a.geojson")]
    )
    assert json.loads(done.stdout)["count"] == 0
    assert read_geojson(tmp_path / "a.geojson") == []
    assert (tmp_path / "a.geojson.config.yaml").is_file()
    again = ["outlines", str(tmp_path / "a.tif"), "--out", str(tmp_path / "a.geojson")]
    assert CliRunner().invoke(app, again).exit_code == 2
    assert CliRunner().invoke(app, [*again, "--overwrite"]).exit_code == 0


def test_what_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((9, 9), -1, np.int16))
    with pytest.raises(DataError, match="positive"):
        write_outlines(tmp_path / "a.tif", tmp_path / "a.geojson")
    assert not (tmp_path / "a.geojson").exists()
    with pytest.raises(ConfigError, match="geojson"):
        write_outlines(tmp_path / "a.tif", tmp_path / "a.svg")
