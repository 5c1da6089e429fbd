"""What could only go wrong block by block, of a run that goes on: refused before any is begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import InputError, LedgerError, RemoteError
from spoco_zoo.segment.normalise import measure
from spoco_zoo.segment.outcome import quietly

if TYPE_CHECKING:
    from spoco_zoo.intensities import Statistics
    from spoco_zoo.segment.outcome import Tell
    from spoco_zoo.segment.plan import Plan

__all__ = ["check_same_image"]


def check_same_image(plan: Plan, when: int, known: Statistics, tell: Tell = quietly) -> None:
    """Whether an image is still the one that an unfinished run has measured.

    Parameters
    ----------
    plan : Plan
    when : int
        Time point.
    known : Statistics
        Of that time point, as they were when the run began.
    tell : callable, optional
        See `spoco_zoo.segment.normalise.measure`.

    Raises
    ------
    LedgerError
        If mean or deviation are others: its labels would be those of two images.
    RemoteError
        If the store of the image is away.
    """
    try:
        now = measure(plan.image, plan.level, when, plan.channels, tell=tell)
    except RemoteError:
        raise
    except InputError:
        return  # damaged since; the blocks in which it is will say so
    if not np.allclose(now[:2], known[:2], rtol=1e-6, atol=1e-6 * known.std):
        raise LedgerError(
            "an unfinished run can only go on with the image that it began with",
            f"other intensities in {plan.source.uri} ({plan.folder})",
            "Bring the former image back, or start again with --overwrite.",
        )
