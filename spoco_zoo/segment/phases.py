"""The phases of a run, each resumable item by item.

Every phase is a set of items that are independent of each other and done when
the ledger says so. What follows the blocks also depends on which blocks have a
result, so its ledger lines carry that number (the epoch) and count only for it.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo import ngff
from spoco_zoo.errors import BlocksFailed, LedgerError, SpocoError
from spoco_zoo.segment.ledger import LOCK, PROGRESS, Ledger
from spoco_zoo.segment.normalise import measure
from spoco_zoo.segment.plan import Plan, TiffTarget
from spoco_zoo.segment.progress import Progress
from spoco_zoo.segment.pyramid import pyramid_steps
from spoco_zoo.segment.relabel import Numbering, write_table
from spoco_zoo.segment.stitch import Rule
from spoco_zoo.segment.tasks import (
    Clusterer,
    Common,
    CoreItem,
    FaceItem,
    fill_coarse,
    join_faces,
    label_block,
    relabel_block,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spoco_zoo.segment.execute import Executor
    from spoco_zoo.segment.models import ModelRef

__all__ = ["Event", "Failure", "Run", "SegmentResult", "clear_folder"]

REPORT = "segment.json"
HOPELESS = 8
"""So many failures without one success end a phase: the next block would fail too."""


@dataclass(frozen=True)
class Event:
    """Progress of a run, for whoever shows it."""

    phase: str
    done: int
    total: int
    message: str = ""


@dataclass(frozen=True)
class Failure:
    """An item that has no result."""

    phase: str
    place: str
    reason: str


@dataclass(frozen=True)
class SegmentResult:
    """A finished run."""

    output: str
    """The label image."""
    report: Path
    """JSON file with everything that was measured."""
    objects: int
    blocks: int
    resumed: int
    """Blocks that an earlier, unfinished run had done."""
    summary: dict[str, Any]
    """Content of the report."""


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
        self.failures: list[Failure] = []
        self.seconds: dict[str, float] = {}

    def all(self, model: ModelRef, cluster: Clusterer, device: str) -> SegmentResult:
        """The story."""
        if self.progress.finished and (self.plan.folder / REPORT).is_file():
            return self.finish()
        common = self.prepare(model, cluster, device)
        self.label_blocks(common)
        self.join_faces(common)
        numbering = self.number()
        levels = self.create_levels(numbering)
        self.relabel(common, levels[0], numbering)
        self.build_pyramid(levels)
        self.publish(levels)
        self.report(numbering)
        if self.failures:
            raise BlocksFailed(self.failed_text())
        return self.finish()

    def prepare(self, model: ModelRef, cluster: Clusterer, device: str) -> Common:
        """Statistics of the image, the staging array, and what workers must know."""
        plan, grid = self.plan, self.plan.grid
        for when in range(len(self.progress.statistics), grid.times):
            mean, std = measure(plan.image, plan.level, when, plan.channels)
            self._record({"phase": "statistics", "time": when, "mean": mean, "std": std})
        local = ngff.scratch_array(
            plan.folder / "local.zarr",
            (grid.times, *grid.shape),
            "uint32",
            (1, *plan.chunk),
            (1, *grid.block),
        )
        return Common(
            image=plan.image,
            level=plan.level,
            channels=plan.channels,
            offset=plan.region.start,
            grid=grid,
            field=plan.field,
            statistics=tuple(self.progress.statistics),
            model=model,
            clustering=plan.clustering,
            cluster=cluster,
            rule=Rule(plan.config.stitch_iou, plan.recipe.delta_dist),
            device=device,
            folder=str(plan.folder),
            local=local,
        )

    def label_blocks(self, common: Common) -> None:
        """Embed and cluster every block."""
        pending = (n for n in range(self.plan.grid.total) if not self.progress.has_block(n))
        self._phase(
            "blocks",
            partial(label_block, common),
            pending,
            self.plan.grid.total,
            self.progress.blocks_done,
            lambda n, r: self._record(
                {
                    "phase": "block",
                    "n": n,
                    "objects": r.objects,
                    "owned": r.owned,
                    "crc": r.checksum,
                    "tally": asdict(r.tally),
                }
            ),
            self._place,
        )
        self.progress.start_epoch()

    def join_faces(self, common: Common) -> None:
        """Match the objects of neighbouring blocks."""
        items = [
            FaceItem(n, axes)
            for n in range(self.plan.grid.total)
            if (axes := self._faces(n)) and not self.progress.has_face(n)
        ]
        total = len(items) + self.progress.faces_done
        self._phase(
            "faces",
            partial(join_faces, common),
            items,
            total,
            self.progress.faces_done,
            lambda item, tally: self._record(
                self._later({"phase": "face", "n": item.number, "tally": asdict(tally)})
            ),
            lambda item: self._place(item.number),
        )

    def number(self) -> Numbering:
        """Final ids of all objects."""
        numbering = self.progress.number(self.plan.folder)
        write_table(numbering, self._table)
        return numbering

    def create_levels(self, numbering: Numbering) -> list[Any]:
        """The arrays of the label, empty unless an earlier run began them."""
        target, grid = self.plan.target, self.plan.grid
        if isinstance(target, TiffTarget):
            lead = (1,) * (len(target.shape) - len(grid.shape))
            path = self.plan.folder / f"final-{numbering.dtype.name}.zarr"
            chunk, shard = (*lead, *self.plan.chunk), (*lead, *grid.block)
            if not self.progress.relabelling:
                shutil.rmtree(path, ignore_errors=True)
            return [ngff.scratch_array(path, target.shape, numbering.dtype, chunk, shard)]
        if not (self.progress.published or self.progress.publishing):
            ngff.create_label(
                target,
                dtype=numbering.dtype,
                shard=grid.block,
                chunk=self.plan.chunk,
                keep=self.progress.relabelling,
            )
        return [ngff.open_label_array(target, i) for i in range(len(target.levels))]

    def relabel(self, common: Common, final: Any, numbering: Numbering) -> None:
        """Write the finest level."""
        owned = self.progress.owned
        blocks = [n for n in range(len(owned)) if owned[n] > 0]
        items = [
            CoreItem(
                n,
                int(numbering.base[n]),
                int(numbering.base[n + 1]),
                int(self.progress.checksums[n]),
                self.progress.core_checksum(n),
            )
            for n in blocks
        ]
        self._phase(
            "relabel",
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
            known = partial(self.progress.coarse_checksum, level)
            units = [(n, w, known(n)) for n, w in enumerate(ngff.write_blocks(levels[level]))]
            self._phase(
                f"level {level}",
                partial(_coarse_unit, levels[level - 1], levels[level], steps),
                units,
                len(units),
                0,
                lambda unit, crc, level=level: self._record_new(  # type: ignore[misc]
                    {"phase": "coarse", "level": level, "n": unit[0]}, crc
                ),
                lambda unit: f"level region {unit[1]}",
            )

    def publish(self, levels: list[Any]) -> None:
        """Make the label visible."""
        target = self.plan.target
        # Said before, so that a run killed in between knows the label for its own.
        self._record(self._later({"phase": "publishing"}))
        if isinstance(target, TiffTarget):
            image = self.plan.image
            size = image.voxel_size(self.plan.level)
            axes = "".join(target.axes).upper()
            ngff.write_label_tiff(target.path, levels[0][...], size, axes=axes)
        elif not self.progress.published:
            ngff.publish_label(target, sweep=self.resumed > 0)

    def report(self, numbering: Numbering) -> None:
        """Write the report, then the ledger line that says that all is done."""
        plan, progress = self.plan, self.progress
        sizes = progress.measure_sizes(plan.folder, numbering)
        content = {
            "plan": plan.summary(),
            "objects": numbering.objects,
            "blocks": progress.blocks.summary(plan.recipe.delta_var),
            "faces": asdict(progress.faces),
            "sizes": sizes.summary(),
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "failures": [asdict(f) for f in self.failures],
        }
        path = plan.folder / REPORT
        partial_path = path.with_suffix(".partial")
        partial_path.write_text(json.dumps(content, indent=2) + "\n")
        partial_path.replace(path)
        self._record(self._later({"phase": "published", "failed": len(self.failures)}))

    def finish(self) -> SegmentResult:
        """Remove everything but the report."""
        report = self.plan.folder / REPORT
        try:
            content = json.loads(report.read_text())
        except ValueError as error:
            raise LedgerError(
                "the report of a finished run must be readable",
                f"{error} in {report}",
                f"The label is complete: delete {self.plan.folder}, or start again with "
                "--overwrite.",
            ) from error
        self.ledger.close()
        clear_folder(self.plan.folder, keep=REPORT)
        return SegmentResult(
            self.plan.output,
            report,
            content["objects"],
            self.plan.grid.total,
            self.resumed,
            content,
        )

    def failed_text(self) -> str:
        """What has no result, in one line."""
        named = "; ".join(f"{f.phase} {f.place}: {f.reason}" for f in self.failures[:5])
        more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        return (
            f"{len(self.failures)} without result: {named}{more}. "
            f"The rest is in {self.plan.output}; the same command tries these again."
        )

    @property
    def _table(self) -> Path:
        return self.plan.folder / "table.npy"

    def _faces(self, number: int) -> tuple[int, ...]:
        """Axes along which a block and its neighbour above both hold objects."""
        grid, objects = self.plan.grid, self.progress.objects
        if objects[number] <= 0:
            return ()
        above = [grid.above(number, axis) for axis in range(len(grid.shape))]
        return tuple(a for a, n in enumerate(above) if n is not None and objects[n] > 0)

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

    def _phase(
        self,
        name: str,
        task: Callable[[Any], Any],
        items: Iterable[Any],
        total: int,
        done: int,
        on_result: Callable[[Any, Any], None],
        place: Callable[[Any], str],
    ) -> None:
        """Run one phase; failures are kept for the end, unless everything fails."""
        began, succeeded, failed = time.perf_counter(), 0, 0
        self.on_event(Event(name, done, total))

        def success(item: Any, result: Any) -> None:
            nonlocal succeeded
            on_result(item, result)
            succeeded += 1
            self.on_event(Event(name, done + succeeded + failed, total))

        def failure(item: Any, reason: str) -> None:
            nonlocal failed
            failed += 1
            self.failures.append(Failure(name, place(item), reason))
            if failed >= HOPELESS and not succeeded:
                raise SpocoError(f"{name}: the first {failed} all failed; {reason}")
            message = f"{place(item)}: {reason}"
            self.on_event(Event(name, done + succeeded + failed, total, message))

        self.executor.run(task, items, success, failure)
        self.seconds[name] = time.perf_counter() - began


def _coarse_unit(
    fine: Any, coarse: Any, steps: Any, unit: tuple[int, tuple[slice, ...], int | None]
) -> int | None:
    return fill_coarse(fine, coarse, steps, *unit[1:])


def clear_folder(folder: Path, keep: str | None = None) -> None:
    """Empty a run folder but for its lock; the ledger goes last."""
    for path in sorted(folder.iterdir(), key=lambda p: p.name == PROGRESS):
        if path.name in (LOCK, keep):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
