"""What a run notes of its items, counts of them and tells: ledger, failures, events, times."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from spoco_zoo.errors import SpocoError, StoreError
from spoco_zoo.ngff.image import UNREADABLE
from spoco_zoo.segment.outcome import Event, Failure
from spoco_zoo.segment.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from spoco_zoo.segment.execute import Executor
    from spoco_zoo.segment.ledger import Ledger
    from spoco_zoo.segment.plan import Plan
    from spoco_zoo.segment.tasks import BlockResult, FaceResult

__all__ = ["Books", "Count", "block_entry", "face_entry", "failed_text", "no_result"]

OFTEN = 1000
"""Files that the driver reads, or pieces, after which it says so."""
HOPELESS = 8
"""So many failures without one success ever end a phase: the next item would fail too."""


class Count:
    """Counts the items of one phase, and tells of each.

    Parameters
    ----------
    name : str
        Of the phase.
    total, done : int
        Items, and those of them that an earlier run has done.
    on_event : callable
    failures : list of Failure
        To which failures are added.
    seconds : dict
        Gets the time of the phase.
    hope : bool
        Whether any item of the phase has ever succeeded, in whichever process.
    """

    def __init__(
        self,
        name: str,
        total: int,
        done: int,
        on_event: Callable[[Event], None],
        failures: list[Failure],
        seconds: dict[str, float],
        *,
        hope: bool,
    ) -> None:
        self.name, self.total, self.done, self._hope = name, total, done, hope
        self._on_event, self._failures, self._seconds = on_event, failures, seconds
        self._good = self._bad = self._odd = 0
        self._began = time.perf_counter()
        on_event(Event(name, done, total))

    def succeeded(self) -> None:
        """One more is done."""
        self._good, self._hope = self._good + 1, True
        self._tell("")

    def failed(self, place: str, reason: str) -> None:
        """One more has no result.

        Raises
        ------
        SpocoError
            If this is the last of many and none has succeeded.
        """
        self._bad += 1
        self._failures.append(Failure(self.name, place, reason))
        # Damage of the image is somewhere: all of it was found readable, or nearly, before.
        self._odd += not reason.startswith(UNREADABLE)
        if self._odd >= HOPELESS and not self._hope:
            raise SpocoError(f"{self.name}: the first {self._bad} all failed; {reason}")
        self._tell(f"{place}: {reason}")

    def close(self) -> None:
        """The phase is over."""
        self._seconds[self.name] = time.perf_counter() - self._began

    def _tell(self, message: str) -> None:
        done = self.done + self._good + self._bad
        self._on_event(Event(self.name, done, self.total, message))


class Books:
    """The books of one run, and the one way in which its phases go through their items.

    Parameters
    ----------
    plan : Plan
    ledger : Ledger
        What earlier processes have done is read from it.
    executor : Executor
    on_event : callable
        Told after every item.

    Attributes
    ----------
    progress : Progress
    resumed : int
        Blocks that earlier processes had done.
    failures : list of Failure
        Items without a result, kept for the end.
    seconds : dict of str to float
        Time of each phase in this process.
    """

    def __init__(
        self, plan: Plan, ledger: Ledger, executor: Executor, on_event: Callable[[Event], None]
    ) -> None:
        self.ledger, self.executor, self.on_event = ledger, executor, on_event
        self._grid, self._start = plan.grid, plan.region.start
        self.progress = Progress(plan.grid.total)
        for entry in ledger.entries():
            self.progress.add(entry)
        self.resumed = self.progress.blocks_done
        self.failures: list[Failure] = []
        self.seconds: dict[str, float] = {}

    def pending(self) -> Iterator[int]:
        """Blocks without a result."""
        return (n for n in range(self._grid.total) if not self.progress.has_block(n))

    def place(self, number: int) -> str:
        """A block as people are told of it."""
        grid = self._grid
        when = f"time {grid.time(number)}, " if grid.times > 1 else ""
        return f"block {number} ({when}{grid.core(number).shifted(self._start)})"

    def record(self, entry: dict[str, Any]) -> None:
        """Add a line to the ledger."""
        self.ledger.append(entry)
        self.progress.add(entry)

    def record_later(self, entry: dict[str, Any]) -> None:
        """Add a line of what follows the blocks, which counts for so many of them."""
        self.record({**entry, "epoch": self.progress.epoch})

    def record_new(self, entry: dict[str, Any], crc: int | None) -> None:
        """Record what was written, but not what an earlier process wrote and recorded."""
        if crc is not None:
            self.record_later({**entry, "crc": crc})

    def note_gap(self) -> None:
        """Record that something has no result: the next process looks for what is damaged."""
        if not self.progress.gap:
            self.record_later({"phase": "gap"})

    @contextmanager
    def noting_damage(self) -> Iterator[None]:
        """Of staged files that the driver itself reads."""
        try:
            yield
        except StoreError:
            self.note_gap()
            raise

    def tell(self, name: str, done: int, total: int, often: int = 0) -> None:
        """Tell of what the driver does by itself, where that is long, and end if it is asked to."""
        if done and done % (often or OFTEN) == 0:
            self.executor.stop.check()
            self.on_event(Event(name, done, total))

    def each_time(self, times: set[int]) -> Iterator[int]:
        """Time points in order, told of one by one."""
        for done, when in enumerate(sorted(times)):
            self.tell("statistics", done, len(times), often=1)
            yield when

    def count(self, name: str, kind: str, total: int, done: int) -> Count:
        """Counts the items of a phase, whose ledger lines are of a kind."""
        hope = kind in self.progress.succeeded
        return Count(name, total, done, self.on_event, self.failures, self.seconds, hope=hope)

    def phase(
        self,
        name: str,
        kind: str,
        task: Callable[[Any], Any],
        items: Iterable[Any],
        total: int,
        done: int,
        on_result: Callable[[Any, Any], None],
        place: Callable[[Any], str],
    ) -> None:
        """Run one phase, whose ledger lines are of a kind; failures are kept for the end."""
        count = self.count(name, kind, total, done)

        def success(item: Any, result: Any) -> None:
            on_result(item, result)
            count.succeeded()

        def fail(item: Any, reason: str) -> None:
            self.note_gap()
            count.failed(place(item), reason)

        self.executor.run(task, items, success, fail)
        count.close()


def block_entry(number: int, result: BlockResult) -> dict[str, Any]:
    """The ledger line of a finished block."""
    return {
        "phase": "block",
        "n": number,
        "objects": result.objects,
        "owned": result.owned,
        "crc": result.checksum,
        "tally": asdict(result.tally),
    }


def face_entry(number: int, result: FaceResult) -> dict[str, Any]:
    """The ledger line of a block whose faces are matched."""
    doubts = [doubt.to_dict() for doubt in result.doubts]
    return {"phase": "face", "n": number, "tally": asdict(result.tally), "doubts": doubts}


def failed_text(failures: Sequence[Failure], output: str) -> str:
    """What has no result, in one line."""
    named = "; ".join(f"{f.phase} {f.place}: {f.reason}" for f in failures[:5])
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return (
        f"{len(failures)} without result: {named}{more}. "
        f"The rest is in {output}; the same command tries these again."
    )


def no_result(failures: Sequence[Failure]) -> SpocoError:
    """What to raise where no block has a result: of an image of which nothing can be read, that."""
    reason = failures[0].reason
    if all(failure.reason.startswith(UNREADABLE) for failure in failures):
        rule, _, rest = reason.partition("; found ")
        found, _, remedy = rest.rpartition(". ")
        return StoreError(rule, found, remedy)
    return SpocoError(f"no block has a result; {reason}")
