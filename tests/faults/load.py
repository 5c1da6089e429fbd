"""Very many items through the scheduler's sliding window, many small blocks, many small runs.

::

    python -m tests.faults.load --items 100000 --workers 4      trivial tasks
    python -m tests.faults.load --blocks 10000 --workers 4      real blocks of a made-up tissue
    python -m tests.faults.load --soak 30                       runs, for so many minutes

One line of JSON: the driver's memory after the first tenth and at the end, the
most items that were ever in flight, and open files at both moments. For the runs
also half way, and how many blocks of memory Python itself holds: what grows without
them lies in a library's own memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))

from spoco_zoo.segment.execute import AHEAD, DaskExecutor, make_executor


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


def segment_blocks(count: int, workers: int) -> dict[str, Any]:
    """Segment about `count` small blocks; memory and files after a tenth and at the end."""
    import numpy as np
    from planted import code_model, exact_cluster, tissue, write_image

    from spoco_zoo.config import SegmentConfig
    from spoco_zoo.segment import Event, segment

    side = round(count**0.5)
    me, marks = psutil.Process(), {}
    truth = tissue((16 * side, 16 * side), 3 * count // 4, seed=1)
    config = SegmentConfig(block=(16, 16), overlap=(6, 6), patch=(64, 64), halo=(2, 2))

    def listen(event: Event) -> None:
        if event.phase == "blocks" and event.done in (event.total // 10, event.total):
            state = {"bytes": me.memory_info().rss, "files": me.num_fds()}
            marks["late" if event.done == event.total else "early"] = state

    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        image = write_image(Path(folder) / "image.ome.zarr", truth, "YX")
        result = segment(
            image, code_model(truth), config, output=Path(folder) / "o.zarr", workers=workers,
            dashboard=False, cluster=exact_cluster, on_event=listen,
        )  # fmt: skip
    growth = marks["late"]["bytes"] - marks["early"]["bytes"]
    return {
        "blocks": side**2,
        "objects": result.objects,
        "cells": int(np.max(truth)),
        **marks,
        "growth_mib": round(growth / 2**20, 1),
        "seconds": round(time.perf_counter() - began, 1),
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=0)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    if asked.items:
        executor = make_executor(asked.workers, dashboard=False)
        assert isinstance(executor, DaskExecutor)
        try:
            print(json.dumps({"load": "items", "window": AHEAD * asked.workers}
                             | pass_items(executor, asked.items)))  # fmt: skip
        finally:
            executor.close()
    if asked.blocks:
        print(json.dumps({"load": "blocks"} | segment_blocks(asked.blocks, asked.workers)))
    if asked.soak:
        print(json.dumps({"load": "soak"} | soak(asked.soak, asked.workers)))


if __name__ == "__main__":
    main()
