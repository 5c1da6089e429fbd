"""Whether the numbers in an image are those of objects.

Grey values are whole numbers as well, so an image that is given in the place of its labels can be
trained on, measured and scored, with figures that say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_ids"]

VALUES = 24
"""From so many on they are grey values or objects; fewer may be classes."""
PIECES = 10
"""Separate pieces per value, in the mean, that objects seldom have. Of 487 annotated images (Data
Science Bowl 2018) none has more than 1.1, and of the images themselves none less than 43."""
ROUGH = 0.1
"""Neighbours with different numbers, per voxel, that grey values have at the least. Lines, points
and what is numbered by the cell it lies in have less: their pieces lie apart. Images of many kinds
have 0.2 (enlarged three times) to 2, those of the Data Science Bowl 0.4 and more.
"""
GRAIN = 3
"""Voxels per piece below which values are noise, where there are nearly as many as voxels."""
LARGEST = 2**20
"""Voxels that are looked at."""


def check_ids(ids: NDArray[Any], where: str) -> bool:
    """Refuse grey values in the place of labels.

    Parameters
    ----------
    ids : integers, shape ([Z,] Y, X)
        An image or a part of one, 0 for background.
    where : str
        Named in the message.

    Returns
    -------
    bool
        Whether that could be told: a part of few objects says nothing.

    Raises
    ------
    DataError
    """
    from skimage import measure

    ids = _middle(ids)
    values = len(np.unique(ids[ids != 0]))
    if values < VALUES:
        return False
    voxels = np.count_nonzero(ids)
    if _unlike(ids) < ROUGH * voxels:
        return True
    pieces = int(measure.label(ids, background=0).max())  # a thin line holds at its corners
    noise = pieces >= 2 * values and pieces * GRAIN >= voxels
    if noise or pieces >= PIECES * values:
        raise DataError(
            "labels must be one number per object",
            f"{values} numbers in {pieces} separate pieces in {where}, as grey values are",
            "Give labels and image in the other order, if they were swapped; otherwise save one "
            "number per object (docs/annotate.md).",
        )
    return True


def _unlike(ids: NDArray[Any]) -> int:
    """Pairs of neighbours of which each has a number, and another one."""
    count = 0
    for axis in range(ids.ndim):
        rows = np.moveaxis(ids, axis, 0)
        low, high = rows[:-1], rows[1:]
        count += int(np.count_nonzero((low != high) & (low != 0) & (high != 0)))
    return count


def _middle(ids: NDArray[Any]) -> NDArray[Any]:
    """The middle of an array, of `LARGEST` voxels at most."""
    while ids.size > LARGEST:
        axis = int(np.argmax(ids.shape))
        side = ids.shape[axis]
        ids = np.take(ids, range(side // 4, side // 4 + (side + 1) // 2), axis)
    return ids
