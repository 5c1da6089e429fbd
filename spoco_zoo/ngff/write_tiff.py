"""OME-TIFF written piece by piece, of images and of labels.

Planes are written one after the other. Of planes that exceed a slab, tiles are::

      X ->
    Y +------+------+---+   a slab: as many tiles of a row as it may hold; tiles at the ends
    | |  1   |  2   | 3 |   of the axes are smaller
    v +------+------+---+
      |  4   |  5   | 6 |
      +------+------+---+
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import tifffile
from numpy.typing import NDArray

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.store import tiles
from spoco_zoo.replacing import replacing

__all__ = ["is_label_tiff", "write_label_tiff", "write_ome_tiff"]

LABEL_MARK = "spoco-zoo labels"
"""Software that label images name: a file with this name may be replaced by new labels."""
SLAB_BYTES = 2**28
"""Most bytes that are read at once."""
LARGEST_RATIONAL = 2**31
"""That a tag of two 32-bit numbers holds."""
TILE = 1024
"""Sides of the tiles of planes that exceed a slab."""


def write_label_tiff(
    path: str | Path,
    labels: Any,
    scale: Sequence[float | None] | None = None,
    *,
    axes: str | None = None,
    interval: float | None = None,
    highest: int | None = None,
) -> None:
    """Write a label image as a compressed OME-TIFF, under a temporary name until complete.

    Parameters
    ----------
    path : path
        Target file, replaced if it exists.
    labels : ndarray or zarr.Array of integers
        ``([Z,] Y, X)``, or with the axes that `axes` names. Stored as uint16
        where the ids fit, else as uint32: what ImageJ and Bio-Formats read. A
        stored array is read in slabs.
    scale : sequence of float, optional
        Voxel size per spatial axis in micrometres; None for axes of which it is not known.
    axes : str, optional
        E.g. ``"TZYX"``; by default the last of ``ZYX``.
    interval : float, optional
        Seconds from one time point to the next.
    highest : int, optional
        Largest id, where it is known; otherwise all of `labels` is looked at.

    Raises
    ------
    StoreError
        If an id does not fit 32 bits or is negative, or the file cannot be written.
    """
    axes = axes or "ZYX"[-labels.ndim :]
    low, high = 0, highest
    if high is None:
        values = labels[...]
        low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high > 0xFFFFFFFF:
        raise StoreError(
            "label ids in a TIFF must fit 32 bits", f"{low} to {high}", "Write OME-Zarr instead."
        )
    dtype = np.dtype(np.uint16 if high <= 0xFFFF else np.uint32)
    chunk = getattr(labels, "chunks", labels.shape)

    def read(where: tuple[slice, ...]) -> NDArray[Any]:
        found: NDArray[Any] = labels[where].astype(dtype)
        return found

    write_ome_tiff(
        path,
        read,
        labels.shape,
        chunk,
        dtype,
        axes,
        scale,
        interval=interval,
        software=LABEL_MARK,
    )


def is_label_tiff(path: str | Path) -> bool:
    """Whether a file is one that `write_label_tiff` wrote."""
    try:
        with tifffile.TiffFile(path) as tiff:
            return bool(tiff.pages.first.software == LABEL_MARK)
    except Exception:  # whatever else it is, it is not ours
        return False


def write_ome_tiff(
    path: str | Path,
    read: Callable[[tuple[slice, ...]], NDArray[Any]],
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: np.dtype[Any],
    axes: str,
    scale: Sequence[float | None] | None,
    *,
    interval: float | None = None,
    channel_names: Sequence[str] = (),
    software: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write an OME-TIFF of what `read` gives of regions, then rename it.

    Parameters
    ----------
    path : path
    read : callable
        From one slice per axis to an array of `dtype`.
    shape, chunk : sequence of int
        ``(..., Y, X)``; slabs are as deep as a chunk, or as `SLAB_BYTES` hold.
    dtype : numpy.dtype
    axes : str
        E.g. ``"TCZYX"``.
    scale : sequence of float, optional
        Voxel size per spatial axis in micrometres; None for axes of which it is not known.
    interval : float, optional
        Seconds from one time point to the next.
    channel_names : sequence of str
    software : str, optional
    progress : callable
        Is told how many planes or tiles are written, of how many.
    """
    # Else it is made of the clock and the machine, and no file is ever the same again.
    what = f"{axes} {tuple(shape)} {dtype} ".encode() + os.fsencode(Path(path).absolute())
    unique = UUID(bytes=hashlib.sha256(what).digest()[:16], version=5)
    metadata: dict[str, Any] = {"axes": axes, "UUID": f"urn:uuid:{unique}"}
    spatial = [axis for axis in axes if axis in "ZYX"]
    sizes = dict(zip(spatial, scale or (), strict=scale is not None))
    for axis, size in sizes.items():
        if size is not None:
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    if interval is not None:
        metadata |= {"TimeIncrement": interval, "TimeIncrementUnit": "s"}
    if channel_names:
        metadata["Channel"] = {"Name": list(channel_names)}
    tile = choose_tile(shape, dtype)
    size = prod(int(n) for n in shape) * dtype.itemsize
    try:
        with replacing(Path(path)) as partial:
            tifffile.imwrite(
                partial,
                _pieces(read, shape, slabs(shape, chunk, dtype, tile), tile, progress),
                shape=tuple(shape),
                dtype=dtype,
                tile=tile,
                ome=True,
                # Classic TIFF ends at 4 GiB; compression may not help, so the raw size decides.
                bigtiff=size > 2**32 - 2**25,
                compression="zlib",
                photometric="minisblack",
                **_resolution(sizes),
                software=software,
                metadata=metadata,
            )
    except OSError as error:
        raise StoreError(
            "the output must be writable", str(error), "Choose another place."
        ) from error


def _resolution(sizes: Mapping[str, float | None]) -> dict[str, Any]:
    """Tags for programs that read no OME-XML, as ImageJ without Bio-Formats: pixels per cm."""
    x, y = sizes.get("X"), sizes.get("Y")
    if not x or not y or 1e4 / min(x, y) > LARGEST_RATIONAL:
        return {}
    return {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}


def choose_tile(shape: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, int] | None:
    """Tiles (Y, X) of planes that exceed `SLAB_BYTES`; None for others, which are written whole."""
    return (TILE, TILE) if prod(shape[-2:]) * dtype.itemsize > SLAB_BYTES else None


def slabs(
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: np.dtype[Any],
    tile: tuple[int, int] | None,
) -> Iterator[tuple[slice, ...]]:
    """Regions that cover ``(..., Y, X)`` in file order and hold `SLAB_BYTES`, or one piece.

    Whole planes, along the axis before Y at most as many as a chunk has, and one along axes
    before that; with `tile`, parts of a row of tiles.
    """
    lead = [1] * (len(shape) - 2)
    if tile is None:
        most = max(1, SLAB_BYTES // max(1, prod(shape[-2:]) * dtype.itemsize))
        lead[-1:] = [min(n, most) for n in chunk[-3:-2]]
        yield from tiles(shape, (*lead, *(max(n, 1) for n in shape[-2:])))
        return
    wide = max(1, SLAB_BYTES // (prod(tile) * dtype.itemsize))
    yield from tiles(shape, (*lead, tile[0], wide * tile[1]))


def _pieces(
    read: Callable[[tuple[slice, ...]], NDArray[Any]],
    shape: Sequence[int],
    wheres: Iterator[tuple[slice, ...]],
    tile: tuple[int, int] | None,
    progress: Callable[[int, int], None],
) -> Iterator[NDArray[Any]]:
    """Planes or tiles (Y, X) in file order."""
    height, width = tile or shape[-2:]
    across = [-(-n // max(side, 1)) for n, side in zip(shape[-2:], (height, width), strict=True)]
    done, total = 0, prod(shape[:-2]) * prod(across)
    for where in wheres:
        slab = read(where)
        for plane in slab.reshape(-1, *slab.shape[-2:]):
            for start in range(0, plane.shape[1], max(width, 1)):
                # Told before: after the last piece nobody asks for another.
                progress(done := done + 1, total)
                yield plane[:, start : start + width]
