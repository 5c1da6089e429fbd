"""A nanny that gives up when its worker dies before it ever worked."""

from __future__ import annotations

import asyncio
import time

from distributed import Nanny, Status

__all__ = ["FirmNanny"]


class FirmNanny(Nanny):
    """Starts a worker again that dies at work, but not one that never came up.

    Before distributed 2026.8, `Nanny` does so without end: a script that starts workers while a
    worker imports it would be started for ever.
    """

    _tried = False

    async def instantiate(self) -> Status:
        """See `Nanny.instantiate`.

        Raises
        ------
        RuntimeError
            If the first worker has died before it was up.
        """
        if self._tried and self.status in (Status.init, Status.starting):
            raise RuntimeError("the worker died before it was up")
        self._tried = True
        return await super().instantiate()

    async def kill(self, timeout: float = 5, reason: str = "nanny-kill") -> None:
        """See `Nanny.kill`.

        Where the end comes while a worker is started again, distributed (2026.8 at least) breaks
        off the wait for its process and then kills one that is not there yet, which fails.
        """
        latest = time.monotonic() + timeout
        while self._is_coming():
            if time.monotonic() > latest:
                return
            await asyncio.sleep(0.05)
        await super().kill(timeout=timeout, reason=reason)

    def _is_coming(self) -> bool:
        """Whether a process was asked for that has not begun."""
        process = self.process and self.process.process
        return process is not None and process.pid is None
