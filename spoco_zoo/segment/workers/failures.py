"""What a failure of one item means for the others, and the line that says so."""

from __future__ import annotations

from spoco_zoo.errors import RemoteError, SpocoError, causes, is_full, lacks_room

__all__ = ["ends_run", "innermost", "no_room", "reason_of"]


def ends_run(error: BaseException) -> bool:
    """Whether everything else would fail too: the disk is full, the object store is away."""
    return lacks_room(error) or isinstance(error, RemoteError)


def no_room(error: BaseException) -> SpocoError:
    """What a run ends with when there was no room to write, which an error was made of."""
    reason = next((e.strerror for e in causes(error) if isinstance(e, OSError) and is_full(e)), "")
    return SpocoError(f"the disk is full: {reason}. Free some; the same command goes on.")


def innermost(error: BaseException) -> BaseException:
    """What an error began with."""
    return list(causes(error))[-1]


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong."""
    text = " ".join(str(error).split())
    return text if isinstance(error, SpocoError) else f"{type(error).__name__}: {text}"[:300]
