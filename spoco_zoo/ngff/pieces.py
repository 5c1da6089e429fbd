"""Whether all stored pieces of an image are there, and stay.

Zarr reads a chunk or shard that is absent as its fill value, and by its specification one that was
never written may be. Only where all are there at first is one that is missing later a fault.
"""

from __future__ import annotations

import os
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from spoco_zoo.ngff.image import open_level
from spoco_zoo.ngff.remote import is_remote
from spoco_zoo.ngff.rescale import RescaledImage

if TYPE_CHECKING:
    from spoco_zoo.ngff.image import Image

__all__ = ["has_all_pieces", "keeping_pieces"]


def has_all_pieces(image: Image, level: int) -> bool:
    """Whether each chunk or shard of a local OME-Zarr is a file; False of anything else.

    Their folder is listed: 1 s for a million files on a local disk.
    """
    if isinstance(image, RescaledImage):
        assert image.origin is not None
        return has_all_pieces(image.origin, image.origin_level)
    if image.kind != "ome-zarr" or is_remote(image.uri):
        return False
    path = image.levels[level].path
    array = open_level(image.uri, path, image.storage_options)
    unit = array.shards or array.chunks
    wanted = prod(-(-n // s) for n, s in zip(array.shape, unit, strict=True))
    tree = os.walk(os.path.join(image.uri, path))
    return wanted == sum(_is_key(name) for _, _, names in tree for name in names)


def keeping_pieces(image: Image, level: int) -> Image:
    """The image, of which no piece of a level may be absent when it is read."""
    if isinstance(image, RescaledImage):
        assert image.origin is not None
        return replace(image, origin=keeping_pieces(image.origin, image.origin_level))
    return replace(image, kept=level)


def _is_key(name: str) -> bool:
    """Whether a file is called as pieces are, ``0``, ``0.3.1`` or ``c.0.3.1``."""
    return all(part.isdecimal() for part in name.removeprefix("c.").split("."))
