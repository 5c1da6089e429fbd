"""One level of any image to an OME-TIFF, plane by plane."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.convert_zarr import Progress
from spoco_zoo.ngff.image import Image
from spoco_zoo.ngff.tiff import slabs_of_planes, write_ome_tiff

__all__ = ["to_tiff"]

_IN_A_TIFF = {"b1": "u1", "f2": "f4", "i8": "u4", "u8": "u4"}
"""Types that OME-TIFF does not know, and what holds their values."""


def to_tiff(image: Image, place: str, level: int, progress: Progress) -> None:
    """Write one level as an OME-TIFF, plane by plane."""
    dtype = np.dtype(_IN_A_TIFF.get(image.dtype.str[1:], image.dtype.str))
    write_ome_tiff(
        place,
        _planes(image, level, dtype, progress),
        image.levels[level].shape,
        dtype,
        "".join(image.axes).upper(),
        image.voxel_size(level),
        image.channel_names if image.n_channels > 1 else (),
    )


def _planes(
    image: Image, level: int, dtype: np.dtype[Any], progress: Progress
) -> Iterator[NDArray[Any]]:
    """Yield the planes (Y, X) in file order, read in slabs as deep as a chunk or the budget."""
    shape = image.levels[level].shape
    total, done = math.prod(shape[:-2]), 0
    for where in slabs_of_planes(shape, image.chunks(level), image.dtype):
        slab = image.read_region(level, where)
        small = slab.astype(dtype)
        if slab.dtype.itemsize > 4 and slab.dtype.kind in "ui" and not np.array_equal(small, slab):
            raise StoreError(
                "integers in a TIFF must fit 32 bits unsigned",
                f"{slab.min()} to {slab.max()} in {image.uri}",
                "Keep it as OME-Zarr.",
            )
        for one in small.reshape(-1, *shape[-2:]):
            yield one
            progress(done := done + 1, total)
