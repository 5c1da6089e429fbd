"""Progress of long work: a live display in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import IO, TYPE_CHECKING, Protocol

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

from spoco_zoo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["Display", "printable", "progress"]


def printable(text: str) -> str:
    """One line that no terminal takes for a command, whatever the names in it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


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
        new = phase not in self._tasks
        if new:
            self._tasks[phase] = self._bars.add_task(escape(phase), total=total, detail="")
        self._bars.update(
            self._tasks[phase],
            completed=done,
            total=total,
            detail=escape(printable(detail)),
            # In between they are redrawn ten times a second; for each of a million items it took
            # longer than many items.
            refresh=new or done >= total,
        )

    def note(self, text: str) -> None:
        self._bars.console.print(printable(text), markup=False, highlight=False)


class _StandardError(Console):
    """Standard error; a pipe whose reader has ended takes no more lines, and the work goes on."""

    def __init__(self) -> None:
        super().__init__(stderr=True)

    def on_broken_pipe(self) -> None:
        """Without this it would end the process."""
        self.quiet = True


class _Lines:
    """A line when a phase begins and ends, and between them every `interval` seconds.

    They may go to a file: on a full disk they end, and the work goes on.
    """

    full = False

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
        if self.full:
            return
        try:
            self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        except OSError as error:
            self.full = True
            self._ended(str(error.strerror))

    def _ended(self, reason: str) -> None:
        """Say that no more lines come, where there is somewhere to say it."""

    def _remaining(self, done: int, total: int, now: float) -> str:
        """Time left at the pace since the phase began; what was resumed took no time."""
        fresh = done - self._first_done
        if fresh <= 0 or done >= total:
            return ""
        seconds = round((now - self._begin) / fresh * (total - done))
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} left"


class _Log(_Lines):
    """Plain lines with the time of day."""

    def __init__(self, console: Console, interval: float, on_full: Callable[[], None]) -> None:
        super().__init__(console, interval)
        self._on_full = on_full

    def note(self, text: str) -> None:
        super().note(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z} {text}")

    def _ended(self, reason: str) -> None:
        _Lines(_StandardError(), self._interval).note(
            f"spoco-zoo: the log file ends here: {reason}"
        )
        self._on_full()


class _Several:
    """One display that stands for several."""

    def __init__(self, displays: Sequence[Display]) -> None:
        self._displays = displays

    def update(self, phase: str, done: int, total: int, detail: str = "") -> None:
        for display in self._displays:
            display.update(phase, done, total, detail)

    def note(self, text: str) -> None:
        for display in self._displays:
            display.note(text)


@contextmanager
def progress(
    console: Console | None = None,
    *,
    interval: float = 10.0,
    quiet: bool = False,
    log: Path | None = None,
    on_full: Callable[[], None] = lambda: None,
) -> Iterator[Display]:
    """Show progress while the block runs.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to; by default standard error.
    interval : float
        Seconds between lines of one phase where there is no terminal.
    quiet : bool
        Show nothing.
    log : Path, optional
        File that gets every line with its time as well, after what it holds.
    on_full : callable, optional
        Called when there is no room for more lines in it.

    Yields
    ------
    Display

    Raises
    ------
    ConfigError
        If the log cannot be written.
    """
    with ExitStack() as stack:
        displays: list[Display] = []
        if log is not None:
            file = stack.enter_context(_opened(log))
            displays.append(_Log(Console(file=file), interval, on_full))
        if not quiet:
            displays.append(stack.enter_context(_shown(console, interval)))
        yield displays[0] if len(displays) == 1 else _Several(displays)


@contextmanager
def _opened(log: Path) -> Iterator[IO[str]]:
    try:
        if log.is_file():
            with log.open("rb") as known:
                if b"\0" in known.read(4096):
                    raise ConfigError(
                        "the log file must be text", f"something else in {log}", "Choose another."
                    )
        # Line by line, so that it can be followed and survives a kill.
        file = log.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise ConfigError(
            "the log file must be writable", f"{error.strerror} ({log})", "Choose another."
        ) from error
    try:
        yield file
    finally:
        with suppress(OSError):  # what did not fit on the disk is tried again
            file.close()


@contextmanager
def _shown(console: Console | None, interval: float) -> Iterator[Display]:
    """What the person at the terminal sees."""
    console = console or _StandardError()
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
