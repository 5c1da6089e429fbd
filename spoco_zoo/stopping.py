"""Ctrl-C and its like: the first asks for an end after what is in flight, the second is final."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from spoco_zoo.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = [
    "STOP",
    "Stop",
    "catch_interrupt",
    "heard_as_ctrl_c",
    "ignore_signals",
    "shielded_children",
]

Item = TypeVar("Item")
STOP = "stop"
"""Mark in the run folder."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what schedulers and containers send before they kill, and the end of a terminal."""


class Stop:
    """Whether an end was asked for, by this process or, where they share a mark, by another.

    Parameters
    ----------
    mark : Path, optional
        A file that is there once an end was asked for.
    """

    def __init__(self, mark: Path | None = None) -> None:
        self._mark, self._asked = mark, False

    @property
    def asked(self) -> bool:
        """Whether it is time to end."""
        return self._asked or (self._mark is not None and self._mark.exists())

    def ask(self) -> None:
        """Ask all who share the mark for an end."""
        self._asked = True
        if self._mark is not None:
            # Without a mark (a full disk) workers end a little later.
            with suppress(OSError):
                self._mark.touch()

    def until(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until an end is asked for."""
        for item in items:
            if self.asked:
                return
            yield item

    def check(self) -> None:
        """Raise `Interrupted` if an end was asked for."""
        if self.asked:
            raise Interrupted("stopped after the blocks in flight")


@contextmanager
def catch_interrupt(told: Callable[[], None], mark: Path | None = None) -> Iterator[Stop]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request while the block runs.

    Only the main thread of a program may catch signals; in another one they stay what they are.

    Parameters
    ----------
    told : callable
        Called when an end is asked for: once for each of the signals.
    mark : Path, optional
        Through which other processes are told; one that an earlier run left is removed.
    """
    if mark is not None:
        mark.unlink(missing_ok=True)
    stop = Stop(mark)

    def ask(number: int, frame: Any) -> None:
        stop.ask()
        # The same signal again ends at once; not another one: torchrun sends its processes
        # SIGTERM when it gets Ctrl-C, as they do.
        signal.signal(number, before[number])
        with suppress(OSError):  # whoever listened may be gone: Ctrl-C ends a `tee` as well
            told()

    try:
        with _handling(dict.fromkeys(_heard(*SIGNALS), ask)) as before:
            yield stop
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)


@contextmanager
def heard_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `KeyboardInterrupt` while the block runs, as Ctrl-C does.

    What is half done is then cleared by whoever began it, instead of being left behind.
    """

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handling(dict.fromkeys(_heard(signal.SIGTERM, signal.SIGHUP), end)):
        yield


@contextmanager
def shielded_children() -> Iterator[None]:
    """Let processes that start in the block ignore what their driver hears.

    A terminal sends Ctrl-C to all processes of a group, and SLURM SIGTERM to all of a step. Workers
    must live to finish what is in flight; their driver ends them, and they end if it dies.
    """
    with _handling(dict.fromkeys(SIGNALS, signal.SIG_IGN)):
        yield


def ignore_signals(worker: int = 0) -> None:
    """Ignore what the driver hears, from within a worker: torch's set SIGTERM anew at their start.

    Parameters
    ----------
    worker : int
        Its number, which torch's ``worker_init_fn`` is given.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _heard(*numbers: signal.Signals) -> list[signal.Signals]:
    """The signals, without SIGHUP under nohup."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in numbers if number != signal.SIGHUP or not nohup]


@contextmanager
def _handling(handlers: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """Set handlers while the block runs, in the main thread alone; yields those of before."""
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    # None stands for a handler that was not set from Python, and cannot be set again.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in handlers}
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
