"""Training data in memory: images, labels of one meaning, and splits.

Annotation values (see docs/annotation.md):

=========  ===============  ==========================================
value      dense            sparse
=========  ===============  ==========================================
0          background       not annotated: may hold anything
1..N       an object        an object
V          --               known background (``--background-label V``)
=========  ===============  ==========================================

In memory a label array is int32 with objects > 0, `UNKNOWN` = 0 and
`BACKGROUND` = -1, whatever the file used; dense annotation has no unknowns.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from spoco_zoo.errors import DataError
from spoco_zoo.intensities import (
    LARGEST,
    Statistics,
    exact_kind,
    normalise,
    pieces_of,
    restored,
    statistics_of,
)
from spoco_zoo.object_ids import check_ids
from spoco_zoo.train.layouts import read_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spoco_zoo.config import TrainConfig
    from spoco_zoo.train.files import Pair

__all__ = [
    "BACKGROUND",
    "PARTS",
    "UNKNOWN",
    "Sample",
    "Split",
    "check_channels",
    "load_samples",
    "object_sizes",
]

UNKNOWN, BACKGROUND = 0, -1
WHOLE_OBJECTS = 10
PARTS = ("train", "val", "test")
# What helps where --ndim and the axes of an image do not go together.
OTHER_NDIM = {(2, 4): "Pass --ndim 3.", (3, 2): "Pass --ndim 2."}


@dataclass(frozen=True)
class Sample:
    """One annotated image.

    Attributes
    ----------
    name : str
    image : ndarray
        float32 (C, [Z,] Y, X), z-scored over the whole image.
    labels : ndarray
        int32 ([Z,] Y, X): objects 1, 2, ..., some of which `thin_out` may
        take away, `UNKNOWN`, `BACKGROUND`.
    centres : ndarray
        float64 (n, ndim), one voxel per annotated object, near its middle, in the order of labels.
    statistics : Statistics
        What the z-score took away.
    digest : tuple of int
        CRC-32 of the intensities, before the z-score, and of the labels, before any was left out.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    centres: NDArray[np.float64]
    statistics: Statistics
    digest: tuple[int, int] = (0, 0)

    @property
    def annotated(self) -> bool:
        """Whether anything is known of it; if not, no prediction can be judged."""
        return bool((self.labels != UNKNOWN).any())

    @property
    def raw(self) -> NDArray[np.float32]:
        """Image in its original units, float32 (C, [Z,] Y, X); absurd values stay cut off."""
        return restored(self.image, self.statistics)


@dataclass(frozen=True)
class Split:
    """Which samples are learned from, tuned on, and only reported on (may be empty)."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    background: bool = True
    """Whether any training voxel is background, or may be."""
    remarks: tuple[str, ...] = ()
    """What is to be said of the files."""
    kept: float = 1.0
    """Share of the objects of the training images that are annotated; 1 if nobody counted them."""

    @property
    def undivided(self) -> bool:
        """Whether one image is learned from and validated on, as it has too few objects to cut."""
        # Its labels for training may have been thinned out.
        return self.val[0].image is self.train[0].image


def channels_first(
    array: NDArray[Any], ndim: int, name: str, shape: tuple[int, ...] = ()
) -> NDArray[Any]:
    """Image as floats (C, [Z,] Y, X): adds a channel axis, or moves it to the front.

    The channel axis of an array with one axis too many is the one without which it has the
    `shape` of its labels; where that is not one alone, the first or the last, whichever has at
    most 4 entries.
    """
    if array.ndim == ndim:
        array = array[None]
    elif array.ndim == ndim + 1:
        fitting = [i for i in range(ndim + 1) if array.shape[:i] + array.shape[i + 1 :] == shape]
        last = array.shape[-1] <= 4 < array.shape[0]
        channel = fitting[0] if len(fitting) == 1 else -1 if last else 0
        array = np.moveaxis(array, channel, 0)
    else:
        raise DataError(
            f"a {ndim}D image must have {ndim} axes, or {ndim + 1} with channels",
            f"shape {array.shape} in {name}",
            OTHER_NDIM.get((ndim, array.ndim), "Save one image per file."),
        )
    if array.dtype.kind not in "buif" or not array.size:
        raise DataError(
            "an image must hold real numbers",
            f"{array.dtype} of shape {array.shape} in {name}",
            "Save it with another type, such as 16-bit integers.",
        )
    values = np.asarray(array, exact_kind(array.dtype))
    finite = np.abs(values) <= LARGEST
    if not finite.all():
        raise DataError(
            f"intensities must be finite, at most {LARGEST:.0e}",
            f"{int((~finite).sum())} other voxels in {name}",
            "Replace them, for example by 0.",
        )
    if values.min() == values.max():
        raise DataError(
            "an image must not be constant", f"{values.min():g} everywhere in {name}", "Remove it."
        )
    return values


def integer_labels(
    array: NDArray[Any], ndim: int, name: str, config: TrainConfig
) -> NDArray[np.int32]:
    """Labels as int32 with objects > 0, `UNKNOWN` and `BACKGROUND`."""
    if array.dtype.kind not in "iub":
        whole = array.dtype.kind == "f" and np.isfinite(array).all()
        if not whole or not np.array_equal(array, np.round(array)):
            raise DataError(
                "labels must be integers", f"{array.dtype} in {name}", "Save them as 16-bit TIFF."
            )
        array = array.astype(np.int64)
    if array.ndim == ndim + 1 and 1 in array.shape:  # a channel axis
        array = np.squeeze(array, axis=-1 if array.shape[-1] == 1 else array.shape.index(1))
    if array.ndim != ndim:
        raise DataError(
            f"{ndim}D labels must have {ndim} axes",
            f"shape {array.shape} in {name}",
            odd_labels(array, ndim),
        )
    check_ids(array, name)
    values, inverse = np.unique(array, return_inverse=True)
    strokes = values == config.background_label
    if (odd := values[(values < 0) & ~strokes]).size:
        zero = "for background" if config.annotation == "dense" else "where nothing is annotated"
        raise DataError(
            f"{config.annotation} labels must be 0 {zero}, and positive for objects",
            f"{odd[0]} in {name}",
            "Add 1 to all of them if -1 stands for 0; numbers above 32767 need an unsigned type; "
            "--background-label names the value of known background.",
        )
    unmarked = values == 0 if config.background_label != 0 else np.zeros(len(values), bool)
    dense = config.annotation == "dense"
    objects = ~strokes & ~unmarked & (values > 0)
    table = np.zeros(len(values), np.int32)
    table[objects] = np.arange(1, objects.sum() + 1)
    table[strokes | (unmarked & dense)] = BACKGROUND
    return table[inverse.reshape(array.shape)]


def odd_labels(array: NDArray[Any], ndim: int) -> str:
    """What helps where labels have more or fewer axes than the network.

    Three or four planes may be colours, whatever their type: only those that lie last, or are
    all the same, are so for sure.
    """
    remedy = "save one number per object, in one channel, as 16-bit TIFF (docs/annotate.md)."
    more = array.ndim == ndim + 1
    few = more and len(array) in (3, 4)
    if more and (array.shape[-1] in (3, 4) or (few and (array[:3] == array[0]).all())):
        return f"These are colours: {remedy}"
    colours = f" If these are colours: {remedy}" if few else ""
    if (ndim, array.ndim) == (2, 3):
        return (
            "Pass --ndim 3 if this is a volume; else save each plane, or time point, by itself; "
            f"masks of one object each belong in one image, each with its number.{colours}"
        )
    if (ndim, array.ndim) == (3, 2):
        return "Pass --ndim 2, or save labels of the whole volume, 0 in planes without any."
    return f"Save one label image per file.{colours}"


def counted(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Labels of a part of an image, int32, whose objects are numbered 1, 2, ... without a gap."""
    values, inverse = np.unique(labels, return_inverse=True)
    objects = values > 0
    values[objects] = np.arange(1, objects.sum() + 1)
    return values[inverse.reshape(labels.shape)]


def object_centres(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """The object voxel nearest to each object's centre of mass, float64 (n, ndim)."""
    centres = []
    for index, box in enumerate(ndimage.find_objects(np.maximum(labels, 0)), start=1):
        if box is None:
            continue
        inside = np.argwhere(labels[box] == index)
        nearest = inside[((inside - inside.mean(0)) ** 2).sum(1).argmin()]
        centres.append(nearest + [axis.start for axis in box])
    return np.array(centres, np.float64).reshape(-1, labels.ndim)


def object_sizes(samples: Sequence[Sample]) -> tuple[float, float, float]:
    """5 %, 50 % and 95 % quantile of the voxel counts of annotated objects.

    Objects at the border of an image are cut, and say little about how small an object can be:
    they count only where fewer than `WHOLE_OBJECTS` others are there.
    """
    whole, cut = [], []
    for sample in samples:
        objects = np.maximum(sample.labels, 0)
        counts = np.bincount(objects.ravel())
        counts[0] = 0
        ends = [np.take(objects, (0, -1), axis=axis).ravel() for axis in range(objects.ndim)]
        at_border = np.bincount(np.concatenate(ends), minlength=len(counts)) > 0
        whole.append(counts[~at_border & (counts > 0)])
        cut.append(counts[at_border & (counts > 0)])
    sizes = np.concatenate(whole)
    if len(sizes) < WHOLE_OBJECTS:
        sizes = np.concatenate([sizes, *cut])
    low, middle, high = np.quantile(sizes, (0.05, 0.5, 0.95))
    return float(low), float(middle), float(high)


def make_sample(
    name: str, image: NDArray[Any], labels: NDArray[np.int32], *, mixed: Sequence[int] = ()
) -> Sample:
    """Normalise an image as `segment` does, and list its objects.

    `mixed` says how many lines beside an empty frame may be mixtures, see `statistics_of`.
    """
    boxes = list(pieces_of(image.shape[1:]))
    found = statistics_of(
        lambda: (image[(slice(None), *box)] for box in boxes),
        mixed=mixed,
        by_parts=labels.ndim > 2,
    )
    scaled = normalise(image, found)
    digest = checksum(image), checksum(labels[None])
    return Sample(name, scaled, labels, object_centres(labels), found, digest)


def checksum(array: NDArray[Any]) -> int:
    """CRC-32 of shape and values, one channel after the other: no copy of the whole is made."""
    found = zlib.crc32(str(array.shape).encode())
    for channel in array:
        found = zlib.crc32(np.ascontiguousarray(channel).data, found)
    return found


def load_samples(pairs: Sequence[Pair], config: TrainConfig) -> list[Sample]:
    """Read and check all pairs.

    Raises
    ------
    DataError
        With the file's name, for anything that cannot be trained on.
    """
    samples = []
    for pair in pairs:
        raw, ids = read_pair(pair, config)
        labels = integer_labels(ids, config.ndim, pair.labels.name, config)
        image = channels_first(raw, config.ndim, pair.image.name, labels.shape)
        if image.shape[1:] != labels.shape:
            raise DataError(
                "image and labels must have the same shape",
                f"{image.shape[1:]} and {labels.shape} in {pair.image.name}",
                "Export the labels at the image's resolution.",
            )
        samples.append(make_sample(pair.name, image, labels))
    channels = {sample.image.shape[0]: sample.name for sample in samples}
    if len(channels) > 1:
        found = ", ".join(f"{n} in {channels[n]}" for n in sorted(channels))
        raise DataError(
            "all images must have the same number of channels", found, "Convert them to one layout."
        )
    if not any(len(sample.centres) for sample in samples):
        raise DataError(
            "labels must hold objects", "not one object in any file", "Check the label values."
        )
    return samples


def check_channels(samples: Sequence[Sample], expected: int, whose: str) -> None:
    """Refuse images, all of the same kind, that have other channels than `whose` they go with.

    Raises
    ------
    DataError
        That names both numbers.
    """
    found = samples[0].image.shape[0]
    if found != expected:
        raise DataError(
            f"images must have as many channels as {whose} ({expected})",
            f"{found} in {samples[0].name}",
            "Convert them to one layout, with the same channels in the same order.",
        )
