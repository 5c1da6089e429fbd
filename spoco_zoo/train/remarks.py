"""What training data may not be meant to be: said before a run, and in its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.train.data import Sample

__all__ = ["doubt_masks"]

PIECES = 3
"""Separate pieces of an object, in the mean, from which they are likely objects themselves."""
CRUMB = 0.1
"""Pieces of less than this share of the largest one do not count."""


def doubt_masks(samples: Sequence[Sample]) -> str:
    """What to tell a user whose label files seem to be masks: one value for all objects.

    Parameters
    ----------
    samples : sequence of Sample

    Returns
    -------
    str
        Empty if an image has several objects, or its one object is in one piece or two.
    """
    annotated = [sample.labels for sample in samples if len(sample.centres)]
    if not annotated or any(len(sample.centres) > 1 for sample in samples):
        return ""
    count = 0
    for labels in annotated:
        sizes = np.bincount(ndimage.label(labels > 0)[0].ravel())[1:]
        count += int((sizes >= CRUMB * sizes.max()).sum())
    if count < PIECES * len(annotated):
        return ""
    return (
        f"Warning: every label file has one value for all objects, which lie in {count} separate "
        f"pieces in {len(annotated)} images: each image is trained on as one object. If each piece "
        "is an object, number them: skimage.measure.label(mask > 0) in Python, or MorphoLibJ's "
        "Connected Components Labeling in Fiji; save 16-bit TIFFs, and train again."
    )
