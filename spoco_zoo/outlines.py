"""Outlines of labels as polygons.

An object is traced in each plane that it has voxels in. Vertices lie on the lines between voxels,
in the middle of a side, and are counted from the corner of the image::

       0     1     2     3      x
     0 +-----+-----+-----+
       |     | *--*|     |      * vertices of one voxel's outline; its centre is at (1.5, 0.5)
     1 +-----+-*--*+-----+

so the voxels whose centres lie inside are those of the object, without exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.label_places import align
from spoco_zoo.label_sums import sum_objects
from spoco_zoo.ngff.store import whole_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from spoco_zoo.ngff import Image
    from spoco_zoo.sums import Sums

__all__ = ["Outline", "trace", "trace_labels"]

TILE_VOXELS = 2**24
"""Objects that begin in one such piece are read together."""
READ_VOXELS = 2**28
"""Read at a time at most, though never less than a plane of all objects of a piece."""
LEVEL = 0.5
"""Between 0 outside and 1 inside."""
CROSS = ((0, 1, 0), (1, 1, 1), (0, 1, 0))
"""Pixels that share a side with the middle one; without it every call would make it anew."""


@dataclass(frozen=True)
class Outline:
    """One object in one plane.

    Attributes
    ----------
    label : int
    time, plane : int or None
        Which time point and plane; None where the image has only one.
    pieces : tuple of tuple of float64, shape (N, 2)
        For each part in one piece its outer ring and then those of its holes: x, y of the vertices
        in voxels of the image, counterclockwise outside and clockwise around holes where y points
        up. The first vertex is not repeated.
    """

    label: int
    time: int | None
    plane: int | None
    pieces: tuple[tuple[NDArray[np.float64], ...], ...]


def trace(mask: NDArray[np.bool_]) -> tuple[tuple[NDArray[np.float64], ...], ...]:
    """Rings around the True pixels of a plane.

    Parameters
    ----------
    mask : bool, shape (Y, X)

    Returns
    -------
    tuple of tuple of float64, shape (N, 2)
        See `Outline.pieces`. Pixels that touch at a corner only are pieces of their own.
    """
    from scipy import ndimage
    from skimage.measure import find_contours

    numbered, _ = ndimage.label(mask, CROSS)
    pieces = []
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        padded = np.pad(numbered[box] == number, 1).astype(np.float32)
        # From centres of padded pixels to corners of the image's.
        shift = np.array([part.start for part in box]) - 0.5
        rings = [
            _without_straight(contour[:-1] + shift)[:, ::-1]
            for contour in find_contours(padded, LEVEL, fully_connected="low")
        ]
        areas = [_area(ring) for ring in rings]
        # A hole is smaller than what it is in.
        order = sorted(range(len(rings)), key=lambda i: -abs(areas[i]))
        pieces.append(
            tuple(
                rings[i] if (areas[i] > 0) == (place == 0) else rings[i][::-1]
                for place, i in enumerate(order)
            )
        )
    return tuple(pieces)


def _without_straight(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """A ring without the vertices that lie on a line between their neighbours."""
    closed = np.concatenate([ring[-1:], ring, ring[:1]])
    steps = closed[1:] - closed[:-1]
    before, after = steps[:-1], steps[1:]
    turns: NDArray[np.bool_] = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    return ring[turns]


def _area(ring: NDArray[np.float64]) -> float:
    """Of a ring (N, 2) of x, y; positive if counterclockwise where y points up."""
    x, y = np.concatenate([ring, ring[:1]]).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])) / 2


def trace_labels(
    labels: Image, image: Image | None, tell: Callable[[str, int, int], None]
) -> Iterator[Outline]:
    """Trace every object in every plane, in pieces of the image.

    Parameters
    ----------
    labels : Image
        Of one channel.
    image : Image or None
        Whose voxels count, at its finest level; without one those of the labels do.
    tell : callable
        Told a phase, what is done of it and how much there is.

    Yields
    ------
    Outline

    Raises
    ------
    DataError
        If the labels lie on no level of the image, or are no numbers of objects.
    StoreError
        If the labels cannot be read.
    """
    place = _Placement.on(labels, image)
    whole = (labels if image is None else image).spatial_shape()
    stack = len(labels.spatial) == len(whole) == 3 and whole[0] > 1
    for time in range(labels.n_times):
        found = sum_objects(labels, time, partial(tell, "find"))
        done = 0
        for rows in _by_tile(labels, found):
            for plane, label, corner, mask in _masks(labels, time, found, rows):
                pieces = tuple(
                    tuple(place.vertices(ring, corner) for ring in p) for p in trace(mask)
                )
                moment = time if labels.n_times > 1 else None
                for at in place.planes(plane, whole[0]) if stack else [None]:
                    yield Outline(label, moment, at, pieces)
            done += len(rows)
            tell("trace", time * len(found.ids) + done, labels.n_times * len(found.ids))


def _by_tile(labels: Image, found: Sums) -> Iterator[list[int]]:
    """Rows of the objects that begin in the same piece of the image, piece after piece."""
    shape = labels.spatial_shape()
    chunk = labels.chunks()[-len(shape) :]
    first = next(iter(whole_chunks(shape, chunk, TILE_VOXELS)), ())
    side = [part.stop for part in first]

    def tile(row: int) -> tuple[int, ...]:
        return tuple(int(a) // n for a, n in zip(found.low[row], side, strict=True))

    for _, rows in groupby(sorted(range(len(found.ids)), key=tile), key=tile):
        yield list(rows)


def _masks(
    labels: Image, time: int, found: Sums, rows: Sequence[int]
) -> Iterator[tuple[int, int, tuple[int, int], NDArray[np.bool_]]]:
    """Yield plane, label, first pixel (Y, X) and mask, reading the planes of a chunk at a time."""
    flat = len(labels.spatial) == 2
    # (object, Z Y X), as if a plane were a stack of one.
    lead = ((0, 0), (int(flat), 0))
    low, high = np.pad(found.low[rows], lead), np.pad(found.high[rows], lead) + 1
    first, last = low.min(0), high.max(0)
    fitting = max(1, READ_VOXELS // int((last - first)[1:].prod()))
    thick = 1 if flat else min(int(labels.chunks()[-3]), fitting)
    for start in range(int(first[0]) // thick * thick, int(last[0]), thick):
        top, bottom = max(start, int(first[0])), min(start + thick, int(last[0]))
        sides = [slice(int(a), int(b)) for a, b in zip(first[1:], last[1:], strict=True)]
        region = sides if flat else [slice(top, bottom), *sides]
        stack = labels.read(0, time, None, region).reshape(bottom - top, *(last - first)[1:])
        for row, begin, end in zip(rows, low, high, strict=True):
            where = tuple(slice(*ends) for ends in zip(begin - first, end - first, strict=True))[1:]
            corner = (int(begin[1]), int(begin[2]))
            for plane in range(max(top, int(begin[0])), min(bottom, int(end[0]))):
                mask = stack[plane - top][where] == found.ids[row]
                if mask.any():
                    yield plane, int(found.ids[row]), corner, mask


@dataclass(frozen=True)
class _Placement:
    """From voxels of labels to those of the image they belong to, ([Z,] Y, X)."""

    factor: NDArray[np.float64]
    shift: NDArray[np.float64]
    """In voxels of the image, of the labels' first voxel centre from the image's."""

    @classmethod
    def on(cls, labels: Image, image: Image | None) -> _Placement:
        """Of labels on a level of an image, or on a region of one; on none they stay."""
        n = len(labels.spatial)
        if image is None:
            return cls(np.ones(n), np.zeros(n))
        level, offset = align(labels, image)
        own, finest = image.levels[level], image.levels[0]
        scale = np.asarray(finest.scale[-n:])
        factor = np.asarray(own.scale[-n:]) / scale
        shift = np.subtract(own.translation[-n:], finest.translation[-n:]) / scale
        return cls(factor, shift + factor * offset)

    def planes(self, index: int, count: int) -> range:
        """Of an image of so many, those whose middle lies within one of the labels."""
        ends = (index + np.array([-0.5, 0.5])) * self.factor[0] + self.shift[0]
        # Sizes and places of levels are rounded.
        first, last = np.ceil(np.round(ends, 3)).astype(int).clip(0, count)
        return range(first, last)

    def vertices(self, ring: NDArray[np.float64], corner: tuple[int, int]) -> NDArray[np.float64]:
        """Of the image, for x, y from the corner of a pixel (Y, X) of the labels."""
        # Centres count in OME-Zarr: half a voxel off the corners.
        centre = ring + np.array(corner[::-1]) - 0.5
        return np.asarray(centre * self.factor[:-3:-1] + self.shift[:-3:-1] + 0.5)
