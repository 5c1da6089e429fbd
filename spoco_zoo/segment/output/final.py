"""Tasks that write the label itself: the finest level from staged blocks, the others from it.

Both check what an earlier process says it wrote, and write it again if it is no longer there.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.store import discard_blocks
from spoco_zoo.segment.output.pyramid import coarse_block
from spoco_zoo.segment.relabel import apply_table
from spoco_zoo.segment.slabs import AGAIN, checksum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.segment.blocks import BlockGrid
    from spoco_zoo.segment.output.pyramid import AxisStep

__all__ = ["CoreItem", "fill_coarse", "relabel_block"]


class CoreItem(NamedTuple):
    """A block's core, to be given final ids."""

    number: int
    start: int
    """First node of the block in the table."""
    stop: int
    checksum: int
    written: int | None = None
    """CRC-32 of the final ids that an earlier process wrote here, if one did."""


def relabel_block(
    local: Any, final: Any, table: str, grid: BlockGrid, item: CoreItem
) -> int | None:
    """Write the final ids of one block's core, unless an earlier process did and they are there.

    Parameters
    ----------
    local, final : array-like
        Staging array (T, [Z,] Y, X) and finest level of the label ([T,] [Z,] Y, X).
    table : str
        File of the final ids of all nodes; only the block's slice is read.
    grid : BlockGrid
    item : CoreItem

    Returns
    -------
    int or None
        CRC-32 of the final ids; None if they were there.

    Raises
    ------
    StoreError
        If the staging array no longer holds what the block wrote.
    """
    where = (grid.time(item.number), *grid.core(item.number).slices)
    if _is_written(final, where[-final.ndim :], item.written):
        return None
    labels = np.asarray(local[where])
    if checksum(labels) != item.checksum:
        raise StoreError(
            "the staged labels of a block must be those that it wrote",
            f"others for block {item.number}",
            AGAIN,
        )
    ids = np.load(table, mmap_mode="r")[item.start : item.stop]
    found = apply_table(labels, np.asarray(ids))
    discard_blocks(final, where[-final.ndim :])
    final[where[-final.ndim :]] = found
    return zlib.crc32(np.ascontiguousarray(found).data)


def fill_coarse(
    fine: Any,
    coarse: Any,
    steps: Sequence[AxisStep],
    unit: tuple[int, tuple[slice, ...], int | None],
) -> int | None:
    """Write one write unit of a coarser level, unless an earlier process did and it is there.

    Parameters
    ----------
    fine, coarse : array-like
        Two successive levels ([T,] [Z,] Y, X).
    steps : sequence of AxisStep
        One per axis of the arrays.
    unit : (int, tuple of slice, int or None)
        The write unit: its number, where it lies in voxels of the coarse level, and the CRC-32
        of what an earlier process wrote there, if one did.

    Returns
    -------
    int or None
        CRC-32 of the labels; None if they were there.
    """
    _, where, written = unit
    if _is_written(coarse, where, written):
        return None
    labels = np.asarray(coarse_block(fine, steps, where), coarse.dtype)
    discard_blocks(coarse, where)
    coarse[where] = labels
    return zlib.crc32(np.ascontiguousarray(labels).data)


def _is_written(array: Any, where: tuple[Any, ...], written: int | None) -> bool:
    """Whether a region still holds the labels of that CRC-32; not if it cannot be read."""
    if written is None:
        return False
    try:
        found = np.asarray(array[where])
    except Exception:  # codecs and file systems raise their own kinds; it is written again
        return False
    return zlib.crc32(np.ascontiguousarray(found).data) == written
