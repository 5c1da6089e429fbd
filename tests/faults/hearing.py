"""Processes that hear signals, though the tests run under nohup or in the background."""

from __future__ import annotations

import signal

__all__ = ["all_ears"]


def all_ears() -> None:
    """Undo what was inherited; for ``preexec_fn``."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
