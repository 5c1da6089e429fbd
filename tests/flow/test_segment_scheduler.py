"""A scheduler and workers that somebody else started, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import code_model, exact_cluster, read_labels, same_partition, tissue, write_image

from spoco_zoo.config import SegmentConfig
from spoco_zoo.segment import segment

SMALL = SegmentConfig(block=(64, 64), overlap=(12, 12), patch=(64, 64), halo=(12, 12))
REPOSITORY = Path(__file__).parents[2]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    paths = [str(REPOSITORY), str(REPOSITORY / "tests" / "unit" / "segment")]
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_scheduler_that_is_just_starting(tmp_path: Path) -> None:
    """The run waits for its file and for the first worker, and closes nothing at the end."""
    truth = tissue((150, 140), 40, seed=2)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    file, processes = tmp_path / "dask.json", []
    try:
        quiet = ("--no-dashboard", "--scheduler-file", str(file))
        processes.append(start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", *quiet))
        processes.append(start("dask_worker", "--nthreads", "1", *quiet))
        result = segment(
            image, code_model(truth), SMALL, scheduler=str(file), cluster=exact_cluster
        )
        assert same_partition(read_labels(image / "labels" / "spoco"), truth)
        assert result.objects == len(np.unique(truth))
        assert all(process.poll() is None for process in processes)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(60)
