"""One level of any image to an OME-TIFF, piece by piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.convert_zarr import Progress
from spoco_zoo.ngff.image import Image
from spoco_zoo.ngff.write_tiff import write_ome_tiff

__all__ = ["to_tiff"]

_IN_A_TIFF = {"b1": "u1", "f2": "f4", "i8": "u4", "u8": "u4"}
"""Types that OME-TIFF does not know, and what holds their values."""


def to_tiff(image: Image, place: Path, level: int, progress: Progress) -> None:
    """Write one level as an OME-TIFF, plane by plane or tile by tile."""
    dtype = np.dtype(_IN_A_TIFF.get(image.dtype.str[1:], image.dtype.str))

    def read(where: tuple[slice, ...]) -> NDArray[Any]:
        slab = image.read_region(level, where)
        small: NDArray[Any] = slab.astype(dtype)
        if slab.dtype.itemsize > 4 and slab.dtype.kind in "ui" and not np.array_equal(small, slab):
            raise StoreError(
                "integers in a TIFF must fit 32 bits unsigned",
                f"{slab.min()} to {slab.max()} in {image.uri}",
                "Keep it as OME-Zarr.",
            )
        return small

    write_ome_tiff(
        place,
        read,
        image.levels[level].shape,
        image.chunks(level),
        dtype,
        "".join(image.axes).upper(),
        image.known_sizes(level),
        interval=image.interval,
        channel_names=image.channel_names if image.n_channels > 1 else (),
        progress=progress,
    )
