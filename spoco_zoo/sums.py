"""What the voxels of each object add up to, and how sums of parts become those of the whole.

Counts, boxes, sums of places and extremes come out the same whatever the parts, and so do sums of
integer intensities; squared deviations agree to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Sums", "empty", "joined", "sum_voxels"]


@dataclass(frozen=True)
class Sums:
    """What voxels or parts of objects add up to; D spatial axes, C channels.

    Attributes
    ----------
    ids : integer, shape (N,)
    count : int64, shape (N,)
        Voxels.
    places : int64, shape (N, D)
        Sum of voxel coordinates.
    low, high : int64, shape (N, D)
        Least and greatest coordinates, both inclusive.
    total, squares : float64, shape (N, C)
        Sum of intensities, and of squared deviations from the part's own mean.
    least, most : float64, shape (N, C)
    """

    ids: NDArray[Any]
    count: NDArray[np.int64]
    places: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]

    def merged(self) -> Sums:
        """One row per id, in the order of ids."""
        order = np.argsort(self.ids, kind="stable")
        ids = self.ids[order]
        if not len(ids):
            return self
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
        lengths = np.diff(np.r_[starts, len(ids)])

        def add(values: NDArray[Any]) -> NDArray[Any]:
            return np.add.reduceat(values[order], starts, axis=0)

        count, total = add(self.count), add(self.total)
        mean = np.repeat(total / count[:, None], lengths, axis=0)
        # Chan et al.: what the parts' means deviate from the common one. An object with an
        # infinite voxel has no deviation: nan, as its formula says.
        with np.errstate(invalid="ignore"):
            own = self.total[order] / self.count[order][:, None]
            between = self.count[order][:, None] * np.square(own - mean)
            squares = add(self.squares) + np.add.reduceat(between, starts, axis=0)
        return Sums(
            ids[starts],
            count,
            add(self.places),
            np.minimum.reduceat(self.low[order], starts, axis=0),
            np.maximum.reduceat(self.high[order], starts, axis=0),
            total,
            squares,
            np.minimum.reduceat(self.least[order], starts, axis=0),
            np.maximum.reduceat(self.most[order], starts, axis=0),
        )


def sum_voxels(ids: NDArray[Any], values: NDArray[Any], start: Sequence[int]) -> Sums:
    """Sums of one block.

    Parameters
    ----------
    ids : integer, shape ([Z,] Y, X)
        0 is background.
    values : number, shape (C, [Z,] Y, X)
    start : sequence of int
        Where the block begins in the whole.
    """
    # Row by row along the last axis, where labels come in runs: of these there are 10 to 30 times
    # fewer than of voxels.
    new = np.ones(ids.shape, bool)
    new[..., 1:] = ids[..., 1:] != ids[..., :-1]
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=ids.size)
    inside = ids.ravel()[starts] != 0
    voxels = values.reshape(len(values), ids.size).astype(np.float64)

    def over_runs(add: np.ufunc, values: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = add.reduceat(values, starts, axis=1)
        return found[:, inside].T

    with np.errstate(invalid="ignore"):  # see `Sums.merged`
        own = np.add.reduceat(voxels, starts, axis=1) / lengths
        squares = over_runs(np.add, np.square(voxels - np.repeat(own, lengths, axis=1)))
    total = over_runs(np.add, voxels)
    least, most = over_runs(np.minimum, voxels), over_runs(np.maximum, voxels)
    starts, lengths = starts[inside], lengths[inside]
    low = np.stack(np.unravel_index(starts, ids.shape), axis=1) + np.asarray(start, np.int64)
    high, places = low.copy(), low * lengths[:, None]
    high[:, -1] += lengths - 1
    places[:, -1] += lengths * (lengths - 1) // 2
    found = ids.ravel()[starts]
    return Sums(found, lengths, places, low, high, total, squares, least, most).merged()


def empty(ndim: int, channels: int) -> Sums:
    """Sums of no object in an image of so many spatial axes and channels."""
    whole, real = np.empty((0, ndim), np.int64), np.empty((0, channels))
    count = np.empty(0, np.int64)
    return Sums(np.empty(0, np.uint64), count, whole, whole, whole, real, real, real, real)


def joined(parts: Sequence[Sums]) -> Sums:
    """All rows of several, ids as uint64."""
    ids = np.concatenate([part.ids.astype(np.uint64) for part in parts])
    names = ("count", "places", "low", "high", "total", "squares", "least", "most")
    return Sums(ids, *(np.concatenate([getattr(p, name) for p in parts]) for name in names))
