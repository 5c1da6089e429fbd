"""Annotation that means something else than what it is read as."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from spoco_zoo.train.data import Sample

__all__ = ["remark_masks", "remark_planes", "remark_strokes", "remark_turned"]

PIECES = 3
"""Separate pieces of an object, in the mean, from which they are likely objects themselves."""
CRUMB = 0.1
"""Pieces of less than this share of the largest one do not count."""
THICK = 4
"""Planes from which a stack has objects that go through several."""
TURNS: dict[str, Callable[[NDArray[np.bool_]], NDArray[np.bool_]]] = {
    "upside down": lambda mask: mask[..., ::-1, :],
    "left for right": lambda mask: mask[..., ::-1],
    "by half a turn": lambda mask: mask[..., ::-1, ::-1],
    "rows for columns": lambda mask: np.swapaxes(mask, -1, -2),
}
"""What happens to labels on the way through other programs, and back again."""
FITS = 2.0
"""Times the contrast that labels as they are have, from which they are turned for sure.

Of 122 images of nuclei (Data Science Bowl 2018) none has more than 0.4 with all objects annotated,
nor more than 1.3 with a tenth; turned back, labels of all objects have 2.5 and more.
"""
CLEAR = 0.5
"""Contrast below which labels fit nothing."""
NUMBER = (
    "If each piece is an object, number them: skimage.measure.label(mask > 0) in Python, or "
    "MorphoLibJ's Connected Components Labeling in Fiji; save 16-bit TIFFs, and train again."
)


def remark_masks(samples: Sequence[Sample]) -> str:
    """What to tell a user whose label files seem to be masks: one value for all objects.

    Parameters
    ----------
    samples : sequence of Sample

    Returns
    -------
    str
        Empty if images have several objects, or one in one piece or two.
    """
    annotated = _annotated(samples)
    counts = [_large_pieces(labels) for labels in annotated if not (labels > 1).any()]
    if len(counts) == len(annotated):  # some may hold one object or two
        counts = counts if sum(counts) >= PIECES * len(counts) else []
    else:
        counts = [count for count in counts if count >= PIECES]
    if counts:
        files = "every label file has" if len(counts) == len(annotated) else "label files have"
        return (
            f"Warning: {files} one value for all objects, which lie in {sum(counts)} separate "
            f"pieces in {len(counts)} images: each image is trained on as one object. {NUMBER}"
        )
    filled = [labels for labels in annotated if labels.min() > 0 and labels.max() == 2]
    classes = sum(int(_pieces(labels).max() >= PIECES) for labels in filled)
    if not classes:
        return ""
    return (
        f"Warning: {classes} label files hold two values and no 0, one of them in {PIECES} pieces "
        "or more, as where 1 is background and 2 all objects: both are trained on as objects. "
        f"{NUMBER}"
    )


def _large_pieces(labels: NDArray[np.int32]) -> int:
    """Number of connected pieces of all objects together, without crumbs."""
    sizes = np.bincount(ndimage.label(labels > 0)[0].ravel())[1:]
    return int((sizes >= CRUMB * sizes.max()).sum())


def remark_strokes(samples: Sequence[Sample]) -> str:
    """What to tell a user whose strokes over the background are read as one more object.

    Parameters
    ----------
    samples : sequence of Sample
        With sparse annotation, and no label said to be background.

    Returns
    -------
    str
        Empty unless in most images one object of several, and one alone, lies in pieces.
    """
    annotated = _annotated(samples)
    alone = 0
    for labels in annotated:
        pieces = _pieces(labels)
        alone += len(pieces) > 1 and int((pieces >= PIECES).sum()) == 1
    if 2 * alone <= len(annotated):
        return ""
    return (
        f"Warning: in {alone} of {len(annotated)} images one label lies in {PIECES} pieces or "
        "more, and is trained on as one object. If these are strokes over the background, say so: "
        "--background-label and their value."
    )


def remark_planes(samples: Sequence[Sample], *, sparse: bool) -> str:
    """What to tell a user of whose stacks single planes seem to be annotated.

    Parameters
    ----------
    samples : sequence of Sample
        Labels (Z, Y, X).
    sparse : bool
        Whether planes without objects may not be annotated. Of those with objects, what lies
        above and below is taught to be no part of them all the same.

    Returns
    -------
    str
        Empty if an object is thicker than a plane, or a stack is nearly a plane itself.
    """
    annotated = _annotated(samples)
    if not annotated or min(len(labels) for labels in annotated) < THICK:
        return ""
    if any(((a > 0) & (a == b)).any() for s in annotated for a, b in pairwise(s)):
        return ""
    planes = sum(int((labels > 0).any((1, 2)).sum()) for labels in annotated)
    total = sum(map(len, annotated))
    what = "what lies above and below is" if sparse else "all others are"
    taught = "no part of the objects" if sparse else "background"
    return (
        f"Warning: every object is one plane thick, and only {planes} of {total} planes hold any: "
        f"{what} trained on as {taught}. If the objects are thicker, annotate each in all of its "
        "planes: a few whole objects of a stack (--annotation sparse), or all objects of parts of "
        "a few planes, saved as stacks of their own."
    )


def remark_turned(samples: Sequence[Sample]) -> str:
    """What to tell a user whose labels would fit their images better if they were turned.

    Parameters
    ----------
    samples : sequence of Sample

    Returns
    -------
    str
        Empty if they fit as they are, or objects are no brighter or darker than the rest.
    """
    fits = {name: 0.0 for name in TURNS}
    own, count = 0.0, 0
    for sample in samples:
        image, mask = sample.image.mean(0), sample.labels > 0
        own += _contrast(image, mask)
        count += bool(mask.any())
        for name, turn in TURNS.items():
            if turn(mask).shape == mask.shape:
                fits[name] += _contrast(image, turn(mask))
    best = max(fits, key=lambda name: fits[name])
    if fits[best] < max(FITS * own, CLEAR * count, CLEAR):
        return ""
    return (
        f"Warning: labels lie better on their images {best}: objects differ from the rest by "
        f"{fits[best] / count:.1f} standard deviations then, and by {own / count:.1f} as they are. "
        "Look at both in one picture (preview.png), and turn the labels back if it is so."
    )


def _contrast(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """By how many standard deviations an image is brighter or darker within a mask."""
    deviation = float(image.std())
    if not deviation or not mask.any() or mask.all():
        return 0.0
    return abs(float(image[mask].mean()) - float(image[~mask].mean())) / deviation


def _annotated(samples: Sequence[Sample]) -> list[NDArray[np.int32]]:
    """Labels of the images that have objects."""
    return [sample.labels for sample in samples if len(sample.centres)]


def _pieces(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Number of connected pieces of each object that there is."""
    objects = np.maximum(labels, 0)
    parts = measure.label(objects, background=0)
    owner = np.zeros(int(parts.max()) + 1, np.int64)
    owner[parts] = objects
    counts = np.bincount(owner[1:])
    return counts[counts > 0]
