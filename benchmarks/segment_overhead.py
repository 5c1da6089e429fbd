"""What `segment` costs beyond its network.

    python -m benchmarks.segment_overhead [--shape 8192,8192]

Segments dense synthetic tissue in
this process, and afterwards runs the network alone on patches of the same shapes.
Prints one line of JSON:

- ``overhead``: wall time of `segment` over the summed forward time of the patches
  that it ran, taken alone. The target is at most 1.3.
- ``overhead_in_run``: the same over the forward times measured within the run.
- ``overhead_each_once``: over the forward time if every patch of the volume's grid
  were run once. What blocks run twice is in this one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks import tissue
from spoco_zoo.segment import dry_run, segment
from spoco_zoo.segment.blocks import Box
from spoco_zoo.segment.models import ModelRef, find_device, obtain_model, remember_model
from spoco_zoo.values import integers

if TYPE_CHECKING:
    from spoco_zoo.nets.model import Model


def forward_alone(
    model: Model, shapes: set[tuple[int, ...]], device: str, repeats: int
) -> dict[tuple[int, ...], float]:
    """Median seconds of one forward for each shape of input."""
    remember_model(model)
    place = find_device(device)
    network = obtain_model(ModelRef("", model.fingerprint), place, "auto").network
    found = {}
    with torch.inference_mode():
        for shape in shapes:
            x = torch.zeros(shape, device=place)
            network(x)
            times = []
            for _ in range(repeats):
                began = time.perf_counter()
                network(x).sum().item()
                times.append(time.perf_counter() - began)
            found[shape] = statistics.median(times)
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
        began = time.perf_counter()
        result = segment(image, model, config, output=output, device=options.device)
        wall = time.perf_counter() - began
        calls = list(tissue.CALLS)
        once = Counter(
            (1, 1, *p.input.shape) for p in plan.field.patches(Box((0,) * len(shape), shape))
        )
        shapes = Counter(call.shape for call in calls)
        alone = forward_alone(
            model, {(1, *s[1:]) for s in shapes} | set(once), options.device, options.repeats
        )
    pure = sum(n * s[0] * alone[1, *s[1:]] for s, n in shapes.items())
    pure_once = sum(n * alone[s] for s, n in once.items())
    in_run = sum(call.seconds for call in calls)
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
                "overhead": round(wall / pure, 3),
                "overhead_in_run": round(wall / in_run, 3),
                "overhead_each_once": round(wall / pure_once, 3),
                "patches": blocks["patches"],
                "patches_of_grid": sum(once.values()),
                "wall_seconds": round(wall, 2),
                "forward_seconds": round(pure, 2),
                "forward_seconds_in_run": round(in_run, 2),
                **{k: round(v, 2) for k, v in blocks.items() if k.endswith("_seconds")},
                "phases": result.summary["seconds"],
                "microseconds_per_voxel": round(1e6 * wall / voxels, 3),
                "objects": result.objects,
                "cells": cells,
            }
        )
    )


if __name__ == "__main__":
    main()
