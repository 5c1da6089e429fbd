"""Where blocks, their overlaps and their faces lie.

One axis of two neighbouring blocks, A below B::

    voxel        0                     face                    2*face
                 |<------ core A ------>|<------ core B ------>|
    A's outer    [=========================::::]
    B's outer                       [::::=========================]
    slab                            [::::|::::]     both have labelled it
                                    |<-->|<-->|
                                  overlap  overlap

A core is what a block decides alone: every voxel lies in exactly one. The outer
region is what the block clusters: its core and `overlap` voxels more on every
side, cut at the ends of the volume. Along the other axes a slab is as wide as
the outer regions, which are equal there. Blocks are numbered in C order, time
point by time point.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BlockGrid", "Box", "make_box", "make_grid", "owned_first"]


@dataclass(frozen=True)
class Box:
    """A region of a volume ([Z,] Y, X), in voxels."""

    start: tuple[int, ...]
    """Inclusive."""
    stop: tuple[int, ...]
    """Exclusive."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of the region in an array of the volume."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def within(self, other: Box) -> tuple[slice, ...]:
        """Index of the region in an array that holds `other`."""
        return self.shifted(tuple(-a for a in other.start)).slices

    def shifted(self, offset: Sequence[int]) -> Box:
        """The region moved by `offset` voxels."""
        return Box(
            tuple(a + o for a, o in zip(self.start, offset, strict=True)),
            tuple(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def grown(self, margin: Sequence[int], shape: Sequence[int]) -> Box:
        """The region with `margin` more voxels on every side, cut to a volume of `shape`."""
        return Box(
            tuple(max(a - m, 0) for a, m in zip(self.start, margin, strict=True)),
            tuple(min(b + m, n) for b, m, n in zip(self.stop, margin, shape, strict=True)),
        )

    def overlap(self, other: Box) -> Box:
        """The common region; its shape has a zero or negative entry if there is none."""
        return Box(tuple(map(max, self.start, other.start)), tuple(map(min, self.stop, other.stop)))

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))


def make_box(spans: Sequence[tuple[int, int]]) -> Box:
    """Region with these starts and stops per axis."""
    return Box(tuple(a for a, _ in spans), tuple(b for _, b in spans))


@dataclass(frozen=True)
class BlockGrid:
    """All blocks of a run. Nothing here is a list: a grid of a million blocks costs nothing."""

    shape: tuple[int, ...]
    """The segmented region ([Z,] Y, X) in voxels; blocks start at its origin."""
    block: tuple[int, ...]
    """Core of a block; may exceed `shape`."""
    overlap: tuple[int, ...]
    times: int = 1
    """Time points, each segmented for itself."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks per spatial axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.block, strict=True))

    @property
    def per_time(self) -> int:
        """Blocks of one time point."""
        return prod(self.counts)

    @property
    def total(self) -> int:
        """Blocks of all time points."""
        return self.times * self.per_time

    @property
    def voxels(self) -> int:
        """Voxels of all time points."""
        return self.times * prod(self.shape)

    @property
    def widest(self) -> tuple[int, ...]:
        """The largest outer region that a block can have, per spatial axis."""
        rows = zip(self.block, self.overlap, self.shape, strict=True)
        return tuple(min(b + 2 * o, n) for b, o, n in rows)

    def time(self, number: int) -> int:
        """Time point of a block."""
        return number // self.per_time

    def index(self, number: int) -> tuple[int, ...]:
        """Position of a block in the grid, per spatial axis."""
        return tuple(int(i) for i in np.unravel_index(number % self.per_time, self.counts))

    def core(self, number: int) -> Box:
        """What the block decides."""
        index = self.index(number)
        start = tuple(i * b for i, b in zip(index, self.block, strict=True))
        return Box(
            start,
            tuple(min(a + b, n) for a, b, n in zip(start, self.block, self.shape, strict=True)),
        )

    def outer(self, number: int) -> Box:
        """What the block clusters."""
        return self.core(number).grown(self.overlap, self.shape)

    def above(self, number: int, axis: int) -> int | None:
        """The neighbour at the upper face along `axis`, or None at the end of the volume."""
        if self.index(number)[axis] + 1 == self.counts[axis]:
            return None
        return number + prod(self.counts[axis + 1 :])

    def below(self, number: int, axis: int) -> int | None:
        """The neighbour at the lower face along `axis`, or None at the start of the volume."""
        return number - prod(self.counts[axis + 1 :]) if self.index(number)[axis] else None

    def slab(self, number: int, axis: int) -> Box:
        """What a block and its neighbour above along `axis` have both labelled."""
        above = self.above(number, axis)
        if above is None:
            raise ValueError(f"block {number} has no neighbour above along axis {axis}")
        return self.outer(number).overlap(self.outer(above))


def make_grid(
    shape: tuple[int, ...], block: tuple[int, ...], overlap: tuple[int, ...], times: int = 1
) -> BlockGrid:
    """A checked grid.

    Parameters
    ----------
    shape, block, overlap : tuple of int
        Segmented region, block core and overlap ([Z,] Y, X), in voxels.
    times : int
        Time points.

    Raises
    ------
    ConfigError
        If there are two blocks along an axis and the overlap is zero, so that
        no object could be followed across their face, or exceeds the core.
    """
    grid = BlockGrid(shape, block, overlap, times)
    for count, core, margin in zip(grid.counts, block, overlap, strict=True):
        if count > 1 and not 0 < margin <= core:
            raise ConfigError(
                "overlap must be at least 1 and at most the block along every axis that is divided",
                f"overlap {overlap} with block {block}",
                "Give --overlap about the diameter of an object, or larger blocks.",
            )
    return grid


def owned_first(
    labels: np.ndarray, core: tuple[slice, ...], shown: Sequence[np.ndarray] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Number a block's objects so that those with voxels in the core come first.

    Parameters
    ----------
    labels : integer, shape ([Z,] Y, X)
        Labels of the outer region, 0 = background. A table as long as the largest
        is made.
    core : tuple of slice
        The core inside `labels`.
    shown : sequence of ndarray, optional
        Per axis the voxels of the core that count, where the label has coarser voxels
        and shows only those. An object without any of them is none of the core's.

    Returns
    -------
    labels : uint32, same shape
        Ids 1..n; 1..k occur in the core, the rest do not. Order is kept otherwise.
    sizes : int64, shape (k,)
        Core voxels of the objects 1..k.
    """
    total = np.bincount(labels.ravel())
    inside = np.bincount(labels[core].ravel(), minlength=len(total))
    if shown:
        seen = np.bincount(labels[core][np.ix_(*shown)].ravel(), minlength=len(total))
        inside[seen == 0] = 0
    total[0] = inside[0] = 0
    order = np.concatenate([np.flatnonzero(inside), np.flatnonzero((total > 0) & (inside == 0))])
    new = np.zeros(len(total), np.uint32)
    new[order] = np.arange(1, len(order) + 1)
    return new[labels], inside[inside > 0].astype(np.int64)
