"""A hidden folder to make something in, beside the place where it will lie."""

from __future__ import annotations

import contextlib
import os
import shutil
from itertools import count
from typing import TYPE_CHECKING

from spoco_zoo.errors import StoreError
from spoco_zoo.locking import LOCK, alone_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["FORMER", "WORK", "clear_locked", "put_in_place", "workplace"]

WORK = "work"
"""Folder in a workplace for all that is made there: threads of a writer that was interrupted may
leave something in it even after it was cleared."""
FORMER = "former"
"""What a workplace's target was, while something else takes its place."""


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
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    names: set[str] = set()
    # Another process may just be done with it; of a file `alone_in` tells.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
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
