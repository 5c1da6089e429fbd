"""Ctrl-C: the first asks for an end after the items in flight, the second ends at once."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from spoco_zoo.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Stop", "catch_interrupt", "shielded_children"]

Item = TypeVar("Item")


class Stop:
    """Whether an end was asked for."""

    def __init__(self) -> None:
        self.asked = False

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
def catch_interrupt(told: Callable[[], None]) -> Iterator[Stop]:
    """Turn the first Ctrl-C into a request while the block runs.

    Only the main thread of a program may do so; in another one Ctrl-C stays
    what it is.

    Parameters
    ----------
    told : callable
        Called once, when an end is asked for.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        stop.asked = True
        signal.signal(signal.SIGINT, before)
        told()

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def shielded_children() -> Iterator[None]:
    """Let processes that start in the block ignore Ctrl-C, which a terminal sends to all.

    Workers must live to finish what is in flight; their driver ends them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
