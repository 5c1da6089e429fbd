"""What training data may not be meant to be: said before a run, and in its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.errors import InputError
from spoco_zoo.nets.receptive import pooling_factor
from spoco_zoo.ngff.store import TIFF_INPUTS
from spoco_zoo.sizes import are_near, size_text
from spoco_zoo.train.crops import teaches_background
from spoco_zoo.train.data import BACKGROUND
from spoco_zoo.train.misread import remark_masks, remark_planes, remark_strokes, remark_turned
from spoco_zoo.train.setup import fitting_crop
from spoco_zoo.train.unannotated import remark_unannotated
from spoco_zoo.train.validate import MAX_VOXELS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spoco_zoo.config import TrainConfig
    from spoco_zoo.ngff import Image
    from spoco_zoo.train.data import Sample, Split
    from spoco_zoo.train.files import Pair
    from spoco_zoo.train.setup import Setup

__all__ = [
    "described",
    "remark_crop",
    "remark_few",
    "remark_scale",
    "remarks",
    "stated_voxel_size",
]

ALIKE = 1.05
"""Voxel sizes within this factor are of one scale."""
FEW = 20
"""Validation objects from which their scores are taken as they are."""
SHRUNK = 1.5
"""Factor by which most images could have larger crops than the smallest."""
GIVE = "--voxel-size gives it to the model, which else cannot know the scale of other images."


def remarks(split: Split, config: TrainConfig, setup: Setup) -> list[str]:
    """All that training data may not be meant to be, one text each, for a run so set up."""
    samples = [*split.train, *split.val]
    found = [*split.remarks, remark_masks(samples), remark_turned(samples)]
    if config.annotation == "sparse":
        marked = any((sample.labels == BACKGROUND).any() for sample in samples)
        if config.background_label is not None and not marked:
            found.append(
                f"Warning: no label file holds {config.background_label}, which --background-label "
                "says is background: nothing is known to be background."
            )
        if not marked:
            found.append(remark_strokes(samples))
    else:
        found.append(remark_unannotated(split.train))
    if config.ndim == 3:
        found.append(remark_planes(samples, sparse=config.annotation == "sparse"))
    if config.crop is None:
        found.append(remark_crop(split.train, setup.crop, pooling_factor(setup.net)))
    background = split.background and not config.no_background
    found.append(remark_empty(split.train, background=background))
    if not split.undivided:  # else it was said
        few = remark_few(split.val, sparse=config.annotation == "sparse")
        found.append(remark_twins(split) or few)
    found.append(remark_large([*split.val, *split.test]))
    return [text for text in found if text]


def remark_empty(samples: Sequence[Sample], *, background: bool) -> str:
    """What to tell a user of training images that teach nothing.

    Parameters
    ----------
    samples : sequence of Sample
        Those to train on.
    background : bool
        Whether there is a background class.

    Returns
    -------
    str
        Empty if all hold objects, or known background where that is a class.
    """
    useless = sum(
        not len(sample.centres) and not (background and teaches_background(sample))
        for sample in samples
    )
    if not useless:
        return ""
    return (
        f"{useless} of {len(samples)} training images hold no annotation that could be learned "
        "from: they are left out."
    )


def remark_twins(split: Split) -> str:
    """What to tell a user whose validation or test images are training images by other names."""
    held = [*split.val, *split.test]
    # With the shape, because one image may have been cut into two for both.
    known = {(sample.digest[0], sample.labels.shape) for sample in split.train}
    twins = [s.name for s in held if (s.digest[0], s.labels.shape) in known]
    if not twins:
        return ""
    return (
        f"Warning: {len(twins)} of {len(held)} images set apart have the very pixels of training "
        f"images, such as {twins[0]}: scores say nothing of new images, and network and clustering "
        "are chosen by what was learned by heart. Remove the copies, or leave --val-images out."
    )


def remark_large(samples: Sequence[Sample]) -> str:
    """What to tell a user of whose validation and test images a part is judged."""
    large = sum(sample.labels.size > MAX_VOXELS for sample in samples)
    if not large:
        return ""
    return (
        f"Scores are those of the middle 2^{MAX_VOXELS.bit_length() - 1} voxels of {large} of "
        f"{len(samples)} images, which are larger; `spoco-zoo evaluate` judges whole ones."
    )


def remark_few(samples: Sequence[Sample], *, sparse: bool) -> str:
    """What to tell a user whose validation images hold too few objects to believe a score.

    Parameters
    ----------
    samples : sequence of Sample
        Validation images.
    sparse : bool
        Whether objects that nobody annotated are there, which no score counts.
    """
    count = sum(len(sample.centres) for sample in samples)
    if count >= FEW:
        return ""
    plural = "" if count == 1 else "s"
    rest = " What is found where nothing is annotated counts for nothing." if sparse else ""
    return (
        f"Scores are of {count} validation object{plural} only: 1.0 is soon reached and proves "
        f"little.{rest} Judge by preview.png, and by `spoco-zoo segment` on another image."
    )


def remark_crop(samples: Sequence[Sample], crop: Sequence[int], factor: Sequence[int]) -> str:
    """What to tell a user one of whose images is so small that it shrinks the crops of all.

    Parameters
    ----------
    samples : sequence of Sample
        Those to train on.
    crop, factor : sequence of int
        Crop ([Z,] Y, X) that was chosen, and what crops must be multiples of.

    Returns
    -------
    str
        Empty if most images would not have much larger crops either.
    """
    shapes = np.array([sample.labels.shape for sample in samples])
    possible = fitting_crop(np.median(shapes, axis=0), factor)
    larger = np.asarray(possible) >= SHRUNK * np.asarray(crop)
    if not larger.any():
        return ""
    smallest = samples[int(shapes[:, larger.argmax()].argmin())]
    return (
        f"Warning: training sees crops of {size_text(crop)} only, because the smallest image, "
        f"{smallest.name}, has {size_text(smallest.labels.shape)}; most are larger. An object that "
        f"no crop holds whole is hard to learn: leave out images below {size_text(possible)}."
    )


def stated_voxel_size(pairs: Sequence[Pair], ndim: int) -> tuple[tuple[float, ...] | None, str]:
    """The voxel size that all training images state, and what to tell of it.

    Parameters
    ----------
    pairs : sequence of Pair
    ndim : int
        Spatial axes of the network.

    Returns
    -------
    size : tuple of float or None
        ``([Z,] Y, X)`` in micrometres; None unless all images state one and the same.
    note : str
        Empty if no image states any.
    """
    found = [_stated(pair.image, ndim) for pair in pairs]
    sizes = np.array([size for size, _ in found if size is not None])
    if not len(sizes):
        part = next((part for _, part in found if part), "")
        note = f"Training images state the voxel size in part, {part}: none is used. {GIVE}"
        return None, note if part else ""
    low, middle, high = sizes.min(0), np.median(sizes, axis=0), sizes.max(0)
    if len(sizes) < len(pairs):
        return None, (
            f"{len(sizes)} of {len(pairs)} training images state a voxel size, the others none: "
            f"none is used. {GIVE}"
        )
    if (high > ALIKE * low).any():
        return None, (
            f"The training images state different voxel sizes, {size_text(low)} to "
            f"{size_text(high)} um: none is used. Train on images of one scale; then, or if these "
            f"are wrong: {GIVE}"
        )
    if (middle == 1).all():
        return None, (
            "The training images state 1 um along every axis, as programs write that do not know "
            f"the voxel size: it is not used. {GIVE}"
        )
    size = tuple(float(f"{value:.6g}") for value in middle)
    return size, (
        f"The voxel size is {size_text(size)} um, as the training images state: the model will "
        "know it, and so can be used for images of another. --voxel-size corrects it."
    )


def described(path: Path) -> Image | None:
    """An image file of a kind that can state a voxel size, None if its metadata cannot be read."""
    if path.suffix.lower() not in (*TIFF_INPUTS, ".zarr"):
        return None
    try:
        return ngff.open_image(path)
    except InputError:  # what cannot be used at all is refused by the reader of its pixels
        return None


def _stated(path: Path, ndim: int) -> tuple[tuple[float, ...] | None, str]:
    """Voxel size of an image file, or what is stated of it; files without metadata state none."""
    image = described(path)
    if image is None:
        return None, ""
    size = image.voxel_size()
    return (None if size is None or len(size) < ndim else size[-ndim:]), image.incomplete


def remark_scale(size: Sequence[float] | None, learned: Sequence[float] | None) -> str:
    """What to tell a user whose model to start from was trained on voxels of another size.

    Parameters
    ----------
    size : sequence of float or None
        Voxel size ([Z,] Y, X) of the training images in micrometres.
    learned : sequence of float or None
        That of the images which the model was trained on.

    Returns
    -------
    str
        Empty if one of them is not known, or they are near each other along every axis.
    """
    if not size or not learned or len(size) != len(learned):
        return ""
    if are_near(size, learned):
        return ""
    return (
        f"Warning: the training images have {size_text(size)} um a voxel, the model to start from "
        f"was trained at {size_text(learned)} um: it knows objects of other sizes in voxels, which "
        "is a worse start than one near its scale. Resample images and labels to about that; if "
        "the voxel size is wrong, --voxel-size corrects it."
    )
