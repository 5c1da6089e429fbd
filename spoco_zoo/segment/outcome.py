"""What a run says while it goes on, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spoco_zoo.segment.ledger import PROGRESS
from spoco_zoo.workplace import clear_locked

__all__ = [
    "Event",
    "Failure",
    "SegmentResult",
    "Tell",
    "clear_folder",
    "quietly",
]

Tell = Callable[[int, int], None]
"""Told how much of something long is done, and how much there is."""


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


def clear_folder(folder: Path, keep: tuple[str, ...] = (), tell: Tell | None = None) -> None:
    """Empty a run folder but for its lock and what is to be kept; the ledger goes last."""
    clear_locked(folder, keep, PROGRESS, tell)


def quietly(done: int, total: int) -> None:
    """Tell nobody."""
