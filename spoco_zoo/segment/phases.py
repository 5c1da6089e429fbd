"""The phases of a run, each resumable item by item.

Every phase is a set of items that are independent of each other and done when
the ledger says so. What follows the blocks also depends on which blocks have a
result, so its ledger lines carry that number (the epoch) and count only for it.
An item of a later phase that fails does not hold up the rest, but leaves a gap in
what the rest is made of: the next process writes all labels again.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.errors import BlocksFailed, StoreError
from spoco_zoo.segment.bookkeeping import (
    Books,
    block_entry,
    face_entry,
    failed_text,
    no_result,
)
from spoco_zoo.segment.checks import check_same_image
from spoco_zoo.segment.execute import InProcess
from spoco_zoo.segment.ledger import DOUBTS, REPORT
from spoco_zoo.segment.mending import StagedItem, is_whole, staged_items
from spoco_zoo.segment.normalise import are_alike, measure_for
from spoco_zoo.segment.outcome import Event, SegmentResult, clear_folder
from spoco_zoo.segment.output.final import CoreItem, fill_coarse, relabel_block
from spoco_zoo.segment.output.levels import create_final, create_levels, open_levels, write_tiff
from spoco_zoo.segment.output.pyramid import AxisStep, pyramid_steps
from spoco_zoo.segment.output.target import TiffTarget
from spoco_zoo.segment.relabel import Numbering, write_table
from spoco_zoo.segment.review.report import read_report, write_report
from spoco_zoo.segment.rows import Lost, label_row, listed_row, longest_row, rows_of
from spoco_zoo.segment.scale.resize import resize_steps
from spoco_zoo.segment.tasks import Common, FaceItem, join_faces, make_common

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from spoco_zoo.nets.model import Clusterer
    from spoco_zoo.segment.execute import Executor
    from spoco_zoo.segment.ledger import Ledger
    from spoco_zoo.segment.network.models import ModelRef
    from spoco_zoo.segment.plan import Plan
    from spoco_zoo.segment.rows import Outcome

__all__ = ["STAGED", "Run"]

STAGED = "local.zarr"
"""Local ids, in the run folder."""


class Run:
    """The phases of one run, in the order of its methods."""

    def __init__(
        self, plan: Plan, ledger: Ledger, executor: Executor, on_event: Callable[[Event], None]
    ) -> None:
        self.plan, self.executor, self.ledger = plan, executor, ledger
        self.books = Books(plan, ledger, executor, on_event)
        self.progress = self.books.progress
        self._measured_before = bool(self.progress.statistics)

    def all(self, model: ModelRef, cluster: Clusterer, device: str) -> SegmentResult:
        """The story."""
        finished = self.progress.finished and (self.plan.folder / REPORT).is_file()
        if finished and ngff.state_of(self.plan.output) != "absent":
            return self.finish()
        common = self.prepare(model, cluster, device)
        if self.progress.gap:
            self.find_damage(common)
        self.label_blocks(common)
        self.join_faces(common)
        numbering = self.number()
        levels = self.create_levels(numbering)
        kept = self.progress.relabelling
        final = create_final(self.plan, levels, numbering.dtype, keep=kept)
        self.relabel(common, final, numbering)
        if self.plan.rescaled:
            lead = len(final.shape) - len(self.plan.grid.shape)
            self._derive(0, final, levels[0], resize_steps(self.plan, lead), "full size")
        self.build_pyramid(levels)
        self.publish(levels, numbering)
        self.report(numbering, model)
        if self.books.failures:
            raise BlocksFailed(failed_text(self.books.failures, self.plan.output))
        return self.finish()

    def prepare(self, model: ModelRef, cluster: Clusterer, device: str) -> Common:
        """Statistics of the image, the staging array, and what workers must know."""
        self._keep_pieces()
        plan, grid = self.plan, self.plan.grid
        new = range(len(self.progress.statistics), grid.times)
        for when in self.books.each_time({*new, *self.progress.unread}):
            self._measure(when)
        local = ngff.scratch_array(
            plan.folder / STAGED,
            (grid.times, *grid.shape),
            "uint32",
            (1, *plan.chunk),
            (1, *grid.block),
        )
        return make_common(plan, tuple(self.progress.statistics), local, model, cluster, device)

    def _keep_pieces(self) -> None:
        """If no stored piece of the image is absent at first, one that is later is a fault."""
        plan = self.plan
        if self.progress.whole is None:
            whole = ngff.has_all_pieces(plan.image, plan.level)
            self.books.record({"phase": "image", "whole": whole})
        if self.progress.whole:
            image = ngff.keeping_pieces(plan.image, plan.level)
            source = image if plan.image is plan.source else plan.source
            self.plan = replace(plan, image=image, source=source)

    def _measure(self, when: int) -> None:
        """Statistics of a time point; anew if a part of it could not be read the last time."""
        plan, earlier = self.plan, self.progress.statistics[when : when + 1]
        unread: list[StoreError] = []
        tell = partial(self.books.tell, "scan")
        found = measure_for(plan, when, on_unread=unread.append, tell=tell)
        if unread:
            note = f"Warning: a part of the image cannot be read: {unread[-1].found}."
            self.books.on_event(Event("plan", 1, 1, note))
        if earlier and (unread or are_alike(found, earlier[0])):
            return
        # Limits may be infinite, for which JSON has no number.
        values = {k: v for k, v in found._asdict().items() if v not in (-math.inf, math.inf)}
        self.books.record({"phase": "statistics", "time": when, **values, "unread": bool(unread)})
        if earlier:
            self.books.note_gap()
            for number in map(int, np.flatnonzero(self.progress.objects >= 0)):
                if plan.grid.time(number) == when:
                    self.books.record({"phase": "lost", "n": number})
            self.books.resumed = self.progress.blocks_done

    def find_damage(self, common: Common) -> None:
        """Forget the blocks whose staged files are no longer what they were."""
        items = staged_items(self.progress)

        def result(item: StagedItem, whole: bool) -> None:
            if not whole:
                self.books.record({"phase": "lost", "n": item.number})

        task = partial(is_whole, common)
        self.books.phase(
            "check",
            "lost",
            task,
            items,
            len(items),
            0,
            result,
            lambda i: self.books.place(i.number),
        )
        self.books.resumed = self.progress.blocks_done

    def label_blocks(self, common: Common) -> None:
        """Embed and cluster every block, row by row."""
        grid, here = self.plan.grid, isinstance(self.executor, InProcess)
        if self._measured_before:
            # Of an image that was replaced in between the labels would be those of two.
            known = self.progress.statistics
            pending = {grid.time(n) for n in self.books.pending()} - self.progress.unread
            for when in self.books.each_time(pending):
                check_same_image(self.plan, when, known[when].checksum)
        longest = grid.counts[-1] if here else longest_row(grid, self.executor.workers)
        # In one process a row is the whole axis, too long to wait for after Ctrl-C.
        task = partial(label_row, stop=self.executor.stop) if here else listed_row
        orphans: list[int] = []
        count = self.books.count("blocks", "block", grid.total, self.progress.blocks_done)

        def success(row: tuple[int, ...], outcomes: Iterable[Outcome]) -> None:
            for number, outcome in outcomes:
                if isinstance(outcome, Lost):
                    count.failed(self.books.place(number), outcome.reason)
                else:
                    self.books.record(block_entry(number, outcome))
                    count.succeeded()

        def failure(row: tuple[int, ...], reason: str) -> None:
            # A worker that dies takes its whole row along: each block then gets its own try.
            if len(row) > 1:
                orphans.extend(row)
            else:
                count.failed(self.books.place(row[0]), reason)

        rows = rows_of(self.books.pending(), grid, longest)
        self.executor.run(partial(task, common), rows, success, failure)
        self.executor.run(partial(task, common), rows_of(orphans, grid, 1), success, failure)
        count.close()
        if not self.progress.blocks_done:
            raise no_result(self.books.failures)
        self.progress.start_epoch()
        if self.progress.gap:
            self.books.record_later({"phase": "again"})

    def join_faces(self, common: Common) -> None:
        """Match the objects of neighbouring blocks."""
        faces = self.progress.unmatched(self.plan.grid.counts)
        blocks = np.flatnonzero(faces.any(0))
        self.books.phase(
            "faces",
            "face",
            partial(join_faces, common),
            # One by one: a list of all faces of a large volume would not fit the driver.
            (FaceItem(n, tuple(np.flatnonzero(faces[:, n]).tolist())) for n in map(int, blocks)),
            len(blocks) + self.progress.faces_done,
            self.progress.faces_done,
            lambda item, result: self.books.record_later(face_entry(item.number, result)),
            lambda item: self.books.place(item.number),
        )

    def number(self) -> Numbering:
        """Final ids of all objects."""
        with self.books.noting_damage():
            numbering = self.progress.number(self.plan.folder, partial(self.books.tell, "number"))
        write_table(numbering, self._table)
        return numbering

    def create_levels(self, numbering: Numbering) -> list[Any]:
        """The arrays of the label, empty unless an earlier run began them."""
        target = self.plan.target
        if self.progress.publishing and not isinstance(target, TiffTarget):
            if ngff.label_is_whole(target):
                return open_levels(target)
            self.books.record_later({"phase": "again"})  # moved away since, or damaged
        return create_levels(self.plan, numbering.dtype, keep=self.progress.relabelling)

    def relabel(self, common: Common, final: Any, numbering: Numbering) -> None:
        """Write the finest level."""
        blocks = np.flatnonzero(self.progress.owned > 0)
        items = (
            CoreItem(
                n,
                int(numbering.base[n]),
                int(numbering.base[n + 1]),
                int(self.progress.checksums[n]),
                self.progress.core_checksum(n),
            )
            for n in map(int, blocks)
        )
        self.books.phase(
            "relabel",
            "core",
            partial(relabel_block, common.local, final, str(self._table), common.grid),
            items,
            len(blocks),
            0,
            lambda item, crc: self.books.record_new({"phase": "core", "n": item.number}, crc),
            lambda item: self.books.place(item.number),
        )

    def build_pyramid(self, levels: list[Any]) -> None:
        """Write the coarser levels, each from the finer one."""
        target = self.plan.target
        for level in range(1, len(levels)):
            assert not isinstance(target, TiffTarget)
            fine, coarse = target.levels[level - 1], target.levels[level]
            ratio = [b / a for a, b in zip(fine.scale, coarse.scale, strict=True)]
            steps = pyramid_steps(fine.shape, coarse.shape, ratio)
            self._derive(level, levels[level - 1], levels[level], steps, f"level {level}")

    def _derive(
        self, level: int, fine: Any, coarse: Any, steps: Sequence[AxisStep], name: str
    ) -> None:
        """Write one level from the array before it, unit by unit."""
        known = partial(self.progress.coarse_checksum, level)
        # One by one: a list of all units of a large volume would not fit the driver.
        units = ((n, where, known(n)) for n, where in enumerate(ngff.write_blocks(coarse)))
        sizes = zip(coarse.shape, coarse.shards or coarse.chunks, strict=True)
        total = math.prod(-(-size // step) for size, step in sizes)
        self.books.phase(
            name,
            "coarse",
            partial(fill_coarse, fine, coarse, steps),
            units,
            total,
            0,
            lambda unit, crc: self.books.record_new(
                {"phase": "coarse", "level": level, "n": unit[0]}, crc
            ),
            lambda unit: f"level region {unit[1]}",
        )

    def publish(self, levels: list[Any], numbering: Numbering) -> None:
        """Make the label visible."""
        target = self.plan.target
        # Said before, so that a run killed in between knows the label for its own.
        self.books.record_later({"phase": "publishing"})
        if isinstance(target, TiffTarget):
            write_tiff(self.plan, levels[0], numbering.objects)
        elif not self.progress.published:
            ngff.publish_label(target)

    def report(self, numbering: Numbering, model: ModelRef) -> None:
        """Write the report, then the ledger line that says that all is done."""
        with self.books.noting_damage():
            write_report(
                self.plan,
                self.progress,
                numbering,
                self.books.seconds,
                self.books.failures,
                self.books.resumed,
                model={"source": model.named, "fingerprint": model.fingerprint},
                tell=partial(self.books.tell, "sizes"),
            )
        self.books.record_later({"phase": "published", "failed": len(self.books.failures)})

    def finish(self) -> SegmentResult:
        """Remove everything but the report and the views that its pictures need."""
        content = read_report(self.plan.folder)
        self.ledger.close()
        clear_folder(self.plan.folder, (REPORT, DOUBTS), partial(self.books.tell, "clear"))
        return SegmentResult(
            self.plan.output,
            self.plan.folder / REPORT,
            content["objects"],
            self.plan.grid.total,
            self.books.resumed,
            content,
        )

    @property
    def _table(self) -> Path:
        return self.plan.folder / "table.npy"
