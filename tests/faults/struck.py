"""One run of the campaign: its faults one after the other, then peace, then the comparison."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "segment"))
sys.path.insert(0, str(Path(__file__).parent))

import disturbed
import numpy as np
import zarr
from disturbed import Attempt
from planted import store_bytes

from spoco_zoo.config import SegmentConfig

if TYPE_CHECKING:
    from campaign import Campaign

PATIENCE = 300
"""Seconds after which an attempt hangs."""
CODES = {0, 1, 2, 3, 130, -signal.SIGKILL, -signal.SIGTERM}
MOVE = "Move it away"  # what cannot be recognised as ours is never deleted: the user is asked to
KINDS = (
    "kill driver", "terminate driver", "interrupt driver", "kill worker", "stop worker",
    "disk full", "read-only target", "cut ledger", "stale ledger", "damaged source",
    "deleted source chunk", "damaged staging", "damaged output", "two runs at once", "clock jump",
)  # fmt: skip
WEIGHTS = (5, 2, 2, 0.35, 0.15, 2, 1, 2, 1, 1.5, 0.7, 4, 3, 1, 1)


class LostError(AssertionError):
    """A run that did not end as it must."""


@dataclass
class World:
    """An image, its undisturbed result, and what it takes to make one."""

    name: str
    image: Path
    truth: Path
    config: SegmentConfig
    in_place: bool
    blocks: int
    steps: int = 0
    wanted: dict[str, str] = field(default_factory=dict)


@dataclass
class Ended:
    """How an attempt ended."""

    code: int
    out: str
    err: str


def decoded(label: Path) -> dict[str, bytes]:
    """The values of every array of a label, or nothing where they cannot be read."""
    values = {}
    for file in label.rglob("*"):
        if file.name in ("zarr.json", ".zarray"):
            try:
                array = zarr.open_array(file.parent, mode="r")
                values[str(file.parent)] = np.asarray(array[...]).tobytes()
            except Exception:  # a group, or damaged, which shows in many ways
                values[str(file.parent)] = b""
    return values


class Run:
    """One run: faults, then peace, then the comparison."""

    def __init__(self, campaign: Campaign, world: World, rng: Any, place: Path) -> None:
        self.campaign, self.world, self.rng, self.place = campaign, world, rng, place
        place.mkdir(exist_ok=True)
        self.marks = place / "marks"
        self.image = place / "image.ome.zarr"
        shutil.copytree(world.image, self.image)
        os.chmod(place, 0o755)
        self.output = None if world.in_place else place / "o.zarr"
        self.result = self.image if world.in_place else place / "o.zarr"
        name = "image.ome.zarr.label" if world.in_place else "o.zarr"
        self.scratch = place / f"{name}.spoco-run"
        self.damaged = self.finished = False
        self.wanted = world.wanted

    def all(self) -> None:
        """Faults, then peace."""
        weights = np.array(WEIGHTS) / sum(WEIGHTS)
        count = int(self.rng.integers(1, 5))
        for kind in self.rng.choice(KINDS, size=count, p=weights):
            if self.finished:
                break
            self.campaign.tell(f"  {kind}")
            if getattr(self, "_" + kind.replace(" ", "_").replace("-", "_"))():
                self.campaign.faults[str(kind)] += 1
        for _ in range(3):
            if self.finished:
                break
            done = self.attempt()
        if not self.finished and self.damaged and MOVE in done.err:
            label = self.image / "labels" / "label" if self.world.in_place else self.result
            shutil.rmtree(label)
            done = self.attempt()
        if not self.finished and self.damaged:
            done = self.attempt(overwrite=True)
        if not self.finished:
            raise LostError(f"does not end: {done.code} {done.err}")

    def start(self, **faults: Any) -> tuple[Any, tuple[Path, Path]]:
        """Begin an attempt."""
        # One folder per attempt: another one may still be at work.
        self.marks = self.place / f"marks{self.campaign.attempts}"
        self.marks.mkdir()
        os.chmod(self.marks, 0o777)
        attempt = Attempt(
            image=str(self.image),
            output=str(self.output) if self.output else None,
            truth=str(self.world.truth),
            config=faults.pop("config", self.world.config),
            marks=str(self.marks),
            **faults,
        )
        number = self.campaign.attempts = self.campaign.attempts + 1
        streams = tuple(self.campaign.folder / f"{number}.{name}" for name in ("out", "err"))
        process = self.campaign.forks.Process(
            target=disturbed.run, args=(attempt, *map(str, streams))
        )
        process.start()
        self.campaign.groups.append(process.pid)
        return process, streams

    def end(self, process: Any, streams: tuple[Path, Path]) -> Ended:
        """Wait for an attempt and judge how it ended."""
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            raise LostError("an attempt hangs")
        out, err = (s.read_text() if s.exists() else "" for s in streams)
        done = Ended(process.exitcode, out, err)
        self.campaign.tell(f"    {done.code} {done.err.strip()[:300]}")
        if done.code not in CODES or "Traceback" in err:
            raise LostError(f"ended with {done.code}: {err}")
        if done.code in (1, 2, 3, 130) and len(err.strip().splitlines()) != 1:
            raise LostError(f"not one line: {err!r}")
        if done.code == 0 or self.struck_at_the_last_step():
            self.finished = True
            self.compare()
        return done

    def struck_at_the_last_step(self) -> bool:
        """All was done but perhaps for giving back the lock: the label exists, we are told."""
        names = {p.name for p in self.scratch.iterdir()} if self.scratch.is_dir() else set()
        return names - {"lock.json"} == {"segment.json"}

    def attempt(self, **faults: Any) -> Ended:
        """One attempt from begin to end."""
        return self.end(*self.start(**faults))

    def compare(self) -> None:
        """The result has the bytes of the undisturbed one, and nothing is left beside it."""
        if not self.wanted:
            return
        found = store_bytes(self.result)
        # Left by a kill while the list of labels was written. Never removed, as it may
        # belong to a run that adds another label at this moment.
        for stray in [k for k in found if re.fullmatch(r"labels/[^/]*\.partial", k)]:
            del found[stray]
        odd = sorted(k for k in {*found, *self.wanted} if found.get(k) != self.wanted.get(k))
        if odd:
            raise LostError(f"success with other bytes: {len(odd)} files, such as {odd[:3]}")
        left = {p.name for p in self.scratch.iterdir()} - {"segment.json"}
        if left and not self.struck_at_the_last_step():
            raise LostError(f"left behind: {left}")

    def step(self) -> int:
        """Some step of an attempt."""
        return int(self.rng.integers(1, self.world.steps + 1))

    # --- faults; each returns whether it struck

    def _kill_driver(self) -> bool:
        return self.attempt(strike=self.step()).code == -signal.SIGKILL

    def _terminate_driver(self) -> bool:
        # Like Ctrl-C from the first block to the last; before and after, it ends the process.
        done = self.attempt(strike=self.step(), signal=signal.SIGTERM)
        return done.code in (130, -signal.SIGTERM)

    def _interrupt_driver(self) -> bool:
        return self.attempt(strike=self.step(), signal=signal.SIGINT).code == 130

    def _kill_worker(self) -> bool:
        counts = self.rng.integers(1, self.world.blocks + 1, int(self.rng.integers(1, 4)))
        strikes = {int(n): "kill" for n in counts}
        self.attempt(workers=2, worker_strikes=strikes)
        return self._struck(strikes)

    def _stop_worker(self) -> bool:
        strikes = {int(self.rng.integers(1, self.world.blocks + 1)): "stop"}
        self.attempt(workers=2, worker_strikes=strikes)
        return self._struck(strikes)

    def _struck(self, strikes: dict[int, str]) -> bool:
        return any((self.marks / str(count)).exists() for count in strikes)

    def _disk_full(self) -> bool:
        done = self.attempt(file_limit=int(self.rng.integers(50, 4000)))
        if done.code not in (0, 1, 2):
            raise LostError(f"a full disk ended with {done.code}: {done.err}")
        return done.code != 0

    def _read_only_target(self) -> bool:
        done = self.attempt(unprivileged=True)
        if done.code != 2:
            raise LostError(f"a read-only target ended with {done.code}: {done.err}")
        return True

    def _cut_ledger(self) -> bool:
        self.attempt(strike=self.step())
        ledger = self.scratch / "progress.jsonl"
        if self.finished or not ledger.is_file():
            return False
        size = ledger.stat().st_size
        tail = int(self.rng.integers(0, min(size, 400) + 1)) if self.rng.random() < 0.7 else size
        kept = size - int(self.rng.integers(0, tail + 1))
        # A kill cuts the last line at most; whole lines are lost with a disk.
        content = ledger.read_bytes()
        last = content[:-1].rpartition(b"\n")[2]
        # The lines about publishing are on the disk before anything follows them.
        self.damaged |= b"\n" in content[kept:-1] or (kept < size and b"publish" in last)
        with ledger.open("rb+") as file:
            file.truncate(kept)
        return True

    def _stale_ledger(self) -> bool:
        self.attempt(strike=self.step())
        ledger = self.scratch / "progress.jsonl"
        if self.finished or not ledger.is_file() or b"\n" not in (before := ledger.read_bytes()):
            return False
        other = self.world.config.model_copy(update={"stitch_iou": 0.75})
        done = self.attempt(config=other)
        if done.code == 2 and self.damaged and ("existing label" in done.err or MOVE in done.err):
            return False  # what said whose the label is was lost
        if done.code != 2 or "stitch_iou" not in done.err:
            raise LostError(f"a stale ledger ended with {done.code}: {done.err}")
        return ledger.read_bytes()[: len(before) - 500] == before[: len(before) - 500]

    def _damaged_source(self) -> bool:
        """A chunk that cannot be read as it was, and comes back later."""
        if self.rng.random() < 0.5:
            self.attempt(strike=self.step())
        if self.finished or not self._chunks(self.image / "0"):
            return False
        chunk = self._some(self.image / "0")
        sound = chunk.read_bytes()
        self._spoil(chunk, delete=False)
        process = self.start()
        process[0].join(PATIENCE)
        chunk.write_bytes(sound)
        # Success if no block had to be read any more; then the bytes are compared.
        # One chunk may be all that the first blocks read, or all blocks: then the run is given up.
        done = self.end(*process)
        given_up = "all failed" in done.err or "no block has a result" in done.err
        if done.code not in (0, 2, 3) and not (done.code == 1 and given_up):
            raise LostError("a damaged source ended otherwise than refused or with failed blocks")
        return True

    def _deleted_source_chunk(self) -> bool:
        """By the specification it holds zeros, so the undisturbed run must see the same."""
        if self.scratch.exists() or (self.result.exists() and not self.world.in_place):
            return False
        if not self._chunks(self.image / "0"):
            return False
        self._some(self.image / "0").unlink()
        twin = Run(self.campaign, self.world, self.rng, self.place.with_name("twin"))
        shutil.rmtree(twin.image)
        shutil.copytree(self.image, twin.image)
        twin.wanted = {}
        done = twin.attempt()
        if done.code != 0:
            raise LostError(f"a deleted chunk ended with {done.code}: {done.err}")
        self.wanted = store_bytes(twin.result)
        shutil.rmtree(twin.place)
        return True

    def _damaged_staging(self) -> bool:
        self.attempt(strike=self.step())
        files = [
            p for p in self._files(self.scratch) if p.name not in ("progress.jsonl", "lock.json")
        ]
        return self._damage_one(files)

    def _damaged_output(self) -> bool:
        """A file of the unfinished label."""
        self.attempt(strike=self.step())
        label = self.image / "labels" / "label" if self.world.in_place else self.result
        ledger = self.scratch / "progress.jsonl"
        if ledger.is_file() and b'"phase":"published"' in ledger.read_bytes():
            # All is done but the tidying up: the label is in its owner's hands.
            return False
        before = {p: p.read_bytes() for p in self._files(label) if ".partial" not in p.name}
        values = decoded(label)
        struck = self._damage_one(list(before))
        if struck and decoded(label) == values:
            for file, content in before.items():
                if not file.suffix and file.exists():
                    # A bit of a chunk that no decoder looks at: nobody can notice.
                    file.write_bytes(content)
        return struck

    def _damage_one(self, files: list[Path]) -> bool:
        if self.finished or not files:
            return False
        self.damaged = True
        file = files[int(self.rng.integers(len(files)))]
        self.campaign.tell(f"    {self._spoil(file)} {file.relative_to(self.place)}")
        return True

    def _two_runs_at_once(self) -> bool:
        first = self.start()
        time.sleep(float(self.rng.uniform(0, 0.5)))
        second = self.start()
        return self._one_came_through(first, second)

    def _one_came_through(self, *started: Any) -> bool:
        """One of two runs succeeded and the other was refused."""
        for process, _ in started:  # before the first result is looked at
            process.join(PATIENCE)
        codes = sorted(self.end(*one).code for one in started)
        # What was damaged before may be refused, and failed blocks be named, by the one that
        # ran, or by both, one after the other, and the second may mend what the first met.
        if codes != [0, 2] and not (self.damaged and codes in ([2, 2], [2, 3], [3, 3], [0, 3])):
            raise LostError(f"two runs ended with {codes}")
        return True

    def _clock_jump(self) -> bool:
        """Struck at one time, continued at another, beside a run that thinks it is another day."""
        shift = float(self.rng.choice([-1, 1]) * self.rng.uniform(2, 1e6))
        self.attempt(strike=self.step(), clock=shift)
        if self.finished:
            return True
        first = self.start()
        second = self.start(clock=-shift)
        return self._one_came_through(first, second)

    # --- files

    def _files(self, folder: Path) -> list[Path]:
        return sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []

    def _some(self, folder: Path) -> Path:
        files = self._chunks(folder)
        return files[int(self.rng.integers(len(files)))]

    def _chunks(self, folder: Path) -> list[Path]:
        metadata = ("zarr.json", ".zarray", ".zattrs")
        return [p for p in self._files(folder) if p.name not in metadata]

    def _spoil(self, file: Path, *, delete: bool = True) -> str:
        content = bytearray(file.read_bytes())
        how = str(self.rng.choice(["cut", "empty", "flip", *(["delete"] if delete else [])]))
        if how == "delete":
            file.unlink()
        elif how == "empty" or not content:
            file.write_bytes(b"")
        elif how == "cut":
            file.write_bytes(content[: int(self.rng.integers(len(content)))])
        else:
            content[int(self.rng.integers(len(content)))] ^= 1 << int(self.rng.integers(8))
            file.write_bytes(content)
        return how
