"""Which parts of a volume hold something: a tissue seldom fills all of its volume.

::

    +---+---+---+---+---+    windows of about 16 voxels a side: in a dot is nothing but ground,
    | . | . | . | . | . |    whose deviation is that of noise; in the others are objects, or what
    +---+---+---+---+---+    lies between them
    | . | x | x | x | . |
    +---+---+---+---+---+    Mean and deviation of the crosses are those of a volume that is full
    | . | x | x | . | . |    of the tissue, whatever else of the room was recorded around it.
    +---+---+---+---+---+

A network that learned from volumes full of objects is lost in one of which they fill a tenth: by
the statistics of all of it they are three times as bright as it ever saw any.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["moments_of", "that_hold_something", "windows_of"]

WINDOW = 16
"""Voxels of a side, about; more than one lies between objects of most tissues."""
MEAN_OF = 2
"""Voxels a side that are averaged before a window's deviation is taken: noise has less then."""
CLEAR = 5.0
"""Times the typical deviation of the other windows that theirs has; in full volumes it is 2 to 4,
and where light fades with depth it may be more, step by step."""
MOST = 0.5
"""Of all that differs within windows, their share."""
FLOOR = 0.01
"""Of the largest deviation: windows without even noise are as empty as those with little."""
GRAINY = 0.5
"""Times the variance of means of 2 voxels a side that means of 4 have in ground, at most: in noise
it is 0.1 to 0.4, even if it was blurred by a voxel or enlarged twice, in tissues 0.5 to 0.9. What
is five times as bright as those is a speck of debris."""
ROUNDED = 1e-12
"""Of the mean square of a window's voxels: a smaller variance is what sums were rounded by."""


def windows_of(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """What is known of every window of a piece.

    Parameters
    ----------
    values : ndarray
        (C, Z, Y, X).

    Returns
    -------
    ndarray, shape (n, 5)
        Voxels of all channels, their mean, the sum of their squared differences from it, and the
        variances of the means of 2 x 2 x 2 and of 4 x 4 x 4 voxels within a channel.
    """
    about = float(values.mean())
    shifted = values - about
    spatial = values.shape[1:]
    starts = [_starts(side) for side in spatial]
    counts = _counts(spatial, starts)
    sums, squares = _sums(shifted, starts), _sums(np.square(shifted), starts)
    number = len(values) * counts
    mean = sums.sum(axis=0) / number
    rest = squares.sum(axis=0) - number * np.square(mean)

    fine, starts = _halved(shifted, starts)
    coarse, fewer = _halved(fine, starts)
    rough = _variances(fine, starts), _variances(coarse, fewer)
    columns = number, mean + about, rest.clip(min=0), *rough
    return np.stack([column.ravel().astype(np.float64) for column in columns], axis=1)


def that_hold_something(windows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the windows hold more than ground; all of them, if the others are not clearly so.

    Windows are parted in two where the logarithms of their deviations are farthest apart (Otsu
    1979).

    Parameters
    ----------
    windows : ndarray, shape (n, 5)
        See `windows_of`.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    everything = np.ones(len(windows), bool)
    counts, rough = windows[:, 0], windows[:, 3]
    if len(windows) < 2 or not rough.max() > 0:
        return everything
    logs = 0.5 * np.log(np.maximum(rough, FLOOR**2 * rough.max()))
    order = np.argsort(logs, kind="stable")
    weight = np.cumsum(counts[order])
    moment = np.cumsum(counts[order] * logs[order])
    less, more = weight[:-1], weight[-1] - weight[:-1]
    apart = (moment[-1] - moment[:-1]) / more - moment[:-1] / less
    cut = int(np.argmax(less * more * np.square(apart)))
    held = np.zeros(len(windows), bool)
    held[order[cut + 1 :]] = True
    makes = counts * rough
    if apart[cut] < np.log(CLEAR) or makes[held].sum() < MOST * makes.sum():
        return everything
    left, coarse = rough[~held], windows[~held, 4]
    grain = np.divide(coarse, left, out=np.zeros_like(left), where=left > 0)
    return held if np.median(grain) < GRAINY else everything


def moments_of(windows: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of the voxels of windows, see `windows_of`."""
    count, mean, rest = windows.T[:3]
    whole = float(count @ mean / count.sum())
    return whole, float((rest.sum() + count @ np.square(mean - whole)) / count.sum()) ** 0.5


def _starts(side: int) -> NDArray[np.intp]:
    """Where windows begin on an axis, in whole steps of `MEAN_OF`."""
    number = max(1, round(side / WINDOW))
    return np.arange(number) * side // number // MEAN_OF * MEAN_OF


def _counts(shape: Sequence[int], starts: Sequence[NDArray[np.intp]]) -> NDArray[np.intp]:
    """Voxels of every window."""
    sides = [np.diff(start, append=side) for start, side in zip(starts, shape, strict=True)]
    return reduce(np.multiply, np.ix_(*sides))


def _sums(
    values: NDArray[np.floating[Any]], starts: Sequence[NDArray[np.intp]]
) -> NDArray[np.floating[Any]]:
    """The sum over every window, (C, windows of each axis)."""
    for axis, start in enumerate(starts, start=1):
        values = np.add.reduceat(values, start, axis=axis)
    return values


def _variances(
    values: NDArray[np.floating[Any]], starts: Sequence[NDArray[np.intp]]
) -> NDArray[np.floating[Any]]:
    """Of every window, the mean over channels; 0 where it is no more than rounding."""
    counts = _counts(values.shape[1:], starts)
    power = _sums(np.square(values), starts) / counts
    found = power - np.square(_sums(values, starts) / counts)
    found[found < ROUNDED * power] = 0
    return np.asarray(found.mean(axis=0))


def _halved(
    values: NDArray[np.floating[Any]], starts: Sequence[NDArray[np.intp]]
) -> tuple[NDArray[np.floating[Any]], list[NDArray[np.intp]]]:
    """Means of `MEAN_OF` voxels a side, where there are so many, and where windows begin."""
    steps = [min(MEAN_OF, side) for side in values.shape[1:]]
    return _smoothed(values, steps), [s // step for s, step in zip(starts, steps, strict=True)]


def _smoothed(values: NDArray[np.floating[Any]], steps: Sequence[int]) -> NDArray[np.floating[Any]]:
    """Means of so many voxels along each axis; those that are left over are left out."""
    for axis, step in enumerate(steps, start=1):
        first = np.moveaxis(values, axis, 0)
        whole = len(first) // step * step
        total = reduce(np.add, [first[k:whole:step] for k in range(step)])
        values = np.moveaxis(total / step, 0, axis)
    return values
