"""Progress of long work: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Display", "progress"]


class Display(Protocol):
    """Where long work says how far it is."""

    def update(self, phase: str, done: int, total: int, detail: str = "") -> None:
        """Show that `done` of `total` steps of a phase are done; a new name begins a phase."""

    def note(self, text: str) -> None:
        """Show a line that stays."""


class _Live:
    """One bar per phase, redrawn in place."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def update(self, phase: str, done: int, total: int, detail: str = "") -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(escape(phase), total=total, detail="")
        self._bars.update(
            self._tasks[phase], completed=done, total=total, detail=escape(detail), refresh=True
        )

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


class _Lines:
    """A line when a phase begins and ends, and between them every `interval` seconds."""

    def __init__(self, console: Console, interval: float) -> None:
        self._console, self._interval = console, interval
        self._phase = ""
        self._begin = self._last = 0.0
        self._first_done = 0

    def update(self, phase: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._begin, self._first_done = phase, now, done
        elif done < total and now - self._last < self._interval:
            return
        self._last = now
        parts = [f"{phase} {done}/{total}", detail, self._remaining(done, total, now)]
        self.note(", ".join(part for part in parts if part))

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _remaining(self, done: int, total: int, now: float) -> str:
        """Time left at the pace since the phase began; what was resumed took no time."""
        fresh = done - self._first_done
        if fresh <= 0 or done >= total:
            return ""
        seconds = round((now - self._begin) / fresh * (total - done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"


@contextmanager
def progress(console: Console | None = None, *, interval: float = 10.0) -> Iterator[Display]:
    """Show progress while the block runs.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to; by default standard error.
    interval : float
        Seconds between lines of one phase where there is no terminal.

    Yields
    ------
    Display
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console, interval)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", style="dim"),
    )
    with Progress(*columns, console=console) as bars:
        yield _Live(bars)
