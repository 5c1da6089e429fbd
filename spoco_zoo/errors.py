"""What can go wrong, and the exit code that the command line gives it.

::

    SpocoError                       1   the work failed; so does all that finds no room
    +-- InputError (ValueError)      2   the user can mend it: one line, three parts
    |   +-- ConfigError                  a setting, or two that contradict each other
    |   +-- DataError                    images, labels, pairs of them
    |   +-- StoreError                   an OME-Zarr or TIFF that cannot be read or written
    |   |   +-- RemoteError                  a server that refuses or stays away: ends a run
    |   |       +-- GoneError                    an image that went while it was read: so, too
    |   +-- BundleError                  a model that is refused
    |   +-- LedgerError                  an earlier run that does not match this one
    +-- ExportError                  1   a bundle that did not pass its own checks
    +-- TrainingError                1   a loss that is not finite, a run without result
    +-- BlocksFailed                 3   finished, but some blocks have no result
    +-- Interrupted                130   stopped by the user, resumable
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BlocksFailed",
    "BundleError",
    "ConfigError",
    "DataError",
    "ExportError",
    "GoneError",
    "InputError",
    "Interrupted",
    "LedgerError",
    "RemoteError",
    "SpocoError",
    "StoreError",
    "TrainingError",
    "causes",
    "described",
    "is_denied",
    "is_full",
    "lacks_room",
    "one_line",
]

LONGEST = 500
"""Letters of what another library says."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SpocoError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class InputError(SpocoError, ValueError):
    """Input that breaks a rule.

    Parameters
    ----------
    rule : str
        What must hold, e.g. ``"images and labels must have the same shape"``.
    found : str
        What was there instead, with the file's name.
    remedy : str
        What the user can do about it.
    """

    exit_code = 2

    def __init__(self, rule: str, found: str, remedy: str) -> None:
        self.rule, self.found, self.remedy = rule, found, remedy
        super().__init__(rule, found, remedy)

    def __str__(self) -> str:
        return f"{self.rule}; found {self.found}. {self.remedy}"


class ConfigError(InputError):
    """A setting that is out of range, unknown, or contradicts another."""


class DataError(InputError):
    """Training or evaluation data that cannot be used as given."""


class StoreError(InputError):
    """An image store that cannot be read, or a place that cannot be written."""


class RemoteError(StoreError):
    """An object store or web server that refuses, or has not answered for long."""


class GoneError(RemoteError):
    """A local image that was moved or deleted while it was read, or whose disk was."""


class BundleError(InputError):
    """A model bundle or run that is damaged, unsafe or of an unknown kind."""


class LedgerError(InputError):
    """An unfinished run whose settings differ from those asked for now."""


class ExportError(SpocoError, RuntimeError):
    """A bundle that was written but did not pass its checks."""


class TrainingError(SpocoError, RuntimeError):
    """Training that cannot go on."""


class BlocksFailed(SpocoError, RuntimeError):
    """The run is complete but for some blocks, which it names."""

    exit_code = 3


class Interrupted(SpocoError, RuntimeError):
    """The user asked to stop; what was done is kept."""

    exit_code = 130


def described(value: object) -> str:
    """A value of the wrong kind, in a few words.

    >>> described([1]), described(None)
    ('a list', 'None')
    """
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"an array of shape {shape}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def one_line(error: BaseException) -> str:
    """What an error of another library says, without line breaks; its kind if it says nothing.

    At most `LONGEST` letters: some repeat all that they could not read.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def is_denied(error: OSError) -> bool:
    """Whether a place can never be used as it is: for its permissions, or a loop of links."""
    return error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP)


def is_full(error: BaseException) -> bool:
    """Whether there was no room to write: on the disk, in the quota, or in one file."""
    return isinstance(error, OSError) and error.errno in FULL


def lacks_room(error: BaseException) -> bool:
    """Whether there was no room to write, and an error is what was made of that."""
    return any(map(is_full, causes(error)))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised for, and so on to what all began with."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
