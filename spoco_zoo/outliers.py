"""Voxels of absurd value: hot and dead pixels of cameras, cosmic rays, salt and pepper."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Unlike", "calmed", "cut_off_values", "mend_spikes", "step_of"]

AROUND = tuple((y, x) for y, x in product((-1, 0, 1), repeat=2) if y or x)
"""Neighbours of a voxel in its plane."""
PART = 2**16
"""Voxels that are mended at a time."""
ALIKE = 2
"""Neighbours that a spike may be like, as other spikes are: a pixel of 2 x 2 is like three."""
STEEP = 0.3
"""Of the range of an image, how far spikes stand out at least."""
SPIKES = 1e-3
"""Share of voxels from which on they are looked for; where they are fewer, limits do."""
LOUD = 2.0
"""Times as many that stand out half as far, of noise; spikes stand out all the way."""
RANGE = 1e-3
"""Share of voxels at either end that do not count for the range."""


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
    least, most = np.full(some.size, np.inf), np.full(some.size, -np.inf)
    for around in _neighbours(values, some):
        np.minimum(least, around, out=least)
        np.maximum(most, around, out=most)
    found: NDArray[Any] = np.clip(values.reshape(-1)[some], least, most)
    return found


class Unlike(NamedTuple):
    """How unlike their neighbours in the plane some voxels are."""

    distance: NDArray[Any]
    """From all neighbours but the one most like it: but two would make spikes of thin lines."""
    median: NDArray[Any]
    """Of the neighbours."""

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]], some: NDArray[np.intp]) -> Unlike:
        """Of voxels by their flat indices."""
        around = np.stack(list(_neighbours(values, some)))
        around.partition((3, 4), axis=0)
        median = (around[3] + around[4]) / 2
        around -= values.reshape(-1)[some]
        np.abs(around, out=around)
        around.partition(1, axis=0)
        return cls(around[1], median)

    def spike(self, step: float = 0.0) -> float:
        """How far spikes stand out at least; infinite if there are none, or too few to tell.

        Of an image that counts single photons, `step` apart, they are no spikes, see `step_of`.
        """
        low, high = np.quantile(self.median, (RANGE, 1 - RANGE))
        far, enough = STEEP * float(high - low), max(SPIKES * self.distance.size, 1)
        if far <= step:
            return math.inf
        # In noise they are told from it where they are farther than it reaches.
        while (found := np.count_nonzero(self.distance > far)) >= enough:
            if np.count_nonzero(self.distance > far / 2) < LOUD * found:
                return far
            far *= 2
        return math.inf


def step_of(values: NDArray[np.floating[Any]]) -> float:
    """How far most values are from the next larger one: what a photon adds, where few are counted.

    Examples
    --------
    >>> step_of(np.array([100.0, 100, 125, 125, 150, 100, 155]))
    25.0
    """
    levels, counts = np.unique(values, return_counts=True)
    return float(np.median(np.repeat(np.diff(levels, append=levels[-1:]), counts)))


def mend_spikes(values: NDArray[np.floating[Any]], spike: float) -> None:
    """Give voxels that are like next to none of their neighbours the median of these, in place.

    Parameters
    ----------
    values : ndarray
        (C, [Z,] Y, X), contiguous.
    spike : float
        How far they are from all but two neighbours at least; nothing is done if it is infinite.

    Examples
    --------
    >>> values = np.array([[[3.0, 4, 5], [4, 9, 3], [5, 5, 8], [3, 4, 8]]])
    >>> mend_spikes(values, 3)
    >>> values[0, 1].tolist()
    [4.0, 4.5, 3.0]
    """
    if not math.isfinite(spike):
        return
    for plane in values.reshape(-1, *values.shape[-2:]):
        framed, (height, width) = np.pad(plane, 1, mode="reflect"), plane.shape
        unlike = np.zeros(plane.shape, np.uint8)
        for down, right in AROUND:
            around = framed[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            unlike += np.abs(around - plane) > spike
        some = np.flatnonzero(unlike >= len(AROUND) - ALIKE)
        plane.reshape(-1)[some] = Unlike.of(plane, some).median


def _neighbours(
    values: NDArray[np.floating[Any]], some: NDArray[np.intp]
) -> Iterator[NDArray[np.floating[Any]]]:
    """Each of the eight neighbours in the plane, of voxels by their flat indices."""
    *rest, y, x = np.unravel_index(some, values.shape)
    height, width = values.shape[-2:]
    for down, right in AROUND:
        # Mirrored at the faces; of a single line a voxel is its own neighbour.
        row = height - 1 - np.abs(height - 1 - np.abs(y + down))
        column = width - 1 - np.abs(width - 1 - np.abs(x + right))
        yield values[(*rest, row, column)]
