"""Sums over a label image, block by block, so that memory holds one block and a row per object."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import DataError
from spoco_zoo.ngff.store import whole_chunks
from spoco_zoo.object_ids import check_ids
from spoco_zoo.sums import empty, joined, sum_voxels

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spoco_zoo.ngff import Image
    from spoco_zoo.sums import Sums

__all__ = ["check_one_channel", "sum_blocks", "sum_objects"]

BLOCK_VOXELS = 2**21
"""Voxels of all channels held at a time."""
MERGE_ROWS = 2**20
"""Rows that are gathered before equal ids are merged."""


def sum_objects(labels: Image, when: int, on_block: Callable[[int, int], None]) -> Sums:
    """What every object of one time point adds up to without intensities, in the order of ids.

    Parameters
    ----------
    labels : Image
        Of one channel.
    when : int
        The time point.
    on_block : callable
        Called with blocks done and blocks in all, of all time points.

    Raises
    ------
    DataError
        If ids are negative or too large, or grey values.
    StoreError
        If the labels cannot be read.
    """

    def nothing(where: tuple[slice, ...]) -> NDArray[Any]:
        return np.empty((0, *(w.stop - w.start for w in where)))

    return sum_blocks(labels, when, 0, nothing, on_block)


def sum_blocks(
    labels: Image,
    when: int,
    channels: int,
    values: Callable[[tuple[slice, ...]], NDArray[Any]],
    on_block: Callable[[int, int], None],
) -> Sums:
    """What every object of one time point adds up to, one row each, in the order of ids.

    Parameters
    ----------
    labels, when, on_block
        See `sum_objects`, as for what is raised.
    channels : int
    values : callable
        Gives the intensities (C, [Z,] Y, X) of a region ([Z,] Y, X) of the labels.
    """
    shape = labels.spatial_shape()
    chunk = labels.chunks()[-len(shape) :]
    boxes = partial(whole_chunks, shape, chunk, BLOCK_VOXELS // (channels + 1))
    count = sum(1 for _ in boxes())  # a list would grow with the image
    parts = [empty(len(shape), channels)]
    merged = rows = 0
    told = False
    for number, where in enumerate(boxes(), start=1):
        ids = labels.read(0, when, None, where)[0]
        _check_range(ids, labels.uri)
        told = told or check_ids(ids, labels.uri)
        if ids.any():
            parts.append(sum_voxels(ids, values(where), [w.start for w in where]))
            rows += len(parts[-1].ids)
        if rows > 2 * merged + MERGE_ROWS:
            parts = [joined(parts).merged()]
            merged = rows = len(parts[0].ids)
        on_block(when * count + number, labels.n_times * count)
    return joined(parts).merged()


def check_one_channel(labels: Image) -> None:
    """Refuse labels of which nobody knows which channel counts.

    Raises
    ------
    DataError
    """
    if labels.n_channels != 1:
        raise DataError(
            "a label image must have one channel",
            f"{labels.n_channels} in {labels.uri}",
            "Save each channel's labels as an image of their own; an RGB picture of labels is no "
            "label image.",
        )


def _check_range(ids: NDArray[Any], where: str) -> None:
    for odd in (ids.min(), ids.max()):
        if not 0 <= odd < 2**63:
            raise DataError(
                "labels must be 0 for background, and positive for objects (below 2^63)",
                f"{odd} in {where}",
                "Number the objects from 1.",
            )
