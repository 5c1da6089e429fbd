"""Planes of a stack that hold one value, as where a camera or a laser missed one.

An object that passes such a plane falls into two, and one that is far brighter than all else takes
the contrast of the whole stack. A few in succession are read as the nearest plane that holds
something; more of them are a gap of which nobody knows what was there, and stay.
"""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import RemoteError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from spoco_zoo.ngff.image import Image

__all__ = ["find_lost", "read_mended"]

LONGEST = 3
"""Planes in succession that are mended."""
EDGE = 128
"""Of the column of voxels that tells which planes may be lost."""
SLAB = 64
"""Planes of it that are read at a time."""
USUAL = 0.5
"""Share of a plane that may hold the value of the one beside it, if that is lost: ground that is of
one value by itself, as where it was masked, leaves planes without objects."""
PIECE = 2**21
"""Voxels of a plane that are read at a time."""


def find_lost(
    image: Image, level: int, time: int, channels: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Planes inside a stack that are of one value per channel, and what is read in their place.

    Looked for in one column of voxels, and then in all of the few planes that are meant.

    Parameters
    ----------
    image : Image
    level, time : int
    channels : sequence of int

    Returns
    -------
    tuple of (int, int)
        Lost plane and the nearest good one, of two the one before. Empty for images without z,
        and where a part of the column cannot be read.

    Raises
    ------
    RemoteError
        If the store of the image is away.
    """
    if image.spatial[:1] != ("z",):
        return ()
    look = _Look(image, level, time, tuple(channels))
    try:
        return tuple(look.lost())
    except RemoteError:
        raise
    except StoreError:  # the blocks that hold it will say so
        return ()


class _Look:
    """A stack that is gone through in search of lost planes."""

    def __init__(self, image: Image, level: int, time: int, channels: tuple[int, ...]) -> None:
        self.image, self.where = image, (level, time, channels)
        self.shape = image.spatial_shape(level)
        chunks = image.chunks(level)[-3:]
        self.slab = max(SLAB, chunks[0])
        self.column = tuple(_middle(n, c) for n, c in zip(self.shape[1:], chunks[1:], strict=True))

    def lost(self) -> Iterator[tuple[int, int]]:
        """See `find_lost`."""
        flat = np.concatenate(list(self._flat()))
        good = np.flatnonzero(~flat)
        for before, after in pairwise(good.tolist()):
            if not 1 < after - before <= LONGEST + 1:
                continue
            between = range(before + 1, after)
            if all(self._is_lost(z, before, after) for z in between):
                yield from ((z, after if 2 * z > before + after else before) for z in between)

    def _flat(self) -> Iterator[NDArray[np.bool_]]:
        """Which planes are of one value in the column."""
        for start in range(0, self.shape[0], self.slab):
            planes = slice(start, min(start + self.slab, self.shape[0]))
            values = self.image.read(*self.where, (planes, *self.column))
            across = (2, 3)
            yield (values.min(axis=across) == values.max(axis=across)).all(axis=0)

    def _is_lost(self, z: int, *beside: int) -> bool:
        """Whether all of a plane is of one value, and those beside it are mostly of others."""
        voxel = tuple(slice(s.start, s.start + 1) for s in self.column)
        value = self.image.read(*self.where, (slice(z, z + 1), *voxel))
        near = (self._share(other, value, self.column) for other in beside)
        if any(share >= USUAL for share in near):
            return False
        whole = tuple(slice(0, n) for n in self.shape[1:])
        if self._share(z, value, whole) < 1:
            return False
        return all(self._share(other, value, whole) < USUAL for other in beside)

    def _share(self, z: int, value: NDArray[Any], area: tuple[slice, ...]) -> float:
        """How much of an area of a plane is of a value (C, 1, 1, 1)."""
        rows, columns = area
        step = max(PIECE // max(columns.stop - columns.start, 1), 1)
        same = 0
        for start in range(rows.start, rows.stop, step):
            part = slice(start, min(start + step, rows.stop))
            values = self.image.read(*self.where, (slice(z, z + 1), part, columns))
            same += int(np.count_nonzero((values == value).all(axis=0)))
        return float(same / ((rows.stop - rows.start) * (columns.stop - columns.start)))


def read_mended(
    image: Image,
    level: int,
    time: int,
    channels: Sequence[int] | None,
    where: Sequence[slice],
    lost: Sequence[tuple[int, int]] = (),
) -> NDArray[Any]:
    """As `Image.read`, with the voxels of a good plane in place of those of a lost one.

    Parameters
    ----------
    image : Image
    level, time, channels, where
        See `Image.read`.
    lost : sequence of (int, int)
        See `find_lost`.

    Returns
    -------
    ndarray, shape (C, [Z,] Y, X)

    Raises
    ------
    StoreError
        As `Image.read`.
    """
    values = image.read(level, time, channels, where)
    planes = where[0]
    meant = [pair for pair in lost if planes.start <= pair[0] < planes.stop]
    if not meant:
        return values
    values = values.copy()
    for good, pairs in groupby(meant, key=lambda pair: pair[1]):
        if planes.start <= good < planes.stop:
            found = values[:, good - planes.start]
        else:
            found = image.read(level, time, channels, (slice(good, good + 1), *where[1:]))[:, 0]
        for plane, _ in pairs:
            values[:, plane - planes.start] = found
    return values


def _middle(length: int, chunk: int) -> slice:
    """The middle of an axis, in one chunk where there is room."""
    edge = min(EDGE, length)
    start = (length - edge) // 2
    border = -(-start // chunk) * chunk
    if start < border < start + edge <= border + chunk:
        start = min(border, length - edge)
    return slice(start, start + edge)
