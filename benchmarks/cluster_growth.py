"""Time and memory of a clustering method as its block grows, to 10^8 voxels in one process.

    python -m benchmarks.cluster_growth [--voxels 25e6,50e6,100e6] [--method instance]

Embeddings are those of the dense tissue of `benchmarks.tissue` with noise: float16,
4 channels, no background. Every size runs in a process of its own, one thread.
Prints one line of JSON per size: CPU seconds (the faster of two runs), bytes a
voxel beside the embeddings at the peak, with and without the returned labels
(int32), objects found and cells true (those cut by the border of the volume in
part), and, from the second size on, the time and the voxels over those before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import numpy as np
import torch

from benchmarks.clustering import peak_memory, timed
from benchmarks.tissue import CODE, DIAMETER, PERIOD, make_tile
from spoco_zoo.config import ClusteringConfig
from spoco_zoo.segment.cluster import cluster

CHANNELS = 4
REPEATS = 2  # of which the faster counts
NOISE = 0.05  # standard deviation per channel; the radius of a cluster is 0.5


def make_embeddings(side: int) -> torch.Tensor:
    """Embeddings of a cube of tissue, float16 (4, side, side, side)."""
    tile = make_tile(3)
    codes = np.stack([tile // PERIOD**k % PERIOD for k in range(3)] + [np.zeros_like(tile)])
    period = tile.shape[0]
    rng = np.random.default_rng(0)
    result = np.empty((CHANNELS, side, side, side), np.float16)
    at = np.arange(side) % period
    for z in range(side):
        noise = rng.standard_normal((CHANNELS, side, side), np.float32) * NOISE
        result[:, z] = CODE * codes[:, z % period][:, at][:, :, at] + noise
    return torch.from_numpy(result)


def run_one(side: int, method: str) -> dict[str, float]:
    """Cluster one cube; what it took."""
    torch.set_num_threads(1)
    config = ClusteringConfig.checked({"method": method, "bandwidth": 1.0, "min_size": 1})
    cluster(make_embeddings(32), config, None)  # imports and first allocations
    embeddings = make_embeddings(side)
    voxels = embeddings[0].numel()
    # Memory first: later runs would find freed memory of earlier ones.
    peak = peak_memory(lambda: cluster(embeddings, config, None)) / voxels
    runs = [timed(lambda: cluster(embeddings, config, None)) for _ in range(REPEATS)]
    labels, seconds = min(runs, key=lambda run: run[1])
    return {
        "voxels": voxels,
        "cpu_seconds": round(seconds, 2),
        "ns_per_voxel": round(1e9 * seconds / voxels, 1),
        "bytes_per_voxel": round(peak, 2),
        "bytes_per_voxel_beside_labels": round(peak - labels.itemsize, 2),
        "objects": int(labels.max()),
        "cells": round((side / DIAMETER[3]) ** 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--voxels", default="25e6,50e6,100e6")
    parser.add_argument("--method", default="instance")
    parser.add_argument("--side", type=int, help="one cube of this side, in this process")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_one(options.side, options.method)))
        return
    before = None
    for voxels in options.voxels.split(","):
        side = round(float(voxels) ** (1 / 3))
        command = [sys.executable, "-m", "benchmarks.cluster_growth", "--side", str(side)]
        done = subprocess.run(
            [*command, "--method", options.method],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            check=True,
        )
        row = {"benchmark": "cluster_growth", "method": options.method, **json.loads(done.stdout)}
        if before is not None:
            row["times_voxels"] = round(row["voxels"] / before["voxels"], 3)
            row["times_seconds"] = round(row["cpu_seconds"] / before["cpu_seconds"], 3)
        before = row
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
