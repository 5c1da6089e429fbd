"""Whether blocks read the same stored pieces of an image again and again.

A stored piece (chunk, strip or tile) is decoded whole for any part of it. Planes that are
compressed in one piece are so for each block that they pass::

    plane   |===========================|       decoded four times
    blocks  [  0   |  1   |  2   |  3   ]
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.ngff import Image
    from spoco_zoo.segment.blocks import BlockGrid, Box
    from spoco_zoo.segment.field import AxisGrid, Field

__all__ = ["remark_rereading"]

OFTEN = 20
"""Times that a voxel is decoded, of which a line tells: Deflate takes some 6 ns each time."""
LARGE = 2**28
"""Voxels of an image; for fewer a conversion is not worth the trouble."""


def remark_rereading(
    image: Image, level: int, region: Box, shape: Sequence[int], field: Field, grid: BlockGrid
) -> str:
    """What to tell of an image whose stored pieces do not suit the blocks; empty if they do.

    Parameters
    ----------
    image : Image
        As it is stored.
    level : int
    region : Box
        What is segmented, in voxels that the network sees.
    shape : sequence of int
        Of the whole level in such voxels.
    field : Field
    grid : BlockGrid
    """
    stored = image.spatial_shape(level)
    if grid.voxels < LARGE:
        return ""
    chunk = image.chunks(level)[-len(stored) :]
    times = prod(
        _times(axis, start, size, block, margin, piece * seen / whole)
        for axis, start, size, block, margin, piece, seen, whole in zip(
            field.axes,
            region.start,
            grid.shape,
            grid.block,
            grid.overlap,
            chunk,
            shape,
            stored,
            strict=True,
        )
    )
    if times < OFTEN:
        return ""
    return (
        f"The image is stored in pieces of {' x '.join(map(str, chunk))} voxels, each of which is "
        f"read some {times:.0f} times; once `spoco-zoo convert` has made an OME-Zarr of it, "
        "reading is faster."
    )


def _times(axis: AxisGrid, start: int, size: int, block: int, margin: int, piece: float) -> float:
    """Pieces that all blocks read along an axis, over those that there are."""
    read = 0
    for low in range(start, start + size, block):
        high = min(low + block, start + size)
        span = axis.touching(max(low - margin, start), min(high + margin, start + size))
        read += _pieces(axis.patch(span[0])[0], axis.patch(span[-1])[1], piece)
    return read / _pieces(start, start + size, piece)


def _pieces(start: int, stop: int, piece: float) -> int:
    """Pieces that a range of voxels touches."""
    return int((stop - 1) / piece) - int(start / piece) + 1
