"""What `segment` costs beyond its network.

    python -m benchmarks.segment_overhead [--shape 8192,8192]

Segments dense synthetic tissue in this process, and afterwards runs the network
alone on patches of the same shapes. Prints one line of JSON:

- ``overhead``: wall time of `segment` over the summed forward time of the patches
  that it ran, taken alone. The target is at most 1.3.
- ``overhead_in_run``: the same over the forward times measured within the run.
- ``overhead_each_once``: over the forward time if every patch of the volume's grid
  were run once. What blocks run twice is in this one.
- ``overhead_cpu``: as ``overhead``, but CPU time over CPU time, with one thread only
  (OMP_NUM_THREADS=1). It is the one to look at where other work shares the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from benchmarks import tissue
from spoco_zoo.nets.device import find_device
from spoco_zoo.segment import dry_run, segment
from spoco_zoo.segment.blocks import Box
from spoco_zoo.segment.network.inference import worth_graphs
from spoco_zoo.segment.network.models import ModelRef, obtain_model, remember_model
from spoco_zoo.values import integers

if TYPE_CHECKING:
    from spoco_zoo.nets.model import Model


class Seconds(NamedTuple):
    """What some work took."""

    wall: float
    cpu: float

    def over(self, other: Seconds) -> Seconds:
        """Ratios."""
        return Seconds(round(self.wall / other.wall, 3), round(self.cpu / other.cpu, 3))


def total(calls: Counter[tuple[int, ...]], alone: dict[tuple[int, ...], Seconds]) -> Seconds:
    """What these forwards would take alone, one image each."""
    parts = [(n * shape[0], alone[1, *shape[1:]]) for shape, n in calls.items()]
    return Seconds(sum(n * t.wall for n, t in parts), sum(n * t.cpu for n, t in parts))


def forward_alone(
    model: Model, shapes: set[tuple[int, ...]], device: str, repeats: int, *, graphs: bool
) -> dict[tuple[int, ...], Seconds]:
    """Median seconds of one forward for each shape of input."""
    remember_model(model)
    place = find_device(device)
    network = obtain_model(ModelRef("", model.fingerprint), place, "auto", graphs=graphs).network
    found = {}
    with torch.inference_mode():
        for shape in shapes:
            x = torch.zeros(shape, device=place)
            network(x)
            times = []
            for _ in range(repeats):
                began, cpu = time.perf_counter(), time.thread_time()
                network(x).sum().item()
                times.append(Seconds(time.perf_counter() - began, time.thread_time() - cpu))
            found[shape] = Seconds(*map(statistics.median, zip(*times, strict=True)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="2048,2048")
    tissue.add_sizes(parser)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    shape = integers(options.shape, "shape")
    assert shape is not None
    config = tissue.read_sizes(options)
    with tempfile.TemporaryDirectory() as temporary:
        image, output = Path(temporary, "image.ome.zarr"), Path(temporary, "labels.ome.zarr")
        cells = tissue.write_tissue(image, shape)
        model = tissue.tissue_model(image)
        plan = dry_run(image, model, config, output=output)
        began, cpu = time.perf_counter(), time.process_time()
        result = segment(image, model, config, output=output, device=options.device)
        whole = Seconds(time.perf_counter() - began, time.process_time() - cpu)
        calls = list(tissue.CALLS)
        once = Counter(
            (1, 1, *p.input.shape) for p in plan.field.patches(Box((0,) * len(shape), shape))
        )
        shapes = Counter(call.shape for call in calls)
        alone = forward_alone(
            model,
            {(1, *s[1:]) for s in shapes} | set(once),
            options.device,
            options.repeats,
            graphs=worth_graphs(plan.grid),
        )
    pure, pure_once = total(shapes, alone), total(once, alone)
    in_run = Seconds(sum(call.seconds for call in calls), sum(call.cpu for call in calls))
    single = torch.get_num_threads() == 1
    blocks = result.summary["blocks"]
    voxels = 1
    for n in shape:
        voxels *= n
    print(
        json.dumps(
            {
                "benchmark": "segment_overhead",
                "shape": shape,
                "block": plan.grid.block,
                "overlap": plan.grid.overlap,
                "patch": plan.tiling.patch,
                "halo": plan.tiling.halo,
                "blocks": plan.grid.total,
                "threads": torch.get_num_threads(),
                "device": str(find_device(options.device)),
                "overhead": whole.over(pure).wall,
                "overhead_in_run": whole.over(in_run).wall,
                "overhead_each_once": whole.over(pure_once).wall,
                "overhead_cpu": whole.over(pure).cpu if single else None,
                "overhead_in_run_cpu": whole.over(in_run).cpu if single else None,
                "overhead_each_once_cpu": whole.over(pure_once).cpu if single else None,
                "patches": blocks["patches"],
                "patches_of_grid": sum(once.values()),
                "wall_seconds": round(whole.wall, 2),
                "cpu_seconds": round(whole.cpu, 2),
                "forward_seconds": round(pure.wall, 2),
                "forward_seconds_in_run": round(in_run.wall, 2),
                **{k: round(v, 2) for k, v in blocks.items() if k.endswith("_seconds")},
                "phases": result.summary["seconds"],
                "microseconds_per_voxel": round(1e6 * whole.wall / voxels, 3),
                "objects": result.objects,
                "cells": cells,
            }
        )
    )


if __name__ == "__main__":
    main()
