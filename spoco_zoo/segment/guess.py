"""How long a run will take, from one small block in the middle of the image."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from spoco_zoo.nets.device import choose_device
from spoco_zoo.segment.blocks import make_box
from spoco_zoo.segment.glance import ready_part
from spoco_zoo.segment.planes import cluster_planes
from spoco_zoo.segment.rows import longest_row

if TYPE_CHECKING:
    from spoco_zoo.nets.model import Clusterer, Model
    from spoco_zoo.segment.blocks import Box
    from spoco_zoo.segment.field import AxisGrid
    from spoco_zoo.segment.plan import Plan

__all__ = ["Guess", "count_forwards", "guess_time"]

REST = 1.15
"""Reading, writing, stitching, relabelling and the pyramid, on top of the blocks."""


@dataclass(frozen=True)
class Guess:
    """What a run is likely to cost."""

    seconds: float
    """Wall time, with the workers given."""
    forward_seconds: float
    """One patch through the network."""
    cluster_seconds: float
    """One million voxels through the clustering."""
    forwards: int
    """Patches that will go through the network."""
    workers: int

    def text(self) -> str:
        """One line for people."""
        minutes = round(self.seconds / 60)
        span = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{minutes} min"
        if minutes >= 120:
            span = f"{minutes / 60:.3g} h"
        plural, patches = "s" * (self.workers > 1), "patch" if self.forwards == 1 else "patches"
        return (
            f"about {span} with {self.workers} worker{plural}: {self.forwards} {patches} of "
            f"{self.forward_seconds:.2g} s, {self.cluster_seconds:.2g} s per million voxels "
            "to cluster"
        )


def guess_time(
    plan: Plan, model: Model, cluster: Clusterer, *, device: str = "auto", workers: int = 1
) -> Guess:
    """Time one patch and the clustering of its core, and scale that to the run; writes nothing.

    Parameters
    ----------
    plan : Plan
    model : Model
    cluster : Clusterer
    device : {"auto", "cpu", "cuda", "cuda:I"}
    workers : int
        Processes that will share the work and are as fast as this one.

    Returns
    -------
    Guess
    """
    place = choose_device(device)
    region = _sample(plan)
    run = ready_part(plan, model, region, None, place)
    if plan.recipe.net.ndim < len(region.shape):
        cluster = cluster_planes(cluster, plan.rule, plan.recipe.net.turning)
    run()  # The first forward prepares the kernels and is not counted.
    began = time.perf_counter()
    found = run()
    found.embeddings.sum().item()
    forward = (time.perf_counter() - began) / max(found.patches, 1)
    began = time.perf_counter()
    cluster(found.embeddings, plan.clustering, plan.recipe.background, momentum=found.embeddings)
    clustering = (time.perf_counter() - began) / region.size
    grid = plan.grid
    # A run of one process is in one piece along the last axis.
    row = grid.counts[-1] if workers == 1 else longest_row(grid, workers)
    forwards = count_forwards(plan, row) * (2 if plan.clustering.method == "consistency" else 1)
    seconds = forwards * forward + grid.total * prod(grid.widest) * clustering
    return Guess(REST * seconds / workers, forward, 1e6 * clustering, forwards, workers)


def count_forwards(plan: Plan, row: int) -> int:
    """Patches that a run sends through the network, blank ones included.

    Parameters
    ----------
    plan : Plan
    row : int
        Blocks along the last axis that share what they both need.
    """
    grid, offset = plan.grid, plan.region.start
    total = grid.times
    for axis, one in enumerate(plan.field.axes):
        spans = [
            _touched(one, grid.block[axis], grid.overlap[axis], grid.shape[axis], offset[axis], i)
            for i in range(grid.counts[axis])
        ]
        shared = row if axis == len(plan.field.axes) - 1 else 1
        total *= sum(len(set().union(*spans[i : i + shared])) for i in range(0, len(spans), shared))
    return total


def _touched(one: AxisGrid, block: int, overlap: int, size: int, offset: int, i: int) -> range:
    """Patches along one axis that block `i` needs."""
    start = max(i * block - overlap, 0) + offset
    stop = min((i + 1) * block + overlap, size) + offset
    return one.touching(start, stop)


def _sample(plan: Plan) -> Box:
    """The middle of the region, as large as one patch alone decides."""
    spans = []
    for one, a, b in zip(plan.field.axes, plan.region.start, plan.region.stop, strict=True):
        k = one.touching((a + b) // 2, (a + b) // 2 + 1)[0]
        reach = one.reach if len(one.edges) > 2 else 0
        low, high = one.edges[k] + reach, one.edges[k + 1] - reach
        if high <= low:
            low, high = one.edges[k], one.edges[k + 1]
        spans.append((low, high))
    return make_box(spans)
