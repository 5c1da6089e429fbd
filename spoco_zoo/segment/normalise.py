"""What an image is normalised by: one mean and one standard deviation per volume and time point."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import DataError
from spoco_zoo.intensities import LARGEST, statistics_of
from spoco_zoo.segment.blocks import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from spoco_zoo.intensities import Statistics
    from spoco_zoo.ngff import Image

__all__ = ["check_finite", "measure"]

PIECE = 2**21
"""Voxels read at a time."""
MOST_PIECES = 64
"""Where there are more, this many are read, evenly spread: 2^27 voxels."""


def measure(
    image: Image, level: int, time: int, channels: Sequence[int], *, inverted: bool = False
) -> Statistics:
    """Mean, standard deviation and limits of one time point, read piece by piece.

    It is the level that is segmented, as in training: a coarser one has less
    noise and so a smaller deviation. Of more than 2^27 voxels an evenly spread
    sample of pieces is read, the same in every run; all are if the sample is of
    one value.

    Parameters
    ----------
    image : Image
    level, time : int
    channels : sequence of int
    inverted : bool
        Whether bright and dark are to change places.

    Returns
    -------
    Statistics

    Raises
    ------
    DataError
        If a value is NaN or infinite.
    """
    shape = image.spatial_shape(level)

    def read(boxes: Iterable[Box]) -> Iterator[np.ndarray]:
        for box in boxes:
            values = image.read(level, time, channels, box.slices)
            check_finite(values, box, image.uri)
            yield values

    boxes = list(_pieces(shape, MOST_PIECES))
    found = statistics_of(lambda: read(boxes))
    if found.std == 0 and sum(box.size for box in boxes) < prod(shape):
        # A sample of one value does not tell that the image is: what else it holds counts.
        every = list(_pieces(shape, None))
        other = [b for b, v in zip(every, read(every), strict=True) if (v != found.mean).any()]
        some = boxes[:1] + other[:: max(-(-len(other) // MOST_PIECES), 1)]
        found = statistics_of(lambda: read(some))
    return found._replace(inverted=inverted)


def check_finite(values: np.ndarray, box: Box, name: str) -> None:
    """Refuse NaN, infinity, and numbers whose differences 32 bits do not hold.

    Parameters
    ----------
    values : ndarray, shape (C, [Z,] Y, X)
    box : Box
        Where the values lie in the image `name`.

    Raises
    ------
    DataError
        Naming the first such voxel.
    """
    if values.dtype.kind != "f":
        return
    good = np.isfinite(values)
    if values.dtype.itemsize > 2:
        good &= np.abs(values) <= LARGEST
    if good.all():
        return
    channel, *voxel = np.argwhere(~good)[0]
    place = ",".join(str(int(v) + a) for v, a in zip(voxel, box.start, strict=True))
    raise DataError(
        f"every voxel must be a finite number, at most {LARGEST:.0e}",
        f"{values[(channel, *voxel)]} at voxel {place}, channel {channel}, of {name}",
        "Replace such values in the image, e.g. by 0.",
    )


def _pieces(shape: tuple[int, ...], most: int | None) -> Iterable[Box]:
    """Boxes of about `PIECE` voxels that cover the shape, or if they are too many a lattice."""
    step, room = list(shape), float(PIECE)
    for done, axis in enumerate(sorted(range(len(shape)), key=shape.__getitem__)):
        # What a short axis cannot take is left to the longer ones.
        step[axis] = min(shape[axis], max(1, round(room ** (1 / (len(shape) - done)))))
        room /= step[axis]
    counts = [-(-n // s) for n, s in zip(shape, step, strict=True)]
    if most is not None and prod(shape) > PIECE * most:
        while prod(counts) > most:
            widest = max(range(len(counts)), key=counts.__getitem__)
            counts[widest] -= 1
    starts = [
        np.unique(np.linspace(0, n - s, c).round().astype(int)) if c * s < n else np.arange(c) * s
        for n, s, c in zip(shape, step, counts, strict=True)
    ]
    for start in product(*starts):
        corner = tuple(int(a) for a in start)
        yield Box(corner, tuple(min(a + s, n) for a, s, n in zip(corner, step, shape, strict=True)))
