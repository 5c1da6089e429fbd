"""3D segmentation on one GPU: voxels per second end to end, and what bounds them.

    python -m benchmarks.gpu_segment [--shape 512,512,512] [--patch 128,128,128]

Segments dense synthetic tissue in this process. Prints one line of JSON:

- ``voxels_per_second`` of the whole run, and of its blocks;
- ``busy``: share of the blocks' time in which the GPU ran forwards (each is waited
  for, so this is time on the device); with nvidia-ml-py also the driver's own figure;
- ``share_of_matrix_peak``, ``share_of_bandwidth``: the forward's operations and the
  least bytes that it must move, over what this GPU was measured to do in a large
  bfloat16 matrix product and in a copy;
- ``bound``: which of the two, or the host.

Without a GPU it says so and ends with exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from benchmarks import tissue
from spoco_zoo.segment import dry_run, segment
from spoco_zoo.values import integers

if TYPE_CHECKING:
    from collections.abc import Callable


def best_time(work: Callable[[], object], repeats: int = 10) -> float:
    """Shortest seconds of some work on the device."""
    work()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


def device_peaks(size: int = 8192) -> tuple[float, float]:
    """Measured operations and bytes per second of the GPU."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    x = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    y = torch.empty_like(x)
    return 2 * size**3 / best_time(lambda: a @ a), 2 * x.numel() / best_time(lambda: y.copy_(x))


def forward_work(network: nn.Module, shape: tuple[int, ...]) -> tuple[float, float]:
    """Operations of one forward, and the bytes its convolutions read and write in bfloat16."""
    from torch.utils.flop_counter import FlopCounterMode

    moved = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal moved
        moved += 2 * (inputs[0].numel() + output.numel())

    hooks = [
        m.register_forward_hook(count)
        for m in network.modules()
        if isinstance(m, nn.Conv2d | nn.Conv3d)
    ]
    # Shapes suffice: nothing is computed on the meta device.
    meta = network.to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        meta(torch.empty(shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return float(counter.get_total_flops()), float(moved)


class Watch(threading.Thread):
    """Asks the driver every 50 ms whether the GPU is at work."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        try:
            import pynvml
        except ImportError:
            return
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
        while not self.over.wait(0.05):
            self.samples.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)

    def stop(self) -> float | None:
        self.over.set()
        self.join()
        return round(sum(self.samples) / len(self.samples) / 100, 3) if self.samples else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="512,512,512")
    tissue.add_sizes(parser)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_segment needs a CUDA device: torch sees none here.", file=sys.stderr)
        sys.exit(2)
    shape = integers(options.shape, "shape")
    assert shape is not None
    config = tissue.read_sizes(options)
    matrix, bandwidth = device_peaks()
    with tempfile.TemporaryDirectory() as temporary:
        image, output = Path(temporary, "image.ome.zarr"), Path(temporary, "labels.ome.zarr")
        cells = tissue.write_tissue(image, shape)
        model = tissue.tissue_model(image)
        plan = dry_run(image, model, config, output=output)
        watch = Watch()
        watch.start()
        began = time.perf_counter()
        result = segment(image, model, config, output=output, device="cuda")
        wall = time.perf_counter() - began
        busy_by_driver = watch.stop()
    # The first forward picks its kernels.
    calls = tissue.CALLS[1:]
    forward = sum(call.seconds for call in calls)
    assert isinstance(model.network, tissue.TissueNet)
    flops, moved = forward_work(model.network.unet, (1, 1, *plan.tiling.patch))
    patches = sum(prod(c.shape) for c in calls) / prod(plan.tiling.patch)
    blocks = result.summary["seconds"]["blocks"]
    row = {
        "benchmark": "gpu_segment",
        "device": torch.cuda.get_device_name(),
        "shape": shape,
        "blocks": plan.grid.total,
        "block": plan.grid.block,
        "patch": plan.tiling.patch,
        "voxels_per_second": round(prod(shape) / wall),
        "block_voxels_per_second": round(prod(shape) / blocks),
        "busy": round(forward / blocks, 3),
        "busy_by_driver": busy_by_driver,
        "matrix_peak_tflops": round(matrix / 1e12, 1),
        "bandwidth_gb_per_second": round(bandwidth / 1e9),
        "share_of_matrix_peak": round(flops * patches / forward / matrix, 3),
        "share_of_bandwidth": round(moved * patches / forward / bandwidth, 3),
        "seconds": result.summary["seconds"],
        "objects": result.objects,
        "cells": cells,
    }
    shares = {"matrix": row["share_of_matrix_peak"], "bandwidth": row["share_of_bandwidth"]}
    row["bound"] = "host" if row["busy"] < 0.5 else max(shares, key=shares.__getitem__)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
