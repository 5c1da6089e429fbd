"""Which images are learned from, which are tuned on, and which are only reported on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.train.data import PARTS, Sample, Split, counted, object_centres

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spoco_zoo.config import TrainConfig

__all__ = ["split_by_name", "split_samples"]

FEW = 10
"""Annotated objects of a single image from which some are set apart wherever they lie."""
UNDIVIDED = (
    "Warning: the one image with objects has so few, {}, that none is set apart: it is learned "
    "from and validated on as a whole, and scores say nothing of new images. Annotate ten or more "
    "all over the image, or pass --val-images and --val-labels."
)


def split_samples(samples: Sequence[Sample], config: TrainConfig) -> Split:
    """Seeded split into training, validation and test images.

    Of 50 images or more, as many as for validation are set aside and only
    reported on. Images without any annotation are never held out: they could not be judged.
    Both the training and the validation images hold objects: where one image alone does, it
    is cut in two, or used for both if it has a few.
    """
    filled = [i for i, sample in enumerate(samples) if len(sample.centres)]
    if len(filled) == 1:
        halves = cut_in_two(samples[filled[0]], config.val_fraction)
        others = tuple(sample for i, sample in enumerate(samples) if i not in filled)
        return replace(halves, train=(*halves.train, *others))
    drawn = np.random.default_rng([config.seed, 7]).permutation(len(samples))
    order = sorted(drawn, key=lambda i: not samples[i].annotated)
    count = sum(sample.annotated for sample in samples)
    held = max(1, round(config.val_fraction * count))
    held = min(held, (count - 1) // (2 if count >= 50 else 1))
    test = held if count >= 50 else 0
    # First and last of those with objects: the others stay where they were drawn.
    first, *_, last = (i for i in order if len(samples[i].centres))
    order = [first, *(i for i in order if i not in (first, last)), last]
    parts = order[:held], order[held : held + test], order[held + test :]
    val, kept, train = (tuple(samples[i] for i in sorted(part)) for part in parts)
    return Split(train, val, kept)


def split_by_name(samples: Sequence[Sample], names: Mapping[str, Sequence[str]]) -> Split:
    """Split into the lists of names ``train``, ``val`` and ``test``; others are left out."""
    by_name = {sample.name: sample for sample in samples}
    train, val, test = (tuple(by_name[n] for n in sorted(names[part])) for part in PARTS)
    return Split(train, val, test)


def cut_in_two(sample: Sample, fraction: float) -> Split:
    """Cut a part off a single image for validation: the last fifth of its longest axis.

    A few annotated objects may leave that part, or all else, without any. Then it is cut between
    two of them, so that a fifth of the objects is set apart, where most of the image is left for
    training. Fewer than `FEW` are all learned from, and validated on: objects that a cut goes
    through would teach the network to look for borders of the image.
    """
    share, shape = max(fraction, 0.2), sample.labels.shape
    axis = int(np.argmax(shape))
    end = shape[axis] - max(1, round(share * shape[axis]))
    halves = _halves(sample, axis, end, upper=True)
    if all(len(part.centres) for part in halves):
        return Split(halves[:1], halves[1:], ())
    every = len(sample.centres)
    cuts = [cut for axis in range(len(shape)) for cut in _between_objects(sample, axis, share)]
    if every >= FEW and cuts:
        halves = max(cuts, key=lambda cut: cut[0].labels.size)
        return Split(halves[:1], halves[1:], ())
    whole = [replace(sample, name=f"{sample.name}-{what}") for what in ("train", "val")]
    return Split((whole[0],), (whole[1],), (), remarks=(UNDIVIDED.format(every),))


def _between_objects(sample: Sample, axis: int, share: float) -> list[tuple[Sample, Sample]]:
    """Cuts between middles of objects, which leave a share of these, for validation, at an end."""
    at = np.sort(sample.centres[:, axis])
    count = min(max(1, round(share * len(at))), len(at) - 1)
    cuts = []
    for first, upper in ((len(at) - count, True), (count, False)):
        if count and at[first - 1] < at[first]:
            middle = int(np.ceil((at[first - 1] + at[first]) / 2))
            cuts.append(_halves(sample, axis, middle, upper=upper))
    return cuts


def _halves(sample: Sample, axis: int, cut: int, *, upper: bool) -> tuple[Sample, Sample]:
    """Parts for training and for validation, the `upper` one or the lower, of a cut sample."""
    low, high = slice(0, cut), slice(cut, None)
    train, val = (low, high) if upper else (high, low)
    return _piece(sample, "train", axis, train), _piece(sample, "val", axis, val)


def _piece(sample: Sample, what: str, axis: int, part: slice) -> Sample:
    """A part of a sample along an axis, with its intensities as they are."""
    where = (slice(None),) * axis + (part,)
    labels = counted(sample.labels[where])
    image, name = sample.image[(slice(None), *where)], f"{sample.name}-{what}"
    return Sample(name, image, labels, object_centres(labels), sample.statistics, sample.digest)
