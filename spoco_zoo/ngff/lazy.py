"""One level of an image as a lazy, labelled array: `xarray` over whatever stores it."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from spoco_zoo.ngff.image import Image

__all__ = ["lazy_level"]


def lazy_level(image: Image, level: int) -> xr.DataArray:
    """A level with the centres of its voxels as coordinates; pixels are read at first use."""
    chosen = image.levels[level]
    coordinates = {}
    for axis, unit, length, scale, shift in zip(
        image.axes, image.units, chosen.shape, chosen.scale, chosen.translation, strict=True
    ):
        centres = shift + scale * np.arange(length)
        coordinates[axis] = xr.Variable(axis, centres, {"units": unit} if unit else {})
    lazy = indexing.LazilyIndexedArray(_LabelArray(image, level))
    return xr.DataArray(
        xr.Variable(image.axes, lazy),
        coords=coordinates,
        name=image.name or None,
        attrs={"source": image.uri},
    )


class _LabelArray(BackendArray):
    """One level of an image, as xarray wants to index it; picklable."""

    def __init__(self, image: Image, level: int) -> None:
        self.image, self.level = image, level
        self.shape, self.dtype = image.levels[level].shape, image.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        """Read the box around integers and slices, then apply them within it."""
        box: list[slice] = []
        inside: list[int | slice] = []
        for part, length in zip(key, self.shape, strict=True):
            if isinstance(part, slice):
                picked = range(*part.indices(length))
                low = min(picked, default=0)
                box.append(slice(low, max(picked, default=-1) + 1 if picked else 0))
                inside.append(slice(None, None, part.step) if picked else slice(0, 0))
            else:
                index = int(part) % length
                box.append(slice(index, index + 1))
                inside.append(0)
        return self.image.read_region(self.level, box)[tuple(inside)]
