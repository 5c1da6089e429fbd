"""What could only go wrong block by block, of a run that goes on: refused before any is begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spoco_zoo.errors import InputError, LedgerError, RemoteError
from spoco_zoo.segment.normalise import checksum

if TYPE_CHECKING:
    from spoco_zoo.segment.plan import Plan

__all__ = ["check_same_image", "is_same_image"]


def check_same_image(plan: Plan, when: int, known: int) -> None:
    """Whether an image is still the one that an unfinished run has measured.

    Parameters
    ----------
    plan : Plan
    when : int
        Time point.
    known : int
        Checksum of that time point, as it was when the run began; 0 if not all could be read.

    Raises
    ------
    LedgerError
        If its voxels are others: the labels would be those of two images.
    RemoteError
        If the store of the image is away.
    """
    try:
        same = is_same_image(plan, when, known)
    except RemoteError:
        raise
    except InputError:
        return  # damaged since; the blocks in which it is will say so
    if not same:
        raise LedgerError(
            "an unfinished run can only go on with the image that it began with",
            f"other intensities in {plan.source.uri} ({plan.folder})",
            "Bring the former image back, or start again with --overwrite.",
        )


def is_same_image(plan: Plan, when: int, known: int) -> bool:
    """Whether the voxels of a time point have a checksum, or it is not known (0).

    Raises
    ------
    InputError
        If they cannot be read.
    """
    return not known or checksum(plan.image, plan.level, when, plan.channels) == known
