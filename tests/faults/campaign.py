"""Random faults, run after run, each compared byte for byte with an undisturbed run.

::

    python -m tests.faults.campaign --runs 200 --seed 0     one line of JSON
    python -m tests.faults.campaign --replay 0:17           one run again, told step by step

A run is a series of attempts to segment one small image into one output, struck by
one to four faults, and then attempts in peace until one succeeds. It has failed if
an attempt reports success with other bytes than the undisturbed run, ends with a
traceback, hangs, or if the attempts in peace do not succeed: at the latest with
``--overwrite``, and that only after files were damaged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from planted import store_bytes, tissue, write_image
from struck import KINDS, LostError, Run, World

from spoco_zoo.config import SegmentConfig

FORKS = multiprocessing.get_context("forkserver")
# The imports are made once; every attempt starts from them at once.
FORKS.set_forkserver_preload(["disturbed", "distributed", "spoco_zoo.segment.cluster"])


class Campaign:
    """Runs in a scratch folder."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder, self.tell, self.forks = folder, tell, FORKS
        self.groups: list[int] = []
        self.faults: Counter[str] = Counter()
        self.attempts = 0
        self.worlds = [
            self._world("plane", (270, 90), 60, "YX", (64, 64), (12, 12), "0.5", False),
            self._world("volume", (20, 40, 36), 40, "ZYX", (10, 20, 20), (3, 6, 6), "0.5", True),
            self._world("plane 0.4", (150, 70), 30, "YX", (64, 64), (12, 12), "0.4", True),
        ]

    def _world(
        self, name: str, shape: tuple[int, ...], cells: int, axes: str, block: tuple[int, ...],
        overlap: tuple[int, ...], version: str, in_place: bool,
    ) -> World:  # fmt: skip
        place = self.folder / name
        place.mkdir()
        truth = tissue(shape, cells, seed=len(name))
        np.save(place / "truth.npy", truth)
        write_image(place / "image.ome.zarr", truth, axes, version)
        size = 64 if len(shape) == 2 else 16
        halo = (12, 12) if len(shape) == 2 else (2, 4, 4)
        patch = (size,) * len(shape)
        config = SegmentConfig(block=block, overlap=overlap, patch=patch, halo=halo)
        blocks = int(np.prod([-(-n // b) for n, b in zip(shape, block, strict=True)]))
        world = World(name, place / "image.ome.zarr", place / "truth.npy", config, in_place, blocks)
        run = Run(self, world, np.random.default_rng(0), place / "alone")
        done = run.attempt()
        if done.code != 0:
            raise LostError(f"the undisturbed run ended with {done.code}: {done.err}")
        world.steps = int(done.out.split()[1])
        world.wanted = store_bytes(run.result)
        return world

    def one(self, seed: int, number: int) -> None:
        """Run number `number`; raises `LostError` if it fails."""
        rng = np.random.default_rng([seed, number])
        world = self.worlds[int(rng.integers(len(self.worlds)))]
        place = self.folder / "run"
        shutil.rmtree(place, ignore_errors=True)
        try:
            Run(self, world, rng, place).all()
        finally:
            for group in self.groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self.groups.clear()


def campaign(runs: int, seed: int, minutes: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """Do `runs` runs, or as many as begin within the time; figures by kind of fault."""
    lost, began = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        control = Campaign(Path(folder), tell)
        done = 0
        for number in range(runs):
            if time.perf_counter() - began > 60 * minutes:
                break
            done += 1
            tell(f"--replay {seed}:{number}")
            try:
                control.one(seed, number)
            except LostError as error:
                lost.append(f"{seed}:{number}")
                print(f"--replay {lost[-1]}: {error}", file=sys.stderr, flush=True)
    return {
        "campaign": "faults",
        "seed": seed,
        "runs": done,
        "attempts": control.attempts,
        "faults": {kind: control.faults[kind] for kind in KINDS},
        "runs_that_lost_or_changed_a_byte": len(lost),
        "replay": lost,
        "seconds": round(time.perf_counter() - began),
    }


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no run after these")
    parser.add_argument("--replay", help="SEED:NUMBER of one run")
    parser.add_argument("--verbose", action="store_true")
    asked = parser.parse_args()

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if asked.replay:
        seed, number = map(int, asked.replay.split(":"))
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            Campaign(Path(folder), tell).one(seed, number)
        return 0
    result = campaign(
        asked.runs, asked.seed, asked.minutes, tell if asked.verbose else lambda text: None
    )
    print(json.dumps(result))
    return 1 if result["replay"] else 0


if __name__ == "__main__":
    sys.exit(main())
