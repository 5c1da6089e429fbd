"""Groups of OME-Zarr that hold images and are none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from spoco_zoo.errors import DataError, StoreError
from spoco_zoo.folder_plan import list_pending
from spoco_zoo.image_folder import find_images, is_folder_of_images
from spoco_zoo.ngff import convert, open_image
from spoco_zoo.ngff.collections import images_of


def describe(place: Path, version: str, **block: Any) -> None:
    """Make a group with OME metadata of a version."""
    group = zarr.open_group(place, mode="a", zarr_format=2 if version == "0.4" else 3)
    group.attrs.put(block if version == "0.4" else {"ome": {"version": version, **block}})


def field(place: Path, version: str) -> None:
    tifffile.imwrite(place.parent / "one.tif", np.arange(64, dtype=np.uint8).reshape(8, 8))
    convert(place.parent / "one.tif", place, version=version)
    (place.parent / "one.tif").unlink()


def plate(place: Path, version: str = "0.5") -> Path:
    """Wells A/1 and B/2 with two fields each, of which B/2 has lost one; C/3 is listed alone."""
    wells = ("A/1", "B/2", "C/3")
    describe(place, version, plate={"wells": [{"path": well} for well in wells]})
    for well in wells[:2]:
        describe(place / well[0], version)
        describe(place / well, version, well={"images": [{"path": "0"}, {"path": "1"}]})
        for name in ("0", "1") if well == "A/1" else ("0",):
            field(place / well / name, version)
    return place


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_and_its_wells_are_their_fields(tmp_path: Path, version: str) -> None:
    place = plate(tmp_path / "p.ome.zarr", version)
    assert is_folder_of_images(str(place))
    images, note = find_images(place)
    assert images == {name: place / name for name in ("A/1/0", "A/1/1", "B/2/0")}
    assert note == "Listed in the metadata, but not there: 2 wells or fields."
    assert list(find_images(place / "A/1")[0]) == ["0", "1"]
    assert images_of(str(place / "A/1/0")) is None
    assert not is_folder_of_images(str(place / "A"))
    with pytest.raises(StoreError, match=r"none in .* Give one field .* takes a local one whole"):
        open_image(place)


def test_plates_of_a_folder_are_told_apart(tmp_path: Path) -> None:
    for name in ("p.zarr", "q.zarr"):
        plate(tmp_path / name)
    field(tmp_path / "r.zarr", "0.5")
    names = [f"{p}.zarr/{field}" for p in "pq" for field in ("A/1/0", "A/1/1", "B/2/0")]
    images, note = find_images(tmp_path)
    assert list(images) == [*names, "r.zarr"]
    assert "4 wells or fields" in note


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_images_of_bioformats2raw_are_counted_from_0(tmp_path: Path, version: str) -> None:
    describe(tmp_path / "many.zarr", version, **{"bioformats2raw.layout": 3})
    describe(tmp_path / "many.zarr" / "OME", version, series=["0", "1"])
    for name in "01":
        field(tmp_path / "many.zarr" / name, version)
    assert list(find_images(tmp_path / "many.zarr")[0]) == ["0", "1"]


def test_a_plate_that_leads_elsewhere_or_nowhere_is_refused(tmp_path: Path) -> None:
    for wells in ([{"path": "../q"}], [{"path": "/q"}], [{}], "A/1", None):
        describe(tmp_path / "p.zarr", "0.5", plate={"wells": wells})
        with pytest.raises(StoreError, match="a plate must list the paths of its wells"):
            find_images(tmp_path / "p.zarr")
    describe(tmp_path / "p.zarr", "0.5", plate={"wells": [{"path": "A/1"}]})
    found = re.escape(f"none of 1 that are listed in {tmp_path / 'p.zarr'}")
    with pytest.raises(DataError, match=found):
        find_images(tmp_path / "p.zarr")


@pytest.mark.parametrize("path", ["../../../q", None])
def test_a_damaged_well_keeps_no_other_from_its_labels(tmp_path: Path, path: str | None) -> None:
    place = plate(tmp_path / "p.zarr")
    describe(place / "B/2", "0.5", well={"images": [{"path": path}]})
    assert list(list_pending(str(place))[0]) == ["A/1/0", "A/1/1"]
    (place / "B/2/zarr.json").write_text("{")
    pending, _, refused = list_pending(str(place))
    assert list(pending) == ["A/1/0", "A/1/1"]
    assert list(refused) == ["B/2"]
    assert "metadata must be valid JSON" in refused["B/2"]
