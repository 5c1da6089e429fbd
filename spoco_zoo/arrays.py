"""Arrays of a notebook as the images that all work begins with, and labels as arrays.

An array is written to a temporary file and goes the way of any other image: its labels are those
that the file would have.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import DataError, described

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["array_axes", "labels_of", "write_array"]

AXES = "tczyx"
"""The order in which images are stored."""


def array_axes(array: Any, axes: str | None) -> str:
    """One letter per dimension of an array.

    Raises
    ------
    DataError
        If it is none, or its axes are not known or not among t, c, z, y, x.
    """
    shape = getattr(array, "shape", None)
    if not isinstance(shape, tuple):
        raise DataError(
            "an image must be an array", described(array), "Files go to `spoco_zoo.segment`."
        )
    if axes is None and set(dims := getattr(array, "dims", ())) <= set(AXES):
        axes = "".join(dims)
    if not axes and len(shape) == 2:
        axes = "yx"
    if not axes:
        raise DataError(
            "an array of other than two dimensions must come with their names",
            described(array),
            'As in axes="zyx", "cyx" or "yxc".',
        )
    named = isinstance(axes, str) and set("yx") <= set(axes) <= set(AXES)
    if not named or not len(set(axes)) == len(axes) == len(shape):
        raise DataError(
            f"axes must name each dimension once, by letters of {AXES}, y and x among them",
            f"{axes!r} for {described(array)}",
            'As in axes="zyx", "cyx" or "yxc".',
        )
    return axes


def write_array(array: Any, axes: str, path: Path) -> None:
    """Write an array as a TIFF that names its axes.

    Parameters
    ----------
    array : array_like
        Of real numbers, whatever their type, byte order and layout.
    axes : str
        As of `array_axes`.
    path : Path

    Raises
    ------
    DataError
        If it is empty, or holds something else than real numbers.
    """
    import tifffile

    values = np.asarray(array)
    if values.size == 0:
        raise DataError("an image must have voxels", described(values), "Give another.")
    if values.dtype.kind not in "buif":
        raise DataError(
            "an image must hold real numbers",
            f"{described(values)} of type {values.dtype}",
            "Convert it, as in array.astype('float32').",
        )
    if values.dtype.kind == "b":
        values = values.view(np.uint8)
    elif values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    order = [axes.index(axis) for axis in AXES if axis in axes]
    values = np.ascontiguousarray(values.transpose(order), values.dtype.newbyteorder("="))
    named = {"axes": "".join(axis for axis in AXES if axis in axes).upper()}
    tifffile.imwrite(
        path, values, metadata=named, photometric="minisblack", bigtiff=values.nbytes > 2**31
    )


def labels_of(
    labels: NDArray[Any],
    shape: tuple[int, ...],
    axes: str,
    roi: tuple[tuple[int, int], ...] | None,
) -> NDArray[Any]:
    """Labels as they were stored, in the order of the array that they are of.

    Parameters
    ----------
    labels : ndarray
        Of the axes of the array but c, in the order of storage; axes of length 1 may lack.
    shape, axes
        Of the array.
    roi : tuple of (int, int), optional
        Start and stop per spatial axis, if a region alone was segmented.
    """
    kept = [axis for axis in AXES if axis in axes and axis != "c"]
    lengths = {axis: shape[axes.index(axis)] for axis in kept}
    spatial = [axis for axis in kept if axis in "zyx"]
    for axis, (start, stop) in zip(spatial, roi or (), strict=False):
        lengths[axis] = stop - start
    assert prod(lengths.values()) == labels.size, (lengths, labels.shape)
    whole = labels.reshape([lengths[axis] for axis in kept])
    return whole.transpose([kept.index(axis) for axis in axes if axis != "c"])
