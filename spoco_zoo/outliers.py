"""Voxels of absurd value: hot and dead pixels of cameras, cosmic rays."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["calmed", "cut_off_values"]

AROUND = tuple((y, x) for y, x in product((-1, 0, 1), repeat=2) if y or x)
"""Neighbours of a voxel in its plane."""
PART = 2**16
"""Voxels that are mended at a time."""


def cut_off_values(values: NDArray[np.floating[Any]], low: float, high: float) -> None:
    """Bring all values between limits, in place.

    Beyond them a voxel becomes what its neighbours in the plane come nearest to it: a hot pixel
    among them is mended, and larger things are cut off.

    Parameters
    ----------
    values : ndarray
        (C, [Z,] Y, X), contiguous.
    low, high : float
        Nothing is done where both are infinite.

    Examples
    --------
    >>> values = np.array([[[3.0, 4, 5], [4, 90, 3], [5, 5, 80], [3, 4, 70]]])
    >>> cut_off_values(values, -np.inf, 10)
    >>> values.astype(int).tolist()
    [[[3, 4, 5], [4, 10, 3], [5, 5, 10], [3, 4, 10]]]
    """
    if not (math.isfinite(low) or math.isfinite(high)):
        return
    far = (values < low) | (values > high)
    # What is like a neighbour stays so: most of an empty frame need not be looked at.
    far[..., :-1] &= values[..., :-1] != values[..., 1:]
    beyond = np.flatnonzero(far)
    parts = [calmed(values, beyond[k : k + PART]) for k in range(0, beyond.size, PART)]
    if parts:
        values.reshape(-1)[beyond] = np.concatenate(parts)
    np.clip(values, low, high, out=values)


def calmed(values: NDArray[np.floating[Any]], some: NDArray[np.intp]) -> NDArray[Any]:
    """Voxels by their flat indices, none above or below all its neighbours in the plane."""
    *rest, y, x = np.unravel_index(some, values.shape)
    height, width = values.shape[-2:]
    least, most = np.full(some.size, np.inf), np.full(some.size, -np.inf)
    for down, right in AROUND:
        # Mirrored at the faces; of a single line a voxel is its own neighbour.
        row = height - 1 - np.abs(height - 1 - np.abs(y + down))
        column = width - 1 - np.abs(width - 1 - np.abs(x + right))
        around = values[(*rest, row, column)]
        np.minimum(least, around, out=least)
        np.maximum(most, around, out=most)
    found: NDArray[Any] = np.clip(values[(*rest, y, x)], least, most)
    return found
