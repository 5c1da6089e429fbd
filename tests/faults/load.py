"""Very many items through the scheduler's sliding window, many small blocks, many small runs.

::

    python -m tests.faults.load --items 100000 --workers 4      trivial tasks
    python -m tests.faults.load --blocks 10000 --workers 4      real blocks of a made-up tissue
    python -m tests.faults.load --soak 30                       runs, for so many minutes

One line of JSON: the driver's memory after the first tenth and at the end, the
most items that were ever in flight, and open files at both moments. For the runs
also half way, and how many blocks of memory Python itself holds: what grows without
them lies in a library's own memory. The blocks' labels are compared with the tissue;
the exit code is 1 if a single cell is not as it should be.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))

from spoco_zoo.segment.execute import AHEAD, DaskExecutor, make_executor

PITCH = 12
"""Side of the squares of the made-up tissue, each with one cell's seed."""
LARGEST = 2**16 - 1
"""Largest id of a cell: what a voxel of the image can hold."""
BASE = 64
"""Digits of a code of the made-up network: three of them tell more cells apart than there are."""


def nothing(item: int) -> int:
    """Do next to nothing."""
    return item + 1


def pass_items(executor: Any, count: int) -> dict[str, Any]:
    """Send `count` items through an executor; memory and files, and the widest window."""
    me = psutil.Process()
    handed = finished = widest = 0
    marks: list[dict[str, int]] = []
    total = 0

    def items() -> Iterator[int]:
        nonlocal handed, widest
        for item in range(count):
            handed += 1
            widest = max(widest, handed - finished)
            yield item

    def result(item: int, value: int) -> None:
        nonlocal finished, total
        finished += 1
        total += value - item
        if finished in (max(count // 10, 1), count):
            marks.append({"bytes": me.memory_info().rss, "files": me.num_fds()})

    def failure(item: int, reason: str) -> None:
        raise AssertionError(f"{item}: {reason}")

    began = time.perf_counter()
    executor.run(nothing, items(), result, failure)
    return {
        "items": total,
        "in_flight": widest,
        "early": marks[0],
        "late": marks[-1],
        "growth_mib": round((marks[-1]["bytes"] - marks[0]["bytes"]) / 2**20, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def even_tissue(side: int, seed: int) -> Any:
    """Gap-free cells, one seeded in every square of `PITCH`, whose ids are spread over uint16."""
    import numpy as np
    from skimage.segmentation import watershed

    rng, across = np.random.default_rng(seed), side // PITCH
    corners = PITCH * np.indices((across, across)).reshape(2, -1)
    if corners.shape[1] > LARGEST:
        raise SystemExit(
            f"a made-up tissue must have at most {LARGEST} cells, the ids of its image; found "
            f"{corners.shape[1]}. Ask for fewer --blocks."
        )
    markers = np.zeros((side, side), np.int32)
    rows, columns = corners + rng.integers(PITCH, size=corners.shape)
    markers[rows, columns] = 1 + rng.permutation(LARGEST)[: corners.shape[1]]
    return np.asarray(watershed(np.zeros(markers.shape, np.uint8), markers), np.int32)


def wrong_cells(labels: Any, truth: Any) -> int:
    """How many cells of the truth are not one label each, voxel for voxel."""
    import numpy as np

    pairs = np.unique(np.stack([truth.ravel(), labels.ravel()]).astype(np.int64), axis=1)
    _, cell, parts = np.unique(pairs[0], return_inverse=True, return_counts=True)
    _, label, sharers = np.unique(pairs[1], return_inverse=True, return_counts=True)
    right = (parts[cell] == 1) & (sharers[label] == 1) & (pairs[1] > 0)
    return len(parts) - int(right.sum())


def first_wrong(labels: Any, truth: Any, most: int = 5) -> list[dict[str, Any]]:
    """Cells that are in parts, or have no label: their voxels by label, and where they begin."""
    import numpy as np

    pairs = np.stack([truth.ravel(), labels.ravel()]).astype(np.int64)
    both, counts = np.unique(pairs, axis=1, return_counts=True)
    cells, parts = np.unique(both[0], return_counts=True)
    odd = np.union1d(cells[parts > 1], both[0][both[1] == 0])[:most]
    found = []
    for cell in odd:
        mine = both[0] == cell
        voxels = dict(zip(both[1][mine].tolist(), counts[mine].tolist(), strict=True))
        start = np.argwhere(truth == cell).min(0).tolist()
        found.append({"cell": int(cell), "start": start, "labels": voxels})
    return found


def segment_blocks(count: int, workers: int) -> dict[str, Any]:
    """Segment about `count` small blocks; memory and files after a tenth and at the end."""
    from planted import code_model, exact_cluster, read_labels, write_image

    from spoco_zoo.config import SegmentConfig
    from spoco_zoo.segment import Event, segment

    side = round(count**0.5)
    me, marks = psutil.Process(), {}
    truth = even_tissue(16 * side, seed=1)
    config = SegmentConfig(block=(16, 16), overlap=(6, 6), patch=(64, 64), halo=(2, 2))
    model = code_model(truth, base=BASE)
    # The tissue has no background. With a prototype of it, a patch of one dark value counts as
    # blank, and the grid's last patch, a few voxels wide, can lie within one dark cell.
    model = replace(model, recipe=model.recipe.model_copy(update={"background": None}))

    def listen(event: Event) -> None:
        if event.phase == "blocks" and event.done in (event.total // 10, event.total):
            state = {"bytes": me.memory_info().rss, "files": me.num_fds()}
            marks["late" if event.done == event.total else "early"] = state

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        image = write_image(Path(folder) / "image.ome.zarr", truth, "YX")
        result = segment(
            image, model, config, output=Path(folder) / "o.zarr",
            workers=workers, dashboard=False, cluster=partial(exact_cluster, base=BASE),
            on_event=listen,
        )  # fmt: skip
        seconds = round(time.perf_counter() - began, 1)
        labels = read_labels(Path(folder) / "o.zarr")
        wrong = wrong_cells(labels, truth)
    growth = marks["late"]["bytes"] - marks["early"]["bytes"]
    return {
        "blocks": side**2,
        "objects": result.objects,
        "cells": (side * 16 // PITCH) ** 2,
        "wrong_cells": wrong,
        "first_wrong": first_wrong(labels, truth),
        **marks,
        "growth_mib": round(growth / 2**20, 1),
        "seconds": seconds,
    }


def held(rounds: int) -> dict[str, int]:
    """What this process holds after so many rounds, less what only waits to be collected."""
    gc.collect()
    me = psutil.Process()
    return {
        "rounds": rounds,
        "bytes": me.memory_info().rss,
        "files": me.num_fds(),
        "python_blocks": sys.getallocatedblocks(),
    }


def soak(minutes: float, workers: int) -> dict[str, Any]:
    """Segment small images again and again, every eighth with workers; memory and files."""
    from planted import code_model, exact_cluster, tissue, write_image

    from spoco_zoo.config import SegmentConfig
    from spoco_zoo.segment import segment

    marks: dict[str, dict[str, int]] = {}
    truth = tissue((40, 90), 14, seed=2)
    config = SegmentConfig(block=(32, 32), overlap=(8, 8), patch=(32, 32), halo=(4, 4))
    began, rounds, parallel, passed = time.perf_counter(), 0, 0, 0.0
    while passed < 1:
        chosen = workers if rounds % 8 == 7 else 0
        with tempfile.TemporaryDirectory() as folder:
            image = write_image(Path(folder) / "image.ome.zarr", truth, "YX")
            result = segment(
                image, code_model(truth), config, output=Path(folder) / "o.zarr",
                workers=chosen, dashboard=False, cluster=exact_cluster,
            )  # fmt: skip
        assert result.objects == 14
        rounds, parallel = rounds + 1, parallel + (chosen > 0)
        passed = (time.perf_counter() - began) / (60 * minutes)
        # After the first tenth, and with workers in it, what is loaded once is loaded.
        if "early" not in marks and (parallel and passed >= 0.1):
            marks["early"] = held(rounds)
        if "middle" not in marks and passed >= 0.5:
            marks["middle"] = held(rounds)
    late = held(rounds)
    early = marks.setdefault("early", late)
    return {
        "rounds": rounds,
        "with_workers": parallel,
        **marks,
        "late": late,
        "growth_mib": round((late["bytes"] - early["bytes"]) / 2**20, 1),
        "growth_files": late["files"] - early["files"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=0)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args(arguments)
    if asked.items:
        executor = make_executor(asked.workers, dashboard=False)
        assert isinstance(executor, DaskExecutor)
        try:
            print(json.dumps({"load": "items", "window": AHEAD * asked.workers}
                             | pass_items(executor, asked.items)))  # fmt: skip
        finally:
            executor.close()
    if asked.blocks:
        found = segment_blocks(asked.blocks, asked.workers)
        print(json.dumps({"load": "blocks"} | found))
        if found["wrong_cells"]:
            return 1
    if asked.soak:
        print(json.dumps({"load": "soak"} | soak(asked.soak, asked.workers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
