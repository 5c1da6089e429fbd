"""One process at a time in a run folder, or at work on one output."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
from itertools import count
from typing import TYPE_CHECKING, Any

import psutil

from spoco_zoo.errors import LedgerError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "FORMER",
    "LOCK",
    "WORK",
    "RunLock",
    "alone_in",
    "clear_locked",
    "put_in_place",
    "workplace",
]

LOCK = "lock.json"
WORK = "work"
"""Folder in a workplace for all that is made there: threads of a writer that was interrupted may
leave something in it even after it was cleared."""
FORMER = "former"
"""What a workplace's target was, while something else takes its place."""


class RunLock:
    """Keeps a second process out of a run folder. A context manager.

    A process of this host is kept out by the operating system, which knows when
    the holder is gone, whatever the clock says. Other hosts may not see that, so
    the file also names its holder. A job that SLURM starts again takes over what its
    first start held, on whichever host: SLURM ends that one before.

    Parameters
    ----------
    folder : Path
        The run folder; must exist.

    Raises
    ------
    LedgerError
        On entry, if a living process holds the folder, or one on another host
        might.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file = -1
        self._mine: dict[str, Any] | None = None

    def __enter__(self) -> RunLock:
        while not self._is_ours():
            # The last holder removed the file between our opening and locking it.
            pass
        try:
            self._refuse_a_living_holder()
            me = {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "started": psutil.Process().create_time(),
                **_slurm_job(),
            }
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(me).encode(), 0)
            self._mine = self._read()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        # Not the lock of whoever took this one over, or whose file is in its place: to be told
        # that a holder is gone for good is no proof.
        ours = False
        with contextlib.suppress(OSError):  # what another host removed cannot be read any more
            ours = self._is_there() and self._read() == self._mine
        if ours:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _is_ours(self) -> bool:
        """Open and lock the file; False if it is no longer the one in the folder."""
        # No link: what it led to would be overwritten.
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._read()
            os.close(self._file)
            raise self._held(f"process {holder['pid']}" if holder else "another process") from None
        except OSError:
            # A file system without locks: the holder's name in the file must do.
            return True
        if self._is_there():
            return True
        os.close(self._file)
        return False

    def _is_there(self) -> bool:
        """Whether the open file is the one in the folder."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _read(self) -> dict[str, Any] | None:
        """Who is named in the file; None if it is empty or was cut while being written."""
        try:
            holder = json.loads(os.pread(self._file, 4096, 0))
            return {
                "pid": int(holder["pid"]),
                "host": str(holder["host"]),
                "started": float(holder["started"]),
                "job": str(holder.get("job", "")),
                "restarts": int(holder.get("restarts", 0)),
            }
        except (ValueError, KeyError, TypeError):
            return None

    def _refuse_a_living_holder(self) -> None:
        """Raise if the file names a process of another host, or one of this host that is there."""
        holder = self._read()
        if holder is None:
            return
        if holder["host"] == socket.gethostname():
            living = _is_alive(holder["pid"], holder["started"])
        else:
            living = not _is_former_start(holder)
        if living:
            job = f" (SLURM job {holder['job']})" if holder["job"] else ""
            raise self._held(f"process {holder['pid']} on {holder['host']}{job}")

    def _held(self, holder: str) -> LedgerError:
        return LedgerError(
            "one run at a time may write to an output",
            f"{holder} at work in {self.path.parent}",
            f"Wait for it; if it is gone for good, delete {self.path}.",
        )


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes out of it; of what was made, remove what stays empty.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    LedgerError
        If another process holds it; see `RunLock`.
    StoreError
        If something else has its name.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise StoreError(
            "a run needs a folder for its files", f"a file at {folder}", "Move it away."
        ) from None
    try:
        with RunLock(folder):
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty, or another process is at work there
            for place in (folder, *made):
                place.rmdir()


@contextlib.contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """Give a folder in a hidden one beside `target`, for one process to make it in.

    It is gone afterwards. Its name is always the same, so that what a killed process left there is
    cleared by the next one with the same target.

    Parameters
    ----------
    target : Path
        Its folder must exist.

    Raises
    ------
    LedgerError
        If another process is making the same.
    StoreError
        If the folder holds something else.
    """
    folder = target.with_name(f".{target.name}.partial")
    folder.mkdir(exist_ok=True)
    names = {path.name for path in folder.iterdir()} - {LOCK, WORK}
    if names:
        raise StoreError(
            "the folder for unfinished work must be left to this program",
            f"{min(names)!r} in {folder}",
            "Move that folder away, or name another output.",
        )
    with alone_in(folder):
        work = folder / WORK
        if (work / FORMER).exists() and not target.exists():
            (work / FORMER).rename(target)
        clear_locked(folder)
        work.mkdir()
        try:
            yield work
        finally:
            with contextlib.suppress(OSError):  # see `WORK`
                clear_locked(folder)


def put_in_place(finished: Path, target: Path, aside: Path) -> None:
    """Give what was made in a workplace its name.

    Parameters
    ----------
    finished : Path
        File or folder in the workplace of `target`.
    target : Path
        May be there already.
    aside : Path
        `FORMER` in the workplace: there a folder that is there steps until that is done.
    """
    if not os.path.lexists(target) or not (finished.is_dir() or target.is_dir()):
        finished.replace(target)
        return
    target.rename(aside)
    try:
        finished.rename(target)
    except BaseException:
        aside.rename(target)
        raise


def clear_locked(
    folder: Path,
    keep: tuple[str, ...] = (),
    last: str = "",
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Empty a folder but for its lock and the names that are to be kept; one of them goes last.

    Parameters
    ----------
    folder : Path
    keep : tuple of str
    last : str
    tell : callable, optional
        Told how many files are gone, and of how many. It may raise: the rest then stays.
    """
    going = sorted(folder.iterdir(), key=lambda p: p.name == last)
    going = [path for path in going if path.name not in (LOCK, *keep)]
    if tell is not None:
        # What a link leads to is none of the folder's.
        trees = [path for path in going if not path.is_symlink()]
        total = sum(len(names) for path in trees for _, _, names in os.walk(path))
        gone = count(1)
        for path in trees:
            for place, _, names in os.walk(path, topdown=False):
                for name in names:
                    os.unlink(os.path.join(place, name))
                    tell(next(gone), total)
    for path in going:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _is_alive(pid: int, started: float) -> bool:
    """Whether the process is the one that began then, and not a later one with its number."""
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < 1)
    except psutil.NoSuchProcess:
        return False


def _slurm_job() -> dict[str, Any]:
    """The job that this process is part of, and how often it was started again; empty if none."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return {}
    cluster, restarts = map(os.environ.get, ("SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"))
    name = f"{job} of {cluster}" if cluster else job
    return {"job": name, "restarts": int(restarts) if restarts and restarts.isdecimal() else 0}


def _is_former_start(holder: dict[str, Any]) -> bool:
    """Whether a holder belongs to an earlier start of this process's job."""
    me = _slurm_job()
    return bool(me) and me["job"] == holder["job"] and me["restarts"] > holder["restarts"]
