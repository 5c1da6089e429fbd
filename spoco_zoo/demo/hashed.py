"""Random numbers that are a hash of (seed, stream, position).

A value does not depend on which part of a grid is asked for, so that a block
computed alone equals the same part of the whole, bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["along", "normal", "smooth", "uniform"]


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: neighbouring inputs give unrelated outputs."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _hashed(axes: Sequence[NDArray[np.int64]], seed: int, stream: int) -> NDArray[np.uint64]:
    """One 64-bit hash per point of the grid that the axes span."""
    start = np.array([seed * 1_000_003 + stream]).astype(np.uint64)
    mixed = _mixed(start + np.uint64(0x9E3779B97F4A7C15))
    for axis in axes:
        mixed = _mixed(mixed[..., None] + axis.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return np.asarray(mixed[0])


def uniform(axes: Sequence[NDArray[np.int64]], seed: int, stream: int) -> NDArray[np.float64]:
    """Uniform in [0, 1)."""
    return np.asarray((_hashed(axes, seed, stream) >> np.uint64(11)) * 2.0**-53)


def normal(axes: Sequence[NDArray[np.int64]], seed: int, stream: int) -> NDArray[np.float32]:
    """Unit variance, mean 0: the sum of four uniform 16-bit numbers is close to normal."""
    mixed = _hashed(axes, seed, stream)
    total = np.zeros(mixed.shape, dtype=np.float32)
    for shift in (0, 16, 32, 48):
        total += ((mixed >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float32)
    return np.asarray((total * np.float32(2**-16) - 2) * np.float32(3**0.5))


def smooth(
    coordinates: Sequence[NDArray[np.float64]], spacing: float, seed: int, stream: int
) -> NDArray[np.float32]:
    """A smooth field on a grid: cubic B-splines over random values `spacing` apart.

    Mean 0, variance about 1. Four taps per axis are added in a fixed order, so
    a value does not depend on the grid's extent.
    """
    bases = [np.floor(c / spacing).astype(np.int64) for c in coordinates]
    lows = [int(base.min()) - 1 for base in bases]
    nodes = [np.arange(low, base.max() + 3) for low, base in zip(lows, bases, strict=True)]
    field = normal(nodes, seed, stream)
    for axis, (c, base, low) in enumerate(zip(coordinates, bases, lows, strict=True)):
        t = c / spacing - base
        weights = (
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        )
        field = sum(
            np.take(field, base - 1 + k - low, axis=axis) * along(w.astype(np.float32), axis, field)
            for k, w in enumerate(weights)
        )
    # The weights' squares sum to 0.479 per axis, averaged over positions.
    return np.asarray(field * np.float32(0.479 ** (-len(coordinates) / 2)), dtype=np.float32)


def along(values: NDArray[Any], axis: int, like: NDArray[Any]) -> NDArray[Any]:
    """A vector shaped to vary along one axis."""
    return values.reshape([-1 if k == axis else 1 for k in range(like.ndim)])
