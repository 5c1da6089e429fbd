"""Objects that seem to be there and are not annotated: taken for background, if nobody says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from spoco_zoo.train.data import BACKGROUND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from spoco_zoo.train.data import Sample

__all__ = ["count_alike", "remark_unannotated"]

SHARE = 0.5
"""Regions like objects, per annotated object, from which objects are left out on purpose.

Of 97 images of nuclei (Data Science Bowl 2018) with all objects annotated it is 0.01, with half of
them 0.7, with a tenth 5.8; of two volumes (plant ovules) 0.01, 0.3 and 2.3.
"""
LEAST = 5
"""Fewer regions may be debris."""
VOXELS = 2**25
"""That are looked at, in the first images."""
SIZES = 3.0
"""Times smaller or larger than the median object, a region may be one."""
MARGIN = 2
"""Voxels around annotated objects that may be their rim."""
DIM = 25
"""Percentile of the voxels of objects that a region's are to reach."""


def remark_unannotated(samples: Sequence[Sample]) -> str:
    """What to tell a user of whose objects most seem to be taken for background.

    Parameters
    ----------
    samples : sequence of Sample
        With dense annotation: what is no object is background.

    Returns
    -------
    str
        Empty if few regions of the background look like objects.
    """
    alike, annotated = np.sum([count_alike(sample) for sample in _first(samples)], axis=0)
    if alike < max(SHARE * annotated, LEAST):
        return ""
    return (
        f"Warning: {alike} regions without annotation look like the {annotated} annotated objects "
        "beside them, and are trained on as background. If only some objects are annotated, say "
        "so: --annotation sparse."
    )


def count_alike(sample: Sample) -> tuple[int, int]:
    """Regions of the background that are as bright and as large as objects.

    Parameters
    ----------
    sample : Sample

    Returns
    -------
    regions, objects : int
    """
    objects = sample.labels > 0
    background = sample.labels == BACKGROUND
    if not objects.any() or not background.any():
        return 0, len(sample.centres)
    image = ndimage.gaussian_filter(sample.image.mean(0), 1)
    if np.median(image[objects]) < np.median(image[background]):
        image = -image
    background &= ~ndimage.binary_dilation(objects, iterations=MARGIN)
    regions = _sizes(ndimage.label(background & (image >= np.percentile(image[objects], DIM)))[0])
    median = np.median(_sizes(sample.labels))
    similar = (regions >= median / SIZES) & (regions <= median * SIZES)
    return int(similar.sum()), len(sample.centres)


def _sizes(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Voxels of each object that is there."""
    sizes = np.bincount(labels[labels > 0])
    return sizes[sizes > 0]


def _first(samples: Sequence[Sample]) -> Iterator[Sample]:
    """As many as `VOXELS` hold, one at least."""
    seen = 0
    for sample in samples:
        if seen and seen + sample.labels.size > VOXELS:
            return
        seen += sample.labels.size
        yield sample
