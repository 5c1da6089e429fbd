"""How far a voxel's embedding looks, and the tile sizes that follow from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import NetConfig

__all__ = ["exact_halo", "pooling_factor", "receptive_radius", "round_up"]


def pooling_factor(net: NetConfig) -> tuple[int, ...]:
    """Product of the pooling factors per axis: tile origins must be multiples of it."""
    factor = [1] * net.ndim
    for level in net.pooling:
        factor = [f * p for f, p in zip(factor, level, strict=True)]
    return tuple(factor)


def receptive_radius(net: NetConfig) -> tuple[int, ...]:
    """One-sided reach of the receptive field per axis, in voxels.

    Two 3x3 convolutions reach ``2 s`` voxels at a level with stride ``s``. Every
    level but the deepest has them twice, on the way down and up; each pooling
    from stride ``s`` to ``p s`` adds ``(p - 1) s``. With pooling 2 throughout
    this is ``7 * 2**(L - 1) - 5`` for L levels.
    """
    radius = []
    for axis in range(net.ndim):
        stride, reach = 1, 0
        for level in net.pooling:
            reach += 4 * stride + (level[axis] - 1) * stride
            stride *= level[axis]
        radius.append(reach + 2 * stride)
    return tuple(radius)


def round_up(values: Sequence[int], multiples: Sequence[int]) -> tuple[int, ...]:
    """Each value rounded up to a multiple of its partner."""
    return tuple(-(-v // m) * m for v, m in zip(values, multiples, strict=True))


def exact_halo(net: NetConfig) -> tuple[int, ...]:
    """Smallest halo, a multiple of the pooling factor, with which tiled equals whole."""
    return round_up(receptive_radius(net), pooling_factor(net))
