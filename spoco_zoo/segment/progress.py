"""The state of a run: its ledger, folded into a few numbers per block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.segment.audit import BlockTally, FaceTally, SizeTally
from spoco_zoo.segment.doubts import Doubt, worst_doubts
from spoco_zoo.segment.normalise import Statistics
from spoco_zoo.segment.relabel import PIECE, Numbering, number_objects
from spoco_zoo.segment.slabs import block_file, edge_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Progress"]


class Progress:
    """What is done, from ledger lines as they are replayed and appended.

    Parameters
    ----------
    blocks : int
        Blocks of the run.

    Attributes
    ----------
    objects, owned : ndarray of int64, shape (blocks,)
        Objects of each block and those with core voxels; -1 if it has no result.
    checksums : ndarray of int64, shape (blocks,)
    """

    def __init__(self, blocks: int) -> None:
        self.objects = np.full(blocks, -1, np.int64)
        self.owned = np.full(blocks, -1, np.int64)
        self.checksums = np.zeros(blocks, np.int64)
        self.statistics: list[Statistics] = []
        self.blocks = BlockTally()
        self.epoch = -1
        self._forget_later()

    @property
    def blocks_done(self) -> int:
        """Blocks with a result."""
        return int((self.objects >= 0).sum())

    @property
    def finished(self) -> bool:
        """Whether the label is published and lacks nothing."""
        return self.published and self.failed == 0 and self.epoch == len(self.objects)

    def add(self, entry: dict[str, Any]) -> None:
        """Fold in one line."""
        if "epoch" in entry and entry["epoch"] != self.epoch:
            self.epoch = int(entry["epoch"])
            self._forget_later()
        getattr(self, f"_add_{entry['phase']}")(entry)

    def start_epoch(self) -> None:
        """After the blocks: forget later phases if they saw fewer of them."""
        if self.epoch != self.blocks_done:
            self.epoch = self.blocks_done
            self._forget_later()

    def has_block(self, number: int) -> bool:
        """Whether a block has its result."""
        return bool(self.objects[number] >= 0)

    def has_face(self, number: int) -> bool:
        """Whether a block is matched with its neighbours above."""
        return bool(self._faces[number])

    def has_core(self, number: int) -> bool:
        """Whether a block has its final ids."""
        return bool(self._cores[number])

    def has_coarse(self, level: int, number: int) -> bool:
        """Whether a write unit of a coarser level is written."""
        return (level, number) in self._coarse

    def number(self, folder: Path) -> Numbering:
        """Final ids from the blocks' counts and the matches in the run folder."""
        edges = [np.load(edge_file(folder, int(n))) for n in np.flatnonzero(self._faces)]
        found = np.concatenate(edges) if edges else np.empty((0, 4), np.int64)
        return number_objects(np.maximum(self.objects, 0), np.maximum(self.owned, 0), found)

    def measure_sizes(self, folder: Path, numbering: Numbering) -> SizeTally:
        """Histogram of the final objects' voxel counts."""
        tally = SizeTally()
        if not numbering.objects:
            return tally
        path = folder / "sizes.npy"
        sizes = np.lib.format.open_memmap(path, "w+", np.int64, (numbering.objects,))
        for n in np.flatnonzero(self.owned > 0):
            ids = numbering.ids(int(numbering.base[n]), int(numbering.base[n + 1]))
            with np.load(block_file(folder, int(n))) as file:
                np.add.at(sizes, ids.astype(np.int64) - 1, file["sizes"])
        for start in range(0, numbering.objects, PIECE):
            tally.add(sizes[start : start + PIECE])
        return tally

    def _forget_later(self) -> None:
        self.faces_done, self.published, self.failed = 0, False, 0
        self.faces = FaceTally()
        self.doubts: list[Doubt] = []
        self._faces = np.zeros(len(self.objects), bool)
        self._cores = np.zeros(len(self.objects), bool)
        self._coarse: set[tuple[int, int]] = set()

    def _add_statistics(self, entry: dict[str, Any]) -> None:
        self.statistics.append(Statistics(entry["mean"], entry["std"]))

    def _add_block(self, entry: dict[str, Any]) -> None:
        n = entry["n"]
        self.objects[n], self.owned[n] = entry["objects"], entry["owned"]
        self.checksums[n] = entry["crc"]
        self.blocks += BlockTally(**entry["tally"])

    def _add_face(self, entry: dict[str, Any]) -> None:
        self._faces[entry["n"]] = True
        self.faces_done += 1
        self.faces += FaceTally(**entry["tally"])
        found = [Doubt.from_dict(values) for values in entry["doubts"]]
        if found:
            self.doubts = worst_doubts([*self.doubts, *found])

    def _add_core(self, entry: dict[str, Any]) -> None:
        self._cores[entry["n"]] = True

    def _add_coarse(self, entry: dict[str, Any]) -> None:
        self._coarse.add((entry["level"], entry["n"]))

    def _add_published(self, entry: dict[str, Any]) -> None:
        self.published, self.failed = True, entry["failed"]
