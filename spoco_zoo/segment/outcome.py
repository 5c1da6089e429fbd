"""What a run says while it goes on, and what it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spoco_zoo.errors import SpocoError, StoreError
from spoco_zoo.locking import clear_locked
from spoco_zoo.ngff.image import UNREADABLE
from spoco_zoo.segment.ledger import PROGRESS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.segment.tasks import BlockResult, FaceResult

__all__ = [
    "Count",
    "Event",
    "Failure",
    "SegmentResult",
    "Tell",
    "block_entry",
    "clear_folder",
    "face_entry",
    "failed_text",
    "no_result",
    "quietly",
]

Tell = Callable[[int, int], None]
"""Told how much of something long is done, and how much there is."""

HOPELESS = 8
"""So many failures without one success ever end a phase: the next item would fail too."""


@dataclass(frozen=True)
class Event:
    """Progress of a run, for whoever shows it."""

    phase: str
    done: int
    total: int
    message: str = ""


@dataclass(frozen=True)
class Failure:
    """An item that has no result."""

    phase: str
    place: str
    reason: str


@dataclass(frozen=True)
class SegmentResult:
    """A finished run."""

    output: str
    """The label image."""
    report: Path
    """JSON file with everything that was measured."""
    objects: int
    blocks: int
    resumed: int
    """Blocks that an earlier, unfinished run had done."""
    summary: dict[str, Any] = field(repr=False)
    """Content of the report."""


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


def clear_folder(folder: Path, keep: tuple[str, ...] = (), tell: Tell | None = None) -> None:
    """Empty a run folder but for its lock and what is to be kept; the ledger goes last."""
    clear_locked(folder, keep, PROGRESS, tell)


def quietly(done: int, total: int) -> None:
    """Tell nobody."""
