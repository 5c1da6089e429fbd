"""A nanny that gives up when its worker dies before it ever worked."""

from __future__ import annotations

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
