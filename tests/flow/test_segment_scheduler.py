"""A scheduler and workers that somebody else started, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
from planted import code_model, exact_cluster, read_labels, same_partition, tissue, write_image

from spoco_zoo.config import SegmentConfig
from spoco_zoo.errors import Interrupted
from spoco_zoo.segment import Event, execute, segment

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


@contextmanager
def cluster(file: Path, workers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A scheduler that writes its file, and workers; more may be added."""
    quiet = ("--no-dashboard", "--scheduler-file", str(file))
    started = [start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", *quiet)]
    try:
        started += [start("dask_worker", "--nthreads", "1", *quiet) for _ in range(workers)]
        yield started
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(60)


def test_a_scheduler_that_is_just_starting(tmp_path: Path) -> None:
    """The run waits for its file and for the first worker, and closes nothing at the end."""
    truth = tissue((150, 140), 40, seed=2)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    file = tmp_path / "dask.json"
    with cluster(file, workers=1) as processes:
        result = segment(
            image, code_model(truth), SMALL, scheduler=str(file), cluster=exact_cluster
        )
        assert same_partition(read_labels(image / "labels" / "spoco"), truth)
        assert result.objects == len(np.unique(truth))
        assert all(process.poll() is None for process in processes)


def test_a_run_without_workers_waited_in_silence_and_would_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them may have failed to start, which only the logs of their jobs say."""
    truth = tissue((150, 140), 40, seed=2)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    file, told = tmp_path / "dask.json", []
    monkeypatch.setattr(execute, "LOOK", 0.0)

    def end(event: Event) -> None:
        if event.phase == "workers":
            told.append(event.message)
            signal.raise_signal(signal.SIGTERM)

    with cluster(file, workers=0), pytest.raises(Interrupted, match="same command"):
        segment(
            image, code_model(truth), SMALL,
            scheduler=str(file), cluster=exact_cluster, on_event=end,
        )  # fmt: skip
    assert told == [execute.NOBODY]


def test_a_scheduler_that_ends_with_its_driver_made_the_end_a_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SLURM sends SIGTERM to all of a job that is cancelled."""
    truth = tissue((150, 140), 40, seed=2)
    image = write_image(tmp_path / "image.ome.zarr", truth, "YX")
    file, model = tmp_path / "dask.json", code_model(truth)

    with cluster(file, workers=1) as processes:

        def end(event: Event) -> None:
            if event.phase == "blocks" and event.done == 1:
                processes[0].terminate()
                processes[0].wait(60)
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted, match="same command"):
            segment(
                image, model, SMALL,
                scheduler=str(file), cluster=exact_cluster, on_event=end,
            )  # fmt: skip
    assert "Traceback" not in capfd.readouterr().err
    result = segment(image, model, SMALL, cluster=exact_cluster)
    assert result.resumed > 0
    assert same_partition(read_labels(image / "labels" / "spoco"), truth)
