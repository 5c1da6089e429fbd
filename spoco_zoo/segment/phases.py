"""The phases of a run, each resumable item by item.

Every phase is a set of items that are independent of each other and done when
the ledger says so. What follows the blocks also depends on which blocks have a
result, so its ledger lines carry that number (the epoch) and count only for it.
An item of a later phase that fails does not hold up the rest, but leaves a gap in
what the rest is made of: the next process writes all labels again.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.errors import BlocksFailed, StoreError
from spoco_zoo.segment.checks import check_same_image
from spoco_zoo.segment.execute import InProcess
from spoco_zoo.segment.ledger import DOUBTS, REPORT, Ledger
from spoco_zoo.segment.mending import StagedItem, is_whole, staged_items
from spoco_zoo.segment.normalise import are_alike, measure
from spoco_zoo.segment.outcome import (
    Count,
    Event,
    SegmentResult,
    block_entry,
    clear_folder,
    face_entry,
    failed_text,
    no_result,
)
from spoco_zoo.segment.output.final import CoreItem, fill_coarse, relabel_block
from spoco_zoo.segment.output.levels import create_final, create_levels, open_levels, write_tiff
from spoco_zoo.segment.output.pyramid import AxisStep, pyramid_steps
from spoco_zoo.segment.output.target import TiffTarget
from spoco_zoo.segment.plan import Plan
from spoco_zoo.segment.progress import Progress
from spoco_zoo.segment.relabel import Numbering, write_table
from spoco_zoo.segment.review.report import read_report, write_report
from spoco_zoo.segment.rows import Lost, label_row, listed_row, longest_row, rows_of
from spoco_zoo.segment.scale.resize import resize_steps
from spoco_zoo.segment.tasks import Common, FaceItem, join_faces, make_common

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from spoco_zoo.nets.model import Clusterer
    from spoco_zoo.segment.execute import Executor
    from spoco_zoo.segment.network.models import ModelRef
    from spoco_zoo.segment.outcome import Failure
    from spoco_zoo.segment.rows import Outcome

__all__ = ["STAGED", "Run"]

STAGED = "local.zarr"
"""Local ids, in the run folder."""
OFTEN = 1000
"""Files that the driver reads, or pieces, after which it says so."""


class Run:
    """The phases of one run, in the order of its methods."""

    def __init__(
        self, plan: Plan, ledger: Ledger, executor: Executor, on_event: Callable[[Event], None]
    ) -> None:
        self.plan, self.ledger, self.executor, self.on_event = plan, ledger, executor, on_event
        self.progress = Progress(plan.grid.total)
        for entry in ledger.entries():
            self.progress.add(entry)
        self.resumed = self.progress.blocks_done
        self._measured_before = bool(self.progress.statistics)
        self.failures: list[Failure] = []
        self.seconds: dict[str, float] = {}

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
        if self.failures:
            raise BlocksFailed(failed_text(self.failures, self.plan.output))
        return self.finish()

    def prepare(self, model: ModelRef, cluster: Clusterer, device: str) -> Common:
        """Statistics of the image, the staging array, and what workers must know."""
        plan, grid = self.plan, self.plan.grid
        new = range(len(self.progress.statistics), grid.times)
        for when in self._each_time({*new, *self.progress.unread}):
            self._measure(when)
        local = ngff.scratch_array(
            plan.folder / STAGED,
            (grid.times, *grid.shape),
            "uint32",
            (1, *plan.chunk),
            (1, *grid.block),
        )
        return make_common(plan, tuple(self.progress.statistics), local, model, cluster, device)

    def _measure(self, when: int) -> None:
        """Statistics of a time point; anew if a part of it could not be read the last time."""
        plan, earlier = self.plan, self.progress.statistics[when : when + 1]
        unread: list[StoreError] = []
        where, tell = (plan.image, plan.level, when, plan.channels), partial(self._tell, "scan")
        found = measure(*where, inverted=plan.config.invert, on_unread=unread.append, tell=tell)
        if unread:
            note = f"Warning: a part of the image cannot be read: {unread[-1].found}."
            self.on_event(Event("plan", 1, 1, note))
        if earlier and (unread or are_alike(found, earlier[0])):
            return
        # Limits may be infinite, for which JSON has no number.
        values = {k: v for k, v in found._asdict().items() if math.isfinite(v)}
        self._record({"phase": "statistics", "time": when, **values, "unread": bool(unread)})
        if earlier:
            self._note_gap()
            for number in map(int, np.flatnonzero(self.progress.objects >= 0)):
                if plan.grid.time(number) == when:
                    self._record({"phase": "lost", "n": number})
            self.resumed = self.progress.blocks_done

    def find_damage(self, common: Common) -> None:
        """Forget the blocks whose staged files are no longer what they were."""
        items = staged_items(self.progress)

        def result(item: StagedItem, whole: bool) -> None:
            if not whole:
                self._record({"phase": "lost", "n": item.number})

        task = partial(is_whole, common)
        self._phase(
            "check", "lost", task, items, len(items), 0, result, lambda i: self._place(i.number)
        )
        self.resumed = self.progress.blocks_done

    def label_blocks(self, common: Common) -> None:
        """Embed and cluster every block, row by row."""
        grid, here = self.plan.grid, isinstance(self.executor, InProcess)
        if self._measured_before:
            # Of an image that was replaced in between the labels would be those of two.
            known, tell = self.progress.statistics, partial(self._tell, "scan")
            pending = {grid.time(n) for n in self._pending()} - self.progress.unread
            for when in self._each_time(pending):
                check_same_image(self.plan, when, known[when], tell)
        longest = grid.counts[-1] if here else longest_row(grid, self.executor.workers)
        # In one process a row is the whole axis, too long to wait for after Ctrl-C.
        task = partial(label_row, stop=self.executor.stop) if here else listed_row
        orphans: list[int] = []
        count = self._count("blocks", "block", grid.total, self.progress.blocks_done)

        def success(row: tuple[int, ...], outcomes: Iterable[Outcome]) -> None:
            for number, outcome in outcomes:
                if isinstance(outcome, Lost):
                    count.failed(self._place(number), outcome.reason)
                else:
                    self._record(block_entry(number, outcome))
                    count.succeeded()

        def failure(row: tuple[int, ...], reason: str) -> None:
            # A worker that dies takes its whole row along: each block then gets its own try.
            if len(row) > 1:
                orphans.extend(row)
            else:
                count.failed(self._place(row[0]), reason)

        rows = rows_of(self._pending(), grid, longest)
        self.executor.run(partial(task, common), rows, success, failure)
        self.executor.run(partial(task, common), rows_of(orphans, grid, 1), success, failure)
        count.close()
        if not self.progress.blocks_done:
            raise no_result(self.failures)
        self.progress.start_epoch()
        if self.progress.gap:
            self._record(self._later({"phase": "again"}))

    def join_faces(self, common: Common) -> None:
        """Match the objects of neighbouring blocks."""
        faces = self.progress.unmatched(self.plan.grid.counts)
        blocks = np.flatnonzero(faces.any(0))
        self._phase(
            "faces",
            "face",
            partial(join_faces, common),
            # One by one: a list of all faces of a large volume would not fit the driver.
            (FaceItem(n, tuple(np.flatnonzero(faces[:, n]).tolist())) for n in map(int, blocks)),
            len(blocks) + self.progress.faces_done,
            self.progress.faces_done,
            lambda item, result: self._record(self._later(face_entry(item.number, result))),
            lambda item: self._place(item.number),
        )

    def number(self) -> Numbering:
        """Final ids of all objects."""
        with self._noting_damage():
            numbering = self.progress.number(self.plan.folder, partial(self._tell, "number"))
        write_table(numbering, self._table)
        return numbering

    def create_levels(self, numbering: Numbering) -> list[Any]:
        """The arrays of the label, empty unless an earlier run began them."""
        target = self.plan.target
        if self.progress.publishing and not isinstance(target, TiffTarget):
            if ngff.label_is_whole(target):
                return open_levels(target)
            self._record(self._later({"phase": "again"}))  # moved away since, or damaged
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
        self._phase(
            "relabel",
            "core",
            partial(relabel_block, common.local, final, str(self._table), common.grid),
            items,
            len(blocks),
            0,
            lambda item, crc: self._record_new({"phase": "core", "n": item.number}, crc),
            lambda item: self._place(item.number),
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
        self._phase(
            name,
            "coarse",
            partial(fill_coarse, fine, coarse, steps),
            units,
            total,
            0,
            lambda unit, crc: self._record_new(
                {"phase": "coarse", "level": level, "n": unit[0]}, crc
            ),
            lambda unit: f"level region {unit[1]}",
        )

    def publish(self, levels: list[Any], numbering: Numbering) -> None:
        """Make the label visible."""
        target = self.plan.target
        # Said before, so that a run killed in between knows the label for its own.
        self._record(self._later({"phase": "publishing"}))
        if isinstance(target, TiffTarget):
            write_tiff(self.plan, levels[0], numbering.objects)
        elif not self.progress.published:
            ngff.publish_label(target)

    def report(self, numbering: Numbering, model: ModelRef) -> None:
        """Write the report, then the ledger line that says that all is done."""
        with self._noting_damage():
            write_report(
                self.plan,
                self.progress,
                numbering,
                self.seconds,
                self.failures,
                self.resumed,
                model={"source": model.named, "fingerprint": model.fingerprint},
                tell=partial(self._tell, "sizes"),
            )
        self._record(self._later({"phase": "published", "failed": len(self.failures)}))

    def finish(self) -> SegmentResult:
        """Remove everything but the report and the views that its pictures need."""
        content = read_report(self.plan.folder)
        self.ledger.close()
        clear_folder(self.plan.folder, (REPORT, DOUBTS), partial(self._tell, "clear"))
        return SegmentResult(
            self.plan.output,
            self.plan.folder / REPORT,
            content["objects"],
            self.plan.grid.total,
            self.resumed,
            content,
        )

    @property
    def _table(self) -> Path:
        return self.plan.folder / "table.npy"

    def _pending(self) -> Iterator[int]:
        """Blocks without a result."""
        return (n for n in range(self.plan.grid.total) if not self.progress.has_block(n))

    def _place(self, number: int) -> str:
        grid = self.plan.grid
        when = f"time {grid.time(number)}, " if grid.times > 1 else ""
        return f"block {number} ({when}{grid.core(number).shifted(self.plan.region.start)})"

    def _later(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "epoch": self.progress.epoch}

    def _record_new(self, entry: dict[str, Any], crc: int | None) -> None:
        """Record what was written, but not what an earlier process wrote and recorded."""
        if crc is not None:
            self._record(self._later({**entry, "crc": crc}))

    def _record(self, entry: dict[str, Any]) -> None:
        self.ledger.append(entry)
        self.progress.add(entry)

    def _note_gap(self) -> None:
        """Record that something has no result: the next process looks for what is damaged."""
        if not self.progress.gap:
            self._record(self._later({"phase": "gap"}))

    @contextmanager
    def _noting_damage(self) -> Iterator[None]:
        """Of staged files that the driver itself reads."""
        try:
            yield
        except StoreError:
            self._note_gap()
            raise

    def _tell(self, name: str, done: int, total: int, often: int = 0) -> None:
        """Tell of what the driver does by itself, where that is long, and end if it is asked to."""
        if done and done % (often or OFTEN) == 0:
            self.executor.stop.check()
            self.on_event(Event(name, done, total))

    def _each_time(self, times: set[int]) -> Iterator[int]:
        for done, when in enumerate(sorted(times)):
            self._tell("statistics", done, len(times), often=1)
            yield when

    def _count(self, name: str, kind: str, total: int, done: int) -> Count:
        hope = kind in self.progress.succeeded
        return Count(name, total, done, self.on_event, self.failures, self.seconds, hope=hope)

    def _phase(
        self,
        name: str,
        kind: str,
        task: Callable[[Any], Any],
        items: Iterable[Any],
        total: int,
        done: int,
        on_result: Callable[[Any, Any], None],
        place: Callable[[Any], str],
    ) -> None:
        """Run one phase, whose ledger lines are of a kind; failures are kept for the end."""
        count = self._count(name, kind, total, done)

        def success(item: Any, result: Any) -> None:
            on_result(item, result)
            count.succeeded()

        def fail(item: Any, reason: str) -> None:
            self._note_gap()
            count.failed(place(item), reason)

        self.executor.run(task, items, success, fail)
        count.close()
