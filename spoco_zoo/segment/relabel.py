"""From local ids and matches to final ids 1..N.

Objects that own core voxels are the nodes ``base[block] + local - 1``, in the
order of blocks and local ids. Objects that a block only sees in its overlap get
no id, but they link: an object that passes a corner of four blocks may be joined
through a block that owns none of it. Their nodes follow after all the others, so
the smallest node of a joined set owns voxels if any of the set does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.replacing import replacing
from spoco_zoo.segment.cluster.regions import components

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Numbering", "apply_table", "number_objects", "write_table"]

PIECE = 2**22
"""Table entries made at a time."""


@dataclass(frozen=True)
class Numbering:
    """The final ids of all nodes, in a form whose size is that of the matches."""

    base: np.ndarray
    """First node of each block, int64 (blocks + 1,)."""
    merged: np.ndarray
    """Nodes with core voxels that take another node's id, ascending, int64 (m,)."""
    roots: np.ndarray
    """The node whose id each of them takes, int64 (m,)."""

    @property
    def objects(self) -> int:
        """Number N of final objects."""
        return int(self.base[-1]) - len(self.merged)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The smaller of uint32 and uint64 that holds N."""
        return np.dtype(np.uint32 if self.objects < 2**32 else np.uint64)

    def ids(self, start: int, stop: int) -> np.ndarray:
        """Final ids of the nodes ``start:stop``."""
        nodes = np.arange(start, stop)
        low, high = np.searchsorted(self.merged, [start, stop])
        nodes[self.merged[low:high] - start] = self.roots[low:high]
        return (nodes + 1 - np.searchsorted(self.merged, nodes)).astype(self.dtype)


def number_objects(objects: np.ndarray, owned: np.ndarray, edges: np.ndarray) -> Numbering:
    """Final ids from counts and matches.

    Parameters
    ----------
    objects, owned : int64, shape (blocks,)
        Objects of each block, and those of them with core voxels, which have
        the local ids 1..owned.
    edges : int64, shape (m, 4)
        Block, local id, block, local id of two objects that are one.

    Returns
    -------
    Numbering
        Ids follow the order of the first block and local id of each object; the
        order of the edges does not matter.
    """
    base = np.concatenate([[0], np.cumsum(owned)]).astype(np.int64)
    rest = np.concatenate([[0], np.cumsum(objects - owned)]).astype(np.int64) + base[-1]

    def node(block: np.ndarray, local: np.ndarray) -> np.ndarray:
        extra = local - owned[block] - 1
        found: np.ndarray = np.where(extra < 0, base[block] + local - 1, rest[block] + extra)
        return found

    ends = np.stack([node(*edges.T[:2]), node(*edges.T[2:])]) if len(edges) else np.empty((2, 0))
    nodes, compact = np.unique(ends.astype(np.int64), return_inverse=True)
    if not len(nodes):
        return Numbering(base, nodes, nodes)
    component = components(compact.reshape(2, -1).T, len(nodes))
    # `nodes` is ascending, so the first of a component is its smallest.
    _, first = np.unique(component, return_index=True)
    roots = nodes[first][component]
    taken = (roots != nodes) & (nodes < base[-1])
    return Numbering(base, nodes[taken], roots[taken])


def write_table(numbering: Numbering, path: Path) -> None:
    """Write the final id of every node to a ``.npy`` file, piece by piece."""
    total = int(numbering.base[-1])
    with replacing(path) as partial:
        table = np.lib.format.open_memmap(
            partial, mode="w+", dtype=numbering.dtype, shape=(max(total, 1),)
        )
        for start in range(0, total, PIECE):
            stop = min(start + PIECE, total)
            table[start:stop] = numbering.ids(start, stop)
        table.flush()


def apply_table(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Final labels of one block.

    Parameters
    ----------
    labels : unsigned integer, shape ([Z,] Y, X)
        Local ids 0..k of the core.
    ids : uint32 or uint64, shape (k,)
        The block's slice of the table.

    Returns
    -------
    ndarray
        Same shape, dtype of `ids`.
    """
    lookup = np.zeros(len(ids) + 1, ids.dtype)
    lookup[1:] = ids
    final: np.ndarray = lookup[labels]
    return final
