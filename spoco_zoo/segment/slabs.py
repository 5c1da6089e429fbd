"""What blocks leave for their neighbours: views of the shared slabs, and matches.

One ``.npz`` per block that holds objects: the sizes of its own objects in the
core, and for each face its view of the slab. One ``.npz`` per block with matches
at its upper faces. Both carry checksums, which reading verifies.
"""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import StoreError, one_line
from spoco_zoo.replacing import replacing
from spoco_zoo.segment.stitch import Side, make_side

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spoco_zoo.segment.blocks import BlockGrid

__all__ = [
    "AGAIN",
    "block_file",
    "check_staged",
    "checksum",
    "damaged",
    "edge_file",
    "read_labels",
    "read_side",
    "read_staged",
    "write_edges",
    "write_sides",
]

PARTS = ("labels", "ids", "means")
AGAIN = "The same command makes that block again."
"""What to do about a damaged staged file: see `spoco_zoo.segment.mending`."""


def block_file(folder: str | Path, number: int) -> Path:
    """Where a block keeps its views of the slabs and the sizes of its objects."""
    return Path(folder, "blocks", f"{number // 1000:06d}", f"{number:09d}.npz")


def edge_file(folder: str | Path, number: int) -> Path:
    """Where the matches of a block's upper faces are kept."""
    return Path(folder, "faces", f"{number // 1000:06d}", f"{number:09d}.npz")


def write_sides(
    folder: str | Path,
    grid: BlockGrid,
    number: int,
    labels: np.ndarray,
    embeddings: np.ndarray,
    sizes: np.ndarray,
) -> None:
    """File a block's views of its slabs, and the sizes of its objects.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    grid : BlockGrid
    number : int
        Block number.
    labels : uint32, shape ([Z,] Y, X)
        Local ids in the outer region.
    embeddings : float32, shape (E, [Z,] Y, X)
    sizes : int64, shape (k,)
        Core voxels of the objects 1..k.
    """
    outer = grid.outer(number)
    small = labels.astype(np.uint16) if labels.max() < 2**16 else labels
    members = {"sizes": sizes}
    for axis in range(len(outer.shape)):
        lower = number if grid.above(number, axis) is not None else None
        for name, first in (("above", lower), ("below", grid.below(number, axis))):
            if first is None:
                continue
            where = grid.slab(first, axis).within(outer)
            side = make_side(small[where], embeddings[(slice(None), *where)])
            for part in PARTS:
                members[f"{name}{axis}_{part}"] = getattr(side, part)
    with _staging(block_file(folder, number)) as file:
        np.savez_compressed(file, **members)  # type: ignore[arg-type]


def read_side(path: Path, axis: int, name: str) -> Side:
    """A block's view of the slab ``"above"`` or ``"below"`` it; raises as `read_staged`."""
    return Side(*(read_staged(path, f"{name}{axis}_{part}") for part in PARTS))


def read_labels(path: Path, axis: int, name: str) -> np.ndarray:
    """The labels of one view alone; raises as `read_staged`."""
    return read_staged(path, f"{name}{axis}_{PARTS[0]}")


def write_edges(folder: str | Path, number: int, edges: np.ndarray) -> None:
    """File the matches at a block's upper faces, int64 (m, 4): block, id, block, id."""
    with _staging(edge_file(folder, number)) as file:
        np.savez_compressed(file, edges=edges)


def read_staged(path: Path, member: str) -> np.ndarray:
    """One array of a file that an earlier step of this run wrote.

    Raises
    ------
    StoreError
        If the file is gone or damaged.
    """
    try:
        # Opened here, because numpy leaves a damaged file open.
        with path.open("rb") as stream, np.load(stream) as file:
            return np.asarray(file[member])
    # A damaged file fails in the zip, the codec or the array's header, each with its own kind.
    except Exception as error:
        raise damaged(error, path) from error


def damaged(error: Exception, path: object) -> StoreError:
    """What to raise where a file that a run has staged is gone or damaged."""
    return StoreError(
        "what a run has staged must be as it was written",
        f"{one_line(error)[:100]} ({path})",
        AGAIN,
    )


def check_staged(path: Path) -> None:
    """Read all arrays of a file that an earlier step of this run wrote.

    Raises whatever its damage makes of it.
    """
    with path.open("rb") as stream, np.load(stream) as file:
        for member in file.files:
            np.asarray(file[member])


def checksum(labels: np.ndarray) -> int:
    """CRC-32 of labels as uint32."""
    return zlib.crc32(np.ascontiguousarray(labels, np.uint32).data)


@contextmanager
def _staging(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its place when closed; two workers may do the same item."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, shared=True) as partial, partial.open("wb") as file:
        yield file
