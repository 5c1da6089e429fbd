"""Time per voxel and peak memory from small to large volumes, and what a second worker brings.

    python -m benchmarks.scaling --sides 256,512,1024 --workers 1,2

Writes dense synthetic 3D tissue of each size to disk, shard by shard, and segments
it with worker processes of one thread each, every run in a process of its own.
One line of JSON per run: microseconds per voxel, of wall time and of CPU time (the
one to look at where other work shares the machine), peak RSS of the largest worker
and of the driver, objects found; for more than one worker also the efficiency
against the first run of the same side.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import tissue
from spoco_zoo.values import integers


def run_one(options: argparse.Namespace) -> None:
    """Segment the image in `options.image` and print what it took."""
    from spoco_zoo.segment import segment

    config = tissue.read_sizes(options)
    features = integers(options.features, "features")
    assert features is not None
    model = tissue.tissue_model(Path(options.image), features, options.channels)
    output = Path(f"{options.image}.labels.zarr")
    began = time.perf_counter()
    result = segment(
        options.image, model, config, output=output, workers=int(options.workers), dashboard=False
    )
    wall = time.perf_counter() - began
    # Children are the workers, which have ended by now.
    children, own = (
        resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)
    )
    voxels = result.summary["sizes"]["voxels"]
    row = {
        "benchmark": "scaling",
        "voxels": voxels,
        "workers": int(options.workers),
        "blocks": result.blocks,
        "objects": result.objects,
        "wall_seconds": round(wall, 2),
        "microseconds_per_voxel": round(1e6 * wall / voxels, 3),
        "block_microseconds_per_voxel": round(
            1e6 * result.summary["seconds"]["blocks"] / voxels, 3
        ),
        "worker_cpu_microseconds_per_voxel": round(
            1e6 * (children.ru_utime + children.ru_stime) / voxels, 3
        ),
        "worker_system_seconds": round(children.ru_stime, 1),
        # Kilobytes on Linux.
        "worker_peak_mib": children.ru_maxrss // 1024,
        "driver_peak_mib": own.ru_maxrss // 1024,
        "phases": result.summary["seconds"],
    }
    print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", default="128,192")
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--features", default="16,32,64,128")
    parser.add_argument("--channels", type=int, default=tissue.EMBEDDING, help="of the embedding")
    parser.add_argument("--folder", help="for the volumes; by default a temporary one")
    parser.add_argument("--image", help="used by this script itself: one run on this volume")
    tissue.add_sizes(parser)
    options = parser.parse_args()
    if options.image:
        run_one(options)
        return
    passed = [
        v
        for n in (*tissue.SIZES, "features", "channels")
        if getattr(options, n)
        for v in (f"--{n}", str(getattr(options, n)))
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        for side in options.sides.split(","):
            image = Path(temporary, f"{side}.ome.zarr")
            tissue.write_tissue(image, (int(side),) * 3)
            first = None
            for workers in options.workers.split(","):
                command = [sys.executable, "-m", "benchmarks.scaling", "--image", str(image)]
                done = subprocess.run(
                    [*command, "--workers", workers, *passed],
                    env=environment,
                    stdout=subprocess.PIPE,
                    check=True,
                )
                subprocess.run(["rm", "-rf", f"{image}.labels.zarr"], check=True)
                row = json.loads(done.stdout)
                first = first or row
                speed = first["phases"]["blocks"] / row["phases"]["blocks"]
                row["efficiency"] = round(speed * first["workers"] / row["workers"], 3)
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
