"""Where in its image a label image lies: on which level, and from which voxel on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.ngff import Image

__all__ = ["align", "check_place"]


def align(labels: Image, image: Image) -> tuple[int, tuple[int, ...]]:
    """Find the level of an image, and the offset in it, that a label image lies on.

    Returns
    -------
    level : int
    offset : tuple of int
        Of the labels in voxels of the level, per spatial axis.

    Raises
    ------
    DataError
        If no level has the labels' voxels.
    """
    n = len(labels.spatial)
    if labels.spatial == image.spatial and labels.n_times == image.n_times:
        own = labels.levels[0]
        # Only OME-Zarr says where in its image a label begins.
        levels = image.levels if labels.kind == "ome-zarr" else ()
        for number, level in enumerate(levels):
            if np.allclose(level.scale[-n:], own.scale[-n:], rtol=1e-3, atol=0):
                shift = np.subtract(own.translation[-n:], level.translation[-n:])
                offset = np.rint(shift / np.asarray(own.scale[-n:])).astype(int)
                stop = offset + labels.spatial_shape()
                if (offset >= 0).all() and (stop <= image.spatial_shape(number)).all():
                    return number, tuple(int(o) for o in offset)
        # Label files often lose their voxel size: an equal shape is enough.
        if labels.spatial_shape() == image.spatial_shape():
            return 0, (0,) * n
    raise DataError(
        "labels must cover their image, one of its levels, or a region of one",
        f"{_shape(labels)} in {labels.uri} for {_shape(image)} in {image.uri}",
        "Give the image that was segmented; of a region or coarser level, its labels as OME-Zarr.",
    )


def check_place(labels: Image, image: Image, level: int, start: Sequence[int]) -> None:
    """Refuse a level that is not there, and labels that leave it.

    Raises
    ------
    ConfigError, DataError
    """
    if level not in range(len(image.levels)):
        raise ConfigError(
            f"the level must be 0 to {len(image.levels) - 1}",
            f"{level!r} for {image.uri}",
            "Choose another.",
        )
    shape = image.spatial_shape(level)
    inside = len(start) == len(shape) == len(labels.spatial) and all(
        first >= 0 and first + n <= most
        for first, n, most in zip(start, labels.spatial_shape(), shape, strict=True)
    )
    if not inside:
        raise DataError(
            "labels must lie inside the level of their image",
            f"{_shape(labels)} in {labels.uri} from voxel {tuple(start)} on for level {level} "
            f"of shape {shape} in {image.uri}",
            "Correct level and start.",
        )


def _shape(image: Image) -> str:
    return f"axes {','.join(image.axes)} of shape {image.levels[0].shape}"
