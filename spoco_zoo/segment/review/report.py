"""The report of a run: what was measured, written when the label is there and read once more."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import prod
from typing import TYPE_CHECKING, Any

from spoco_zoo.errors import LedgerError
from spoco_zoo.replacing import replacing
from spoco_zoo.segment.ledger import DOUBTS, REPORT
from spoco_zoo.segment.outcome import quietly
from spoco_zoo.segment.review.audit import count_per_block, throughput
from spoco_zoo.segment.review.doubts import save_views
from spoco_zoo.segment.review.hints import hint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spoco_zoo.segment.outcome import Failure, Tell
    from spoco_zoo.segment.plan import Plan
    from spoco_zoo.segment.progress import Progress
    from spoco_zoo.segment.relabel import Numbering

__all__ = ["read_report", "write_report"]


def write_report(
    plan: Plan,
    progress: Progress,
    numbering: Numbering,
    seconds: Mapping[str, float],
    failures: Sequence[Failure],
    resumed: int,
    *,
    model: Mapping[str, str],
    tell: Tell = quietly,
) -> None:
    """Write the report of a run into its folder, and the views that its pictures need.

    Parameters
    ----------
    plan : Plan
    progress : Progress
    numbering : Numbering
    seconds : mapping
        Time of each phase.
    failures : sequence of Failure
    resumed : int
        Blocks that an earlier process has done.
    model : mapping
        Where it came from, and its fingerprint.
    tell : callable, optional
        Told of how many blocks the sizes are counted, and of how many there are.
    """
    sizes = progress.measure_sizes(plan.folder, numbering, tell)
    fresh = prod(plan.grid.shape) * (plan.grid.total - resumed) // plan.grid.per_time
    doubts = sorted(progress.doubts, key=lambda d: -d.doubt)
    (plan.folder / DOUBTS).unlink(missing_ok=True)
    if doubts:
        save_views(plan.folder / DOUBTS, plan.folder, plan.grid, doubts)
    counted = sizes.summary()
    content = {
        "plan": plan.summary(),
        "model": dict(model),
        "config": plan.config.model_dump(mode="json"),
        "channels": list(plan.channels),
        "checksums": [one.checksum for one in progress.statistics],
        "filled": [round(one.filled, 4) for one in progress.statistics],
        "objects": numbering.objects,
        "blocks": progress.blocks.summary(plan.recipe.delta_var),
        "objects_per_block": count_per_block(progress.owned),
        "faces": asdict(progress.faces),
        "doubts": [d.to_dict() for d in doubts],
        "throughput": throughput(fresh, seconds),
        "sizes": counted,
        "hint": hint(plan, counted["histogram"], progress.statistics, progress.blocks),
        "seconds": {k: round(v, 3) for k, v in seconds.items()},
        "failures": [asdict(f) for f in failures],
    }
    with replacing(plan.folder / REPORT) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def read_report(folder: Path) -> dict[str, Any]:
    """The report in a run folder.

    Raises
    ------
    LedgerError
        If it is damaged.
    """
    path = folder / REPORT
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise LedgerError(
            "the report of a finished run must be readable",
            f"{error} in {path}",
            f"The label is complete: delete {folder}, or start again with --overwrite.",
        ) from error
    return content
