"""Blocks whose staged files are no longer what they were, and have to be made again.

A run that comes upon such a file goes on without it and leaves a gap; the next process looks
through all of them first. What was damaged is then made anew, as on the first day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spoco_zoo.ngff.store import discard_blocks
from spoco_zoo.segment.slabs import block_file, check_staged, checksum, edge_file

if TYPE_CHECKING:
    from spoco_zoo.segment.progress import Progress
    from spoco_zoo.segment.tasks import Common

__all__ = ["StagedItem", "is_whole", "staged_items"]


class StagedItem(NamedTuple):
    """A block with objects, and what the ledger says of its files."""

    number: int
    checksum: int
    """CRC-32 of the core's local ids."""
    joined: bool
    """Whether it was matched with its neighbours above."""


def staged_items(progress: Progress) -> list[StagedItem]:
    """All blocks that have staged anything."""
    return [
        StagedItem(n, int(progress.checksums[n]), progress.has_face(n))
        for n in np.flatnonzero(progress.objects > 0).tolist()
    ]


def is_whole(common: Common, item: StagedItem) -> bool:
    """Whether everything that a block staged is there and as it was.

    If not, its labels are removed: a damaged shard could not be written over.
    """
    grid, number = common.grid, item.number
    where = (grid.time(number), *grid.core(number).slices)
    try:
        check_staged(block_file(common.folder, number))
        if item.joined:
            check_staged(edge_file(common.folder, number))
        whole = checksum(np.asarray(common.local[where])) == item.checksum
    except MemoryError:
        raise
    except Exception:  # files, codecs and zips raise their own kinds; all mean the same
        whole = False
    if not whole:
        discard_blocks(common.local, where)
    return whole
