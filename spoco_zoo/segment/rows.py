"""Successive blocks of one row as one task: what neighbours share is made once.

::

    reader thread    read 1 | read 2 | read 3 | ...
    this thread             | embed 1| embed 2| embed 3 | ...        the device is never idle
    finishers                        | cluster, write 1 | cluster, write 2 | ...

Blocks of a row lie beside each other along the last axis, so that many patches
reach into both a block and the next. Their outputs are kept. Nothing of this
shows in the result.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from spoco_zoo.nets.device import find_device
from spoco_zoo.segment.embed import Kept
from spoco_zoo.segment.tasks import embed_block, file_block, read_block
from spoco_zoo.segment.tiling import LONGEST_ROW
from spoco_zoo.segment.workers.failures import ends_run, reason_of
from spoco_zoo.segment.workers.memory import keep_freed_memory, return_freed_memory
from spoco_zoo.stopping import STOP, Stop

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from spoco_zoo.segment.blocks import BlockGrid
    from spoco_zoo.segment.tasks import BlockField, BlockResult, Common

__all__ = ["Lost", "Outcome", "label_row", "listed_row", "longest_row", "rows_of"]

GPU_FINISHERS = 4
"""Blocks that may be clustered at once while a GPU embeds the next; each needs its memory."""


class Lost(NamedTuple):
    """A block without result."""

    reason: str


Outcome = tuple[int, "BlockResult | Lost"]


def rows_of(numbers: Iterable[int], grid: BlockGrid, most: int) -> Iterator[tuple[int, ...]]:
    """Group ascending block numbers into runs of neighbours along the last axis.

    Parameters
    ----------
    numbers : iterable of int
    grid : BlockGrid
    most : int
        Longest run.
    """
    row: list[int] = []
    for number in numbers:
        follows = row and number == row[-1] + 1 and grid.index(number)[-1] > 0
        if row and (not follows or len(row) == most):
            yield tuple(row)
            row = []
        row.append(number)
    if row:
        yield tuple(row)


def longest_row(grid: BlockGrid, workers: int) -> int:
    """How many blocks a worker should be given at once.

    Of B blocks W workers get rows of L. A row runs the patches beyond its two ends
    for nobody else, as many as one of its blocks has or twice that: 1 + 1 / L times the work or
    more. At the end workers wait for half a row on average: 1 + L W / (2 B). The product of
    both is least at L = sqrt(2 B / W) or above.

    Parameters
    ----------
    grid : BlockGrid
    workers : int

    Returns
    -------
    int
        Cuts every line of blocks along the last axis into rows as equal as can be.
    """
    most = min(max(isqrt(2 * grid.total // workers), 1), LONGEST_ROW)
    line = grid.counts[-1]
    return -(-line // -(-line // most))


def label_row(
    common: Common, numbers: tuple[int, ...], stop: Stop | None = None
) -> Iterator[Outcome]:
    """Embed, cluster and file blocks, which should lie beside each other; yield each when filed.

    A block that fails does not take the others with it.

    Parameters
    ----------
    common : Common
    numbers : tuple of int
    stop : Stop, optional
        Once an end is asked for, no further block is begun; those in flight are yielded.

    Yields
    ------
    (int, BlockResult or Lost)

    Raises
    ------
    OSError, RemoteError
        If the disk is full or the object store away, which would fail all other blocks too.
    """
    finishers = _count_finishers(common)
    waiting: deque[tuple[int, Future[BlockResult | Lost]]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(max(finishers, 1)) as finisher:
        for number, field in _embedded(common, numbers, reader, stop or Stop()):
            # Each `del` below frees embeddings before those of the next block are made.
            if finishers == 0 or isinstance(field, Lost):
                outcome = _filed(common, field)
                del field
                yield number, outcome
                continue
            waiting.append((number, finisher.submit(_filed, common, field)))
            del field
            # The next block is not embedded before there is room for it.
            while len(waiting) > finishers:
                first, future = waiting.popleft()
                yield first, future.result()
        for number, future in waiting:
            yield number, future.result()


def listed_row(common: Common, numbers: tuple[int, ...]) -> list[Outcome]:
    """`label_row` for workers, which do nothing else and send all results at once."""
    keep_freed_memory()
    outcomes = []
    # The driver is elsewhere; after Ctrl-C it waits for this block and not for all of the row.
    for outcome in label_row(common, numbers, Stop(Path(common.folder, STOP))):
        outcomes.append(outcome)
        return_freed_memory()
    return outcomes


def _embedded(
    common: Common, numbers: tuple[int, ...], reader: ThreadPoolExecutor, stop: Stop
) -> Iterator[tuple[int, BlockField | Lost]]:
    """Each block with its embeddings, while the next one is being read."""
    kept = (Kept(), Kept())
    ahead = reader.submit(read_block, common, numbers[0])
    for number, upcoming in stop.until(zip(numbers, (*numbers[1:], None), strict=True)):
        reading = ahead
        if upcoming is not None:
            ahead = reader.submit(read_block, common, upcoming)
        try:
            yield number, embed_block(common, reading.result(), kept, upcoming)
        except Exception as error:  # one bad block must not cost the others
            yield number, _lost(error)
            kept = (Kept(), Kept())


def _count_finishers(common: Common) -> int:
    """Threads that cluster beside the network: none where there is but one thread to share."""
    spare = torch.get_num_threads() - 1
    if find_device(common.device).type == "cuda":
        return max(min(GPU_FINISHERS, spare), 1)
    return min(spare, 1)


def _filed(common: Common, field: BlockField | Lost) -> BlockResult | Lost:
    """The outcome of a block whose embeddings are there, or could not be made."""
    if isinstance(field, Lost):
        return field
    try:
        return file_block(common, field)
    except Exception as error:  # one bad block must not cost the others
        return _lost(error)


def _lost(error: Exception) -> Lost:
    if ends_run(error):
        raise error
    return Lost(reason_of(error))
