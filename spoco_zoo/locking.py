"""One process at a time in a run folder, or at work on one output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from spoco_zoo.errors import LedgerError, SpocoError, StoreError
from spoco_zoo.holder import Holder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LOCK", "RunLock", "alone_in"]

LOCK = "lock.json"
BEAT = 5.0
"""Seconds between two touches of a lock by its holder."""
SILENCE = 90.0
"""Seconds without a touch after which a holder that cannot be seen may be gone: a busy process
may miss some."""
WATCH = 15.0
"""Seconds for which such a lock is then watched, as clocks may differ or jump."""
TRIES = 100
"""How often a folder is made again that others, who find it empty, remove meanwhile."""


class RunLock:
    """Keeps a second process out of a run folder. A context manager.

    A process under the same kernel, in another container too, is kept out by the operating
    system, which knows when the holder is gone, whatever the clock says. Where a file system has
    no locks, and of other machines, it may not know; so the file also names its holder, who
    touches it every few seconds: one who has not done so for `SILENCE`, and does not while it is
    watched for `WATCH`, is gone. A job that SLURM starts again takes over at once what its first
    start held: SLURM ends that one before.

    A holder whose lock was taken over after all (it was stopped, or out of reach) learns of it
    from `check`.

    Parameters
    ----------
    folder : Path
        The run folder; must exist.

    Raises
    ------
    LedgerError
        On entry, if a living process holds the folder, or one on another machine
        might.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file = -1
        self._mine = Holder.me()
        self._ended = threading.Event()
        self._lost = False
        self._beats = threading.Thread(target=self._beat, name="lock", daemon=True)

    def __enter__(self) -> RunLock:
        while (locked := self._opened()) is None:
            # The last holder removed the file between our opening and locking it.
            pass
        try:
            self._refuse_a_living_holder(locked)
            try:
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, self._mine.text(), 0)
                self._beats.start()
            except BaseException:  # a full disk, above all
                self.path.unlink(missing_ok=True)
                raise
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._ended.set()
        try:
            self._beats.join()
            # Not the lock of whoever took this one over, or whose file is in its place: to be told
            # that a holder is gone for good is no proof.
            ours = False
            with contextlib.suppress(OSError):  # what another host removed cannot be read any more
                ours = self._is_ours()
            if ours:
                self.path.unlink(missing_ok=True)
        finally:  # also for Ctrl-C, after which a notebook goes on
            os.close(self._file)

    def check(self) -> None:
        """Raise `SpocoError` if the lock is no longer this process's own."""
        if self._lost:
            # No `InputError`, after which a run takes back what it began: that is another's now.
            raise SpocoError(
                f"the lock of this run, {self.path}, was removed or taken over by another process, "
                "which took this one to be gone; if none is at work there, the same command goes on"
            )

    def _opened(self) -> bool | None:
        """Open the file and lock it, if that can be done here; None if it is another one by now."""
        # No link: what it led to would be overwritten.
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read()
            os.close(self._file)
            raise self._held(str(holder or "another process")) from None
        except OSError:
            # A file system without locks: the holder's name in the file must do.
            return False
        if self._is_there():
            return True
        os.close(self._file)
        return None

    def _is_there(self) -> bool:
        """Whether the open file is the one in the folder."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ESTALE:  # a server's, removed by another machine
                return False
            raise

    def _is_ours(self) -> bool:
        return self._is_there() and self._read() == self._mine

    def _read(self) -> Holder | None:
        return Holder.parse(os.pread(self._file, 4096, 0))

    def _beat(self) -> None:
        """Touch the file for as long as it is ours."""
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # a server out of reach may come back
                if not self._is_ours():
                    self._lost = True
                    return
                os.utime(self._file)

    def _refuse_a_living_holder(self, locked: bool) -> None:
        """Raise if the file names a process that is there, or may be."""
        holder = self._read()
        if holder is None or holder.is_former_start or (locked and holder.is_near):
            return
        if holder.is_near and holder.host == self._mine.host:
            if holder.is_alive:
                raise self._held(str(holder))
            return
        touched = os.stat(self.path).st_mtime
        silent = self._clock() - touched
        # An earlier version leaves no touches, and a clock that was set back tells nothing of them.
        if not holder.beats or silent < 0:
            raise self._held(str(holder))
        if silent < SILENCE:
            raise self._held(
                f"{holder}, seen {silent:.0f} s ago,",
                f"Wait for it; if it is gone, repeat this in {SILENCE - silent:.0f} s.",
            )
        if self._is_touched():
            raise self._held(str(holder))

    def _clock(self) -> float:
        """The time by the clock of the file system, which may be that of a server."""
        with tempfile.TemporaryFile(dir=self.path.parent) as file:
            return os.fstat(file.fileno()).st_mtime

    def _is_touched(self) -> bool:
        """Whether somebody touches the file, or puts another one in its place, while we look."""
        first, end = self._state(), time.monotonic() + WATCH
        while time.monotonic() < end:
            time.sleep(BEAT / 5)
            if self._state() != first:
                return True
        return False

    def _state(self) -> tuple[int, int] | None:
        """What changes with a touch; the file is opened because servers answer anew to that."""
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                return state.st_mtime_ns, state.st_ino
        except OSError:
            return None

    def _held(self, holder: str, remedy: str = "") -> LedgerError:
        return LedgerError(
            "one run at a time may write to an output",
            f"{holder} at work in {self.path.parent}",
            remedy or f"Wait for it; if it is gone for good, delete {self.path}.",
        )


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[RunLock]:
    """Make a folder and keep other processes out of it; of what was made, remove what stays empty.

    Parameters
    ----------
    folder : Path

    Yields
    ------
    RunLock

    Raises
    ------
    LedgerError
        If another process holds it; see `RunLock`.
    StoreError
        If something else has its name.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        with contextlib.ExitStack() as held:
            yield _hold(folder, held)
    finally:
        with contextlib.suppress(OSError):  # not empty, or another process is at work there
            for place in (folder, *made):
                place.rmdir()


def _hold(folder: Path, held: contextlib.ExitStack) -> RunLock:
    """Make a folder and lock it until `held` ends."""
    for tries_left in reversed(range(TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return held.enter_context(RunLock(folder))
        except (FileExistsError, FileNotFoundError):
            if os.path.lexists(folder) and not folder.is_dir():
                raise StoreError(
                    "a run needs a folder for its files", f"a file at {folder}", "Move it away."
                ) from None
            # Its last holder removed the folder between our making and locking it.
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")
