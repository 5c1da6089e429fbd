"""OME-Zarr as other writers leave it: labels without a version, colours, several multiscales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from spoco_zoo.ngff import convert, find_labels, open_image
from spoco_zoo.ngff.labels import label_names


def make(path: Path, *, labels: bool = False) -> Path:
    values = np.repeat(np.arange(4, dtype=np.uint16), 16).reshape(8, 8)
    tifffile.imwrite(path.with_suffix(".tif"), values)
    convert(path.with_suffix(".tif"), path, labels=labels)
    return path


def test_a_list_of_labels_without_a_version_has_that_of_its_image(tmp_path: Path) -> None:
    image = make(tmp_path / "a.zarr")
    zarr.open_group(image / "labels", mode="w").attrs["ome"] = {"labels": ["manual"]}
    make(image / "labels" / "manual", labels=True)
    assert label_names(open_image(image)) == ("manual",)
    assert find_labels(image).is_label


def test_colours_and_properties_of_labels_are_converted(tmp_path: Path) -> None:
    labels = make(tmp_path / "a.zarr", labels=True)
    stated = {
        "colors": [{"label-value": 1, "rgba": [255, 0, 0, 255]}],
        "properties": [{"label-value": 1, "class": "mitotic"}],
    }
    group = zarr.open_group(labels, mode="r+")
    group.attrs["ome"] = {
        **group.attrs["ome"],
        "image-label": {"version": "0.5", "source": {"image": "../../"}, **stated},
    }
    convert(labels, tmp_path / "b.zarr", version="0.4")
    found = zarr.open_group(tmp_path / "b.zarr", mode="r").attrs["image-label"]
    assert found == {"version": "0.4", **stated}


def test_a_second_multiscale_is_told_of(tmp_path: Path) -> None:
    image = make(tmp_path / "a.zarr")
    assert open_image(image).notes == ()
    group = zarr.open_group(image, mode="r+")
    ome = dict(group.attrs["ome"])
    group.attrs["ome"] = {**ome, "multiscales": ome["multiscales"] * 2}
    assert "lists 2 multiscales" in " ".join(open_image(image).notes)


def test_a_number_as_version_and_an_axis_of_null_type_are_read(tmp_path: Path) -> None:
    image = make(tmp_path / "a.zarr")
    for version, name in (("0.4", "b.zarr"), ("0.5", "c.zarr")):
        convert(image, tmp_path / name, version=version)
        group = zarr.open_group(tmp_path / name, mode="r+")
        attributes = json.loads(json.dumps(dict(group.attrs)))
        block = attributes.get("ome", attributes)
        (block if version == "0.5" else block["multiscales"][0])["version"] = float(version)
        block["multiscales"][0]["axes"][0]["type"] = None
        group.attrs.put(attributes)
        assert open_image(tmp_path / name).version == version


def test_a_window_of_two_ends_is_kept(tmp_path: Path) -> None:
    image = make(tmp_path / "a.zarr")
    group = zarr.open_group(image, mode="r+")
    ome: Any = json.loads(json.dumps(group.attrs["ome"]))
    ome["omero"]["channels"][0]["window"] = {"start": 1, "end": 2.5}
    group.attrs["ome"] = ome
    shown = open_image(image).channel_display[0]
    assert shown["window"] == {"min": 1, "max": 2.5, "start": 1, "end": 2.5}


def test_arrays_of_0_4_have_a_codec_that_every_reader_knows(tmp_path: Path) -> None:
    """TensorStore refused Zstandard with a checksum, JZarr (Bio-Formats) Zstandard at all."""
    image = make(tmp_path / "a.zarr")
    convert(image, tmp_path / "b.zarr", version="0.4")
    array = json.loads((tmp_path / "b.zarr" / "0" / ".zarray").read_text())
    assert array["compressor"] == {"id": "zlib", "level": 1}
    assert array["filters"] is None
    assert array["order"] == "C"
