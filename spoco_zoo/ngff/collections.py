"""OME-Zarr groups that hold images and are none: plates, wells, collections of bioformats2raw.

::

    plate.ome.zarr/A/1/0     row, column, field        OUT.zarr/0     images of one file, as
                  /A/1/1                                       /1     bioformats2raw writes them
                  /B/1/0
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.opening import holds_zarr
from spoco_zoo.ngff.parse import ome_block
from spoco_zoo.ngff.store import open_group

__all__ = ["COLLECTIONS", "images_of"]

COLLECTIONS = ("plate", "well", "bioformats2raw.layout")
"""Attributes that tell them, in the order in which they count."""


def images_of(place: str) -> tuple[tuple[str, ...], int] | None:
    """Images of a local group that is no image itself.

    Parameters
    ----------
    place : str
        Folder of a Zarr group.

    Returns
    -------
    images : tuple of str
        Paths within the group, in the order of the metadata. Of a well whose own are damaged its
        path alone, so that it is told of where it is opened, and keeps no other from its turn.
    absent : int
        Images, and wells, that are listed and not there.

    None if the group is no such collection.

    Raises
    ------
    StoreError
        If the metadata do not say where the images are.
    """
    block = _block_of(place)
    kind = next((key for key in COLLECTIONS if key in block), None)
    if kind is None or "multiscales" in block:
        return None
    if kind == "plate":
        wells = list(_paths(block, "plate", "wells", place))
        there = [well for well in wells if holds_zarr(os.path.join(place, well))]
        listed = [name for well in there for name in _fields(place, well)]
        absent = len(wells) - len(there)
    elif kind == "well":
        listed, absent = list(_paths(block, "well", "images", place)), 0
    else:
        listed, absent = list(_numbered(place)), 0
    found = tuple(name for name in listed if holds_zarr(os.path.join(place, name)))
    return found, absent + len(listed) - len(found)


def _fields(place: str, well: str) -> list[str]:
    where = os.path.join(place, well)
    try:
        names = list(_paths(_block_of(where), "well", "images", where))
    except StoreError:
        return [well]
    return [f"{well}/{name}" for name in names]


def _numbered(place: str) -> Iterator[str]:
    """Of a collection: all from 0 on that are there."""
    for number in count():
        if not holds_zarr(os.path.join(place, str(number))):
            return
        yield str(number)


def _block_of(place: str) -> Mapping[str, Any]:
    """OME metadata of a group; empty if it has none."""
    group = open_group(place)
    attributes = dict(group.attrs)
    if group.metadata.zarr_format == 3 and "ome" not in attributes:
        return attributes
    return {**attributes, **ome_block(attributes, group.metadata.zarr_format, place)}


def _paths(block: Mapping[str, Any], kind: str, what: str, where: str) -> Iterator[str]:
    """Paths in a list of a plate or well, checked to lie inside it."""
    described = block.get(kind)
    entries = described.get(what) if isinstance(described, Mapping) else None
    for entry in entries if isinstance(entries, list) else [None]:
        path = entry.get("path") if isinstance(entry, Mapping) else None
        if not isinstance(path, str) or not path or path.startswith("/") or ".." in path.split("/"):
            raise StoreError(
                f"a {kind} must list the paths of its {what}, which lie inside it",
                f"{path if entry else entries!r:.60} in {where}",
                "Mend the metadata, or give one of its images.",
            )
        yield path.strip("/")
