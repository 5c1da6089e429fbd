"""What a failure of one item means for the others, and the line that says so."""

from __future__ import annotations

import errno

from spoco_zoo.errors import RemoteError, SpocoError

__all__ = ["ends_run", "innermost", "is_full", "no_room", "reason_of"]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def ends_run(error: BaseException) -> bool:
    """Whether everything else would fail too: the disk is full, the object store is away."""
    return is_full(error) or isinstance(error, RemoteError)


def is_full(error: BaseException) -> bool:
    """Whether there was no room to write: on the disk, in the quota, or in one file."""
    return isinstance(error, OSError) and error.errno in FULL


def no_room(error: OSError) -> SpocoError:
    """What a run ends with when there was no room to write."""
    return SpocoError(f"the disk is full: {error.strerror}. Free some; the same command goes on.")


def innermost(error: BaseException) -> BaseException:
    """What an error began with."""
    while inner := error.__cause__ or (not error.__suppress_context__ and error.__context__):
        error = inner
    return error


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SpocoError) else f"{type(error).__name__}: {text}"[:300]
