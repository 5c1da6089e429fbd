"""Images are opened as the specification says, and refused in one line where they break it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff import Image, find_channels, open_image

from .conftest import ramp

Make = Callable[..., Path]


def whole(image: Image, level: int = 0) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in image.spatial_shape(level))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape"),
    [("yx", (9, 7)), ("zyx", (5, 9, 7)), ("cyx", (2, 9, 7)), ("tczyx", (3, 2, 5, 9, 7))],
)
def test_every_layout_reads_the_region_asked_for(
    make_image: Make, version: str, axes: str, shape: tuple[int, ...]
) -> None:
    data = ramp(shape)
    image = open_image(make_image([data], axes, version=version))
    assert (image.kind, image.version, image.axes) == ("ome-zarr", version, tuple(axes))
    where = tuple(slice(1, n - 1) for n in image.spatial_shape())
    time = image.n_times - 1
    expected = data[time] if "t" in axes else data
    expected = expected if "c" in axes else expected[None]
    got = image.read(0, time, None, where)
    np.testing.assert_array_equal(got, expected[(slice(None), *where)])
    assert got.dtype == np.uint16


def test_channels_come_in_the_order_asked_for(make_image: Make) -> None:
    data = ramp((5, 4, 6))
    image = open_image(make_image([data], "cyx", chunks=(2, 4, 4)))
    for order in [(3, 1, 2), (0, 4), (2,), (1, 1, 0)]:
        np.testing.assert_array_equal(image.read(0, 0, order, whole(image)), data[list(order)])


def test_any_region_equals_the_slice(make_image: Make) -> None:
    reference = ramp((7, 11, 13))
    image = open_image(make_image([reference], chunks=(2, 3, 4), shards=(4, 6, 8)))

    @settings(max_examples=40, deadline=None)
    @given(st.tuples(*(st.tuples(st.integers(0, n), st.integers(0, n)) for n in reference.shape)))
    def check(ends: tuple[tuple[int, int], ...]) -> None:
        where = tuple(slice(min(pair), max(pair)) for pair in ends)
        np.testing.assert_array_equal(image.read(0, 0, None, where)[0], reference[where])

    check()


@pytest.mark.parametrize(
    "where",
    [
        (slice(0, 6), slice(0, 4)),
        (slice(-1, 2), slice(0, 4)),
        (slice(0, 2),),
        (slice(0, 4, 2), slice(0, 4)),
    ],
)
def test_regions_outside_are_an_error_not_clipped(make_image: Make, where: Any) -> None:
    image = open_image(make_image([ramp((5, 4))], "yx"))
    with pytest.raises(ValueError, match="region"):
        image.read(0, 0, None, where)


def test_times_and_channels_outside_are_an_error(make_image: Make) -> None:
    image = open_image(make_image([ramp((5, 4))], "yx"))
    for time, channels in [(1, None), (0, (1,)), (-1, None), (0, ())]:
        with pytest.raises(ValueError, match=r"axis|channels"):
            image.read(0, time, channels, whole(image))
    film = open_image(make_image([ramp((2, 5, 4))], "tyx", name="film.zarr"))
    with pytest.raises(ValueError, match="region"):
        film.read(0, 2, None, whole(film))


def test_scale_is_what_level_and_multiscale_say_together(make_image: Make) -> None:
    transforms = [
        [{"type": "scale", "scale": [1, 1, 1]}],
        [
            {"type": "scale", "scale": [1, 2, 2]},
            {"type": "translation", "translation": [0, 0.5, 0.5]},
        ],
    ]
    outer = [
        {"type": "scale", "scale": [2.0, 0.5, 0.25]},
        {"type": "translation", "translation": [10, 0, 0]},
    ]
    image = open_image(
        make_image([ramp((3, 8, 8)), ramp((3, 4, 4))], transforms=transforms, outer=outer)
    )
    assert image.levels[1].scale == (2.0, 1.0, 0.5)
    assert image.levels[1].translation == (10.0, 0.25, 0.125)
    assert image.spatial_scale(0) == (2.0, 0.5, 0.25)


def test_voxel_size_is_in_micrometres_or_unknown(make_image: Make) -> None:
    scaled = [[{"type": "scale", "scale": [300, 100]}]]
    make = {"axes": "yx", "transforms": scaled}
    assert open_image(make_image([ramp((4, 4))], unit="nanometer", **make)).voxel_size() == (
        pytest.approx((0.3, 0.1))
    )
    unknown = open_image(make_image([ramp((4, 4))], unit=None, **make))
    assert unknown.voxel_size() is None
    assert unknown.spatial_scale() == (300, 100)
    assert unknown.incomplete == ""


def test_pyramids_of_odd_ratios_keep_their_shapes(make_image: Make) -> None:
    shapes = [(10, 33, 21), (10, 13, 9), (4, 5, 5)]
    image = open_image(make_image([ramp(s) for s in shapes]))
    assert [level.shape for level in image.levels] == shapes
    np.testing.assert_array_equal(image.read(2, 0, None, whole(image, 2))[0], ramp(shapes[2]))


def test_an_image_pickles_and_reads_again(make_image: Make) -> None:
    image = open_image(make_image([ramp((6, 6))], "yx"))
    before = image.read(0, 0, None, whole(image))
    again = pickle.loads(pickle.dumps(image))
    assert again == image
    assert again._opened == {}
    np.testing.assert_array_equal(again.read(0, 0, None, whole(again)), before)


def test_a_remote_store_opens_by_its_address() -> None:
    group = zarr.open_group("memory://remote/image.zarr", mode="w", zarr_format=3)
    group.create_array("0", data=ramp((6, 5)), chunks=(4, 4))
    scale = [{"type": "scale", "scale": [1, 1]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
                "datasets": [{"path": "0", "coordinateTransformations": scale}],
            }
        ],
    }
    image = pickle.loads(pickle.dumps(open_image("memory://remote/image.zarr/")))
    np.testing.assert_array_equal(image.read(0, 0, None, whole(image))[0], ramp((6, 5)))
    with pytest.raises(StoreError, match="memory://remote/other"):
        open_image("memory://remote/other.zarr")


# --- channels


def test_channels_are_found_by_name_and_index(make_image: Make) -> None:
    image = open_image(make_image([ramp((3, 4, 4))], "cyx", channels=["DAPI", "GFP", "1"]))
    assert image.channel_names == ("DAPI", "GFP", "1")
    assert find_channels(image, "GFP", 1) == (1,)
    assert find_channels(image, 0, 1) == (0,)
    assert find_channels(image, None, 3) == (0, 1, 2)
    assert find_channels(image, "1", 1) == (2,), "a name goes before an index"


@pytest.mark.parametrize(("wanted", "expected"), [("RFP", 1), (3, 1), (None, 1), ("GFP", 2)])
def test_channels_that_do_not_fit_are_refused(
    make_image: Make, wanted: str | int | None, expected: int
) -> None:
    image = open_image(make_image([ramp((2, 4, 4))], "cyx", channels=["DAPI", "GFP"]))
    with pytest.raises(StoreError, match="0: DAPI, 1: GFP"):
        find_channels(image, wanted, expected)


def test_a_channel_name_given_twice_must_be_chosen_by_index(make_image: Make) -> None:
    image = open_image(make_image([ramp((2, 4, 4))], "cyx", channels=["GFP", "GFP"]))
    with pytest.raises(StoreError, match="unique name"):
        find_channels(image, "GFP", 1)


def test_channels_without_a_label_were_all_called_none(make_image: Make) -> None:
    path = make_image([np.zeros((2, 8, 8), np.uint8)], "cyx", channels=("a", "b"))

    def forget(attributes: dict[str, Any]) -> None:
        first(attributes)["name"] = None
        for channel in attributes["ome"]["omero"]["channels"]:
            channel["label"] = None

    image = open_image(edit(path, forget))
    assert (image.channel_names, image.name) == (("0", "1"), "")


def test_without_a_channel_axis_there_is_one_channel(make_image: Make) -> None:
    image = open_image(make_image([ramp((4, 4))], "yx"))
    assert find_channels(image, None, 1) == (0,)
    assert image.channel_names == ("0",)


# --- stores that are refused


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change the OME block of a store's metadata on disk."""
    file = path / "zarr.json"
    metadata = json.loads(file.read_text())
    change(metadata["attributes"])
    file.write_text(json.dumps(metadata))
    return path


def first(attributes: dict[str, Any]) -> dict[str, Any]:
    multiscale: dict[str, Any] = attributes["ome"]["multiscales"][0]
    return multiscale


def scale(*values: Any) -> list[dict[str, Any]]:
    return [{"type": "scale", "scale": list(values)}]


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version 0.6": (lambda a: a["ome"].update(version="0.6rc0"), "0.6rc0"),
    "no version": (lambda a: a["ome"].pop("version"), "version None"),
    "no ome": (lambda a: a.pop("ome"), "no `ome` attribute"),
    "no multiscales": (lambda a: a["ome"].pop("multiscales"), "multiscales"),
    "empty multiscales": (lambda a: a["ome"].update(multiscales=[]), "multiscales"),
    "multiscale no object": (lambda a: a["ome"].update(multiscales=["x"]), "JSON object"),
    "a plate": (lambda a: a.update(ome={"version": "0.5", "plate": {}}), "STORE/A/1/0"),
    "a collection": (
        lambda a: a.update(ome={"version": "0.5", "bioformats2raw.layout": 3}),
        "STORE/0",
    ),
    "labels": (lambda a: a.update(ome={"version": "0.5", "labels": ["a"]}), "STORE/NAME"),
    "axes order": (lambda a: first(a)["axes"].reverse(), r"\(x, y, z\)"),
    "axes missing": (lambda a: first(a).pop("axes"), "axes"),
    "axis name": (lambda a: first(a)["axes"][0].update(name="depth"), "depth"),
    "axis type": (lambda a: first(a)["axes"][0].update(type="time"), "axis z"),
    "axis twice": (lambda a: first(a)["axes"][0].update(name="y"), r"\(y, y, x\)"),
    "axis too few": (lambda a: first(a)["axes"].pop(0), "one finite number per axis, 2"),
    "no datasets": (lambda a: first(a).update(datasets=[]), "datasets"),
    "path outside": (lambda a: first(a)["datasets"][0].update(path="../0"), "inside its image"),
    "absolute path": (lambda a: first(a)["datasets"][0].update(path="/0"), "inside its image"),
    "level missing": (lambda a: first(a)["datasets"][0].update(path="7"), "image.ome.zarr/7"),
    "no scale": (
        lambda a: first(a)["datasets"][0].update(coordinateTransformations=[]),
        "state its scale",
    ),
    "scale zero": (
        lambda a: first(a)["datasets"][0].update(coordinateTransformations=scale(0, 1, 1)),
        "positive",
    ),
    "scale text": (
        lambda a: first(a)["datasets"][0].update(coordinateTransformations=scale("a", 1, 1)),
        "finite number",
    ),
    "scale of 10^400": (
        lambda a: first(a)["datasets"][0].update(coordinateTransformations=scale(10**400, 1, 1)),
        "finite number",
    ),
    "scale of 1e-200": (
        lambda a: first(a)["datasets"][0].update(coordinateTransformations=scale(1e-200, 1, 1)),
        "positive",
    ),
    "affine": (
        lambda a: first(a)["datasets"][0].update(coordinateTransformations=[{"type": "affine"}]),
        "affine",
    ),
    "levels swapped": (lambda a: first(a)["datasets"].reverse(), "fine to coarse"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_metadata_are_refused_in_one_line(make_image: Make, case: str) -> None:
    change, message = BROKEN[case]
    path = edit(make_image([ramp((4, 8, 8)), ramp((4, 4, 4))]), change)
    with pytest.raises(StoreError, match=message) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


def test_json_that_does_not_parse_is_named(make_image: Make) -> None:
    path = make_image([ramp((4, 4))], "yx")
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text[: len(text) // 2])
    with pytest.raises(StoreError, match="valid JSON") as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


def test_a_level_with_broken_metadata_is_named(make_image: Make) -> None:
    path = make_image([ramp((4, 4))], "yx")
    (path / "0" / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"image.ome.zarr/0"):
        open_image(path)


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3"])
def test_old_versions_are_refused(make_image: Make, version: str) -> None:
    path = make_image([ramp((4, 4))], "yx", version="0.4")
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0].update(version=version, axes=["y", "x"])
    (path / ".zattrs").write_text(json.dumps(attributes))
    with pytest.raises(StoreError, match=f"version {version}"):
        open_image(path)
    del attributes["multiscales"][0]["version"]
    (path / ".zattrs").write_text(json.dumps(attributes))
    with pytest.raises(StoreError, match=r"0.3 or older"):
        open_image(path)


def test_things_that_are_no_image_are_refused(make_image: Make, tmp_path: Path) -> None:
    path = make_image([ramp((4, 4))], "yx")
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("hello")
    (tmp_path / "bad.tif").write_bytes(b"II*\0" + b"\xff" * 20)
    (tmp_path / "none.tif").touch()
    for place, message in [
        ("missing.zarr", "must exist"),
        ("empty", "a folder of another kind"),
        ("note.txt", "another kind"),
        ("none.tif", "another kind"),
        ("bad.tif", "a TIFF must hold an image"),
        (f"{path.name}/0", "parent folder"),
    ]:
        with pytest.raises(StoreError, match=message) as caught:
            open_image(tmp_path / place)
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2


def test_complex_numbers_are_refused(make_image: Make) -> None:
    with pytest.raises(StoreError, match="real numbers; found complex64 in"):
        open_image(make_image([np.zeros((4, 4), np.complex64)], "yx"))


# --- damage


def test_damaged_chunks_raise_with_store_and_region(make_image: Make) -> None:
    checked = zarr.codecs.ZstdCodec(checksum=True)
    data = np.random.default_rng(0).integers(0, 60000, (8, 8)).astype(np.uint16)
    for name, shards in [("plain.zarr", None), ("sharded.zarr", (8, 8))]:
        path = make_image(
            [data], "yx", chunks=(4, 4), shards=shards, compressors=checked, name=name
        )
        image = open_image(path)
        image.read(0, 0, None, whole(image))
        chunk = path / "0" / "c" / "0" / "0"
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2 - 20] ^= 0xFF
        for bad in (bytes(content), bytes(content[:10]), b""):
            chunk.write_bytes(bad)
            with pytest.raises(StoreError, match=rf"{name}, level 0, region \[0:8, 0:8\]"):
                image.read(0, 0, None, whole(image))


def test_a_chunk_never_written_is_zero_as_zarr_defines(make_image: Make) -> None:
    path = make_image([ramp((8, 8)) + np.uint16(1)], "yx", chunks=(4, 4), shards=(4, 4))
    (path / "0" / "c" / "1" / "1").unlink()
    image = open_image(path)
    block = image.read(0, 0, None, whole(image))[0]
    assert not block[4:, 4:].any()
    assert block[:4].all()


def test_an_address_of_a_file_may_be_percent_encoded(make_image: Make) -> None:
    path = make_image([ramp((9, 7))], "yx", name="my image.ome.zarr")
    assert open_image(path.as_uri()).uri == str(path)
