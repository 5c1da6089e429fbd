"""The state of a run: its ledger, folded into a few numbers per block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import LedgerError
from spoco_zoo.intensities import Statistics
from spoco_zoo.segment.outcome import quietly
from spoco_zoo.segment.relabel import PIECE, Numbering, number_objects
from spoco_zoo.segment.review.audit import BlockTally, FaceTally, SizeTally
from spoco_zoo.segment.review.doubts import Doubt, worst_doubts
from spoco_zoo.segment.slabs import block_file, edge_file, read_staged

if TYPE_CHECKING:
    from pathlib import Path

    from spoco_zoo.segment.outcome import Tell

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
    succeeded : set of str
        Phases of which some item has ever been done, even if that is forgotten by now.
    gap : bool
        Whether faces, or parts of the label, have no result. What was written after
        that was made of less than all.
    """

    def __init__(self, blocks: int) -> None:
        self.objects = np.full(blocks, -1, np.int64)
        self.owned = np.full(blocks, -1, np.int64)
        self.checksums = np.zeros(blocks, np.int64)
        self.statistics: list[Statistics] = []
        self.whole: bool | None = None
        """Whether all stored pieces of the image were there when the run began, if it is known."""
        self.unread: set[int] = set()
        """Time points of which not all could be read when they were measured."""
        self.succeeded: set[str] = set()
        self.blocks = BlockTally()
        self._lost: set[int] = set()
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
        """Fold in one line.

        Raises
        ------
        LedgerError
            If it is no line that a run writes.
        """
        try:
            if "epoch" in entry:
                if entry["epoch"] != self.epoch:
                    self.epoch = int(entry["epoch"])
                    self._forget_later()
                self._later = True
            getattr(self, f"_add_{entry['phase']}")(entry)
            self.succeeded.add(entry["phase"])
        except (AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise LedgerError(
                "a ledger must hold the lines of this run",
                f"{entry!r:.80}",
                "Start again with --overwrite.",
            ) from error

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

    @property
    def relabelling(self) -> bool:
        """Whether any block has its final ids."""
        return bool((self._cores >= 0).any())

    def core_checksum(self, number: int) -> int | None:
        """CRC-32 of a block's final ids, None if they are not yet written."""
        return int(self._cores[number]) if self._cores[number] >= 0 else None

    def coarse_checksum(self, level: int, number: int) -> int | None:
        """CRC-32 of a write unit of a coarser level, None if it is not yet written."""
        known = self._coarse.get(level)
        if known is None or number >= len(known) or known[number] < 0:
            return None
        return int(known[number])

    def unmatched(self, counts: tuple[int, ...]) -> np.ndarray:
        """Faces still to be matched: those between two blocks that both hold objects.

        Parameters
        ----------
        counts : tuple of int
            Blocks per spatial axis.

        Returns
        -------
        ndarray of bool, shape (axes, blocks)
            Whether the upper face of a block along an axis is one.
        """
        held = ((self.objects > 0) & ~self._faces).reshape(-1, *counts)
        above = (self.objects > 0).reshape(held.shape)
        found = np.zeros((len(counts), *held.shape), bool)
        for axis, faces in enumerate(found, 1):
            low, high, into = (np.moveaxis(a, axis, 0) for a in (held, above, faces))
            into[:-1] = low[:-1] & high[1:]
        return found.reshape(len(counts), -1)

    def number(self, folder: Path, tell: Tell = quietly) -> Numbering:
        """Final ids from the blocks' counts and the matches in the run folder."""
        edges, blocks = [], np.flatnonzero(self._faces)
        for done, n in enumerate(blocks.tolist()):
            tell(done, len(blocks))
            edges.append(read_staged(edge_file(folder, n), "edges"))
        found = np.concatenate(edges) if edges else np.empty((0, 4), np.int64)
        return number_objects(np.maximum(self.objects, 0), np.maximum(self.owned, 0), found)

    def measure_sizes(self, folder: Path, numbering: Numbering, tell: Tell = quietly) -> SizeTally:
        """Histogram of the final objects' voxel counts."""
        tally = SizeTally()
        if not numbering.objects:
            return tally
        path = folder / "sizes.npy"
        sizes = np.lib.format.open_memmap(path, "w+", np.int64, (numbering.objects,))
        blocks = np.flatnonzero(self.owned > 0)
        for done, n in enumerate(blocks.tolist()):
            tell(done, len(blocks))
            ids = numbering.ids(int(numbering.base[n]), int(numbering.base[n + 1]))
            np.add.at(sizes, ids.astype(np.int64) - 1, read_staged(block_file(folder, n), "sizes"))
        for start in range(0, numbering.objects, PIECE):
            tally.add(sizes[start : start + PIECE])
        return tally

    def _forget_later(self) -> None:
        self._later = False
        self.faces_done = 0
        self.faces = FaceTally()
        self.doubts: list[Doubt] = []
        self._faces = np.zeros(len(self.objects), bool)
        self._forget_written()

    def _forget_written(self) -> None:
        self.gap, self.publishing, self.published, self.failed = False, False, False, 0
        self._cores = np.full(len(self.objects), -1, np.int64)
        # Per level, grown as units come: a level's size is not known while lines are replayed.
        self._coarse: dict[int, np.ndarray] = {}

    def _add_statistics(self, entry: dict[str, Any]) -> None:
        known = {name: entry[name] for name in Statistics._fields if name in entry}
        known["lost"] = tuple((lost, good) for lost, good in entry.get("lost", ()))
        when = entry["time"]
        self.statistics[when : when + 1] = [Statistics(**known)]
        self.unread.discard(when)
        if entry.get("unread"):
            self.unread.add(when)

    def _add_image(self, entry: dict[str, Any]) -> None:
        self.whole = bool(entry["whole"])

    def _add_block(self, entry: dict[str, Any]) -> None:
        n = entry["n"]
        self.objects[n], self.owned[n] = entry["objects"], entry["owned"]
        self.checksums[n] = entry["crc"]
        if n not in self._lost:  # else it was counted when it was made for the first time
            self.blocks += BlockTally(**entry["tally"])

    def _add_lost(self, entry: dict[str, Any]) -> None:
        n = entry["n"]
        self.objects[n] = self.owned[n] = -1
        self._lost.add(n)
        # When it is there again as many blocks are done as before, so the epoch does not tell.
        # But once for all that are lost: there may be a million, and what is forgotten is as long.
        if self._later:
            self._forget_later()

    def _add_face(self, entry: dict[str, Any]) -> None:
        self._faces[entry["n"]] = True
        self.faces_done += 1
        self.faces += FaceTally(**entry["tally"])
        found = [Doubt.from_dict(values) for values in entry["doubts"]]
        if found:
            self.doubts = worst_doubts([*self.doubts, *found])

    def _add_core(self, entry: dict[str, Any]) -> None:
        self._cores[entry["n"]] = entry["crc"]

    def _add_coarse(self, entry: dict[str, Any]) -> None:
        level, n = entry["level"], entry["n"]
        known = self._coarse.get(level, np.full(1, -1, np.int64))
        if n >= len(known):
            more = np.full(max(n + 1, 2 * len(known)) - len(known), -1, np.int64)
            known = np.concatenate([known, more])
        known[n] = entry["crc"]
        self._coarse[level] = known

    def _add_gap(self, entry: dict[str, Any]) -> None:
        self.gap = True

    def _add_again(self, entry: dict[str, Any]) -> None:
        self._forget_written()

    def _add_publishing(self, entry: dict[str, Any]) -> None:
        self.publishing = True

    def _add_published(self, entry: dict[str, Any]) -> None:
        self.published, self.failed = True, entry["failed"]
