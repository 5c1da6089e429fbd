"""Score label images on disk against their truth, block by block.

TIFF files, folders of TIFFs or OME-Zarr matched by name, and OME-Zarr labels
all take the same path: pairs of lazily read images, counted region by region.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import DataError
from spoco_zoo.label_sums import check_one_channel
from spoco_zoo.metrics import Contingency, Scores, best_ious, mean, pooled, score_counts
from spoco_zoo.naming import by_name, stem, visible
from spoco_zoo.ngff import find_labels
from spoco_zoo.ngff.opening import is_plain_folder
from spoco_zoo.ngff.store import whole_chunks
from spoco_zoo.object_ids import check_ids
from spoco_zoo.verbs import make_verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spoco_zoo.ngff import Image

__all__ = ["Evaluation", "ImageScores", "evaluate"]

# Voxels read at once from each of the two images.
REGION = 1 << 23
MANY = 2
"""Times the true objects, from which there are more predicted ones than a bad model makes ..."""
FOUND = 0.5
"""... that finds this share of the true ones."""
SUFFIXES = (".tiff", ".tif", ".png", ".zarr")
UNREAD = {".npy", ".npz", ".h5", ".hdf5"}
"""What training reads as labels: left out in silence, they would make a score of the others."""


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image, or of one time point of it."""

    name: str
    scores: Scores


@dataclass(frozen=True)
class Evaluation:
    """Scores of one or more images.

    Attributes
    ----------
    images : tuple of ImageScores
        In order of name.
    mean : Scores
        Each image counts the same.
    pooled : Scores
        Each object counts the same, as if all images lay side by side.
    iou_histogram : tuple of int
        True objects by their best IoU, in 20 bins of width 0.05 from 0 to 1.
    without_truth : tuple of str
        Predictions in the folder that no truth belongs to; they were left out.
    """

    images: tuple[ImageScores, ...]
    mean: Scores
    pooled: Scores
    iou_histogram: tuple[int, ...]
    without_truth: tuple[str, ...] = ()

    @property
    def hint(self) -> str:
        """What to say of a truth that seems to hold some objects only; mostly nothing."""
        scores = self.pooled
        few = scores.n_predicted < MANY * scores.n_truth
        if not scores.n_truth or few or scores.recall < FOUND:
            return ""
        return (
            f"There are {scores.n_predicted} predicted objects and {scores.n_truth} true ones, of "
            f"which {scores.recall:.0%} are found. If only some objects are annotated in the "
            "truth, look at recall: AP and precision count all others as wrong."
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain values, ready for JSON."""
        return {
            "n_images": len(self.images),
            "mean": self.mean.to_dict(),
            "pooled": self.pooled.to_dict(),
            "iou_histogram": list(self.iou_histogram),
            "images": [{"name": image.name, **image.scores.to_dict()} for image in self.images],
            "without_truth": list(self.without_truth),
        }


def evaluate(
    prediction: str | Path,
    truth: str | Path,
    *,
    ignore: int | None = None,
    on_image: Callable[[str, int, int], None] | None = None,
    on_region: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Compare predicted labels with the truth.

    Parameters
    ----------
    prediction, truth : str or path
        Two label images (TIFF or OME-Zarr; of an OME-Zarr image that holds
        exactly one label, that one), or two folders of them. In folders, files belong
        together whose names are equal up to the suffix. Time points are scored
        as images of their own.
    ignore : int, optional
        Voxels whose truth has this value are left out.
    on_image : callable, optional
        Called after each image with (name, images done, images in all).
    on_region : callable, optional
        Called within images that are read in several regions, with (regions done, regions in all).

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        If a prediction is missing, shapes or axes differ, or values are no labels.
    StoreError
        If an image cannot be read, or holds no label or several.
    """
    pairs, without_truth = _pairs(prediction, truth)
    images: list[ImageScores] = []
    tables: list[Contingency] = []
    for number, (name, one, other) in enumerate(pairs, start=1):
        found, true = find_labels(one, unsaid=True), find_labels(other, unsaid=True)
        for part, table in _count(name, found, true, ignore, on_region):
            images.append(ImageScores(part, score_counts(table)))
            tables.append(table)
        if on_image is not None:
            on_image(name, number, len(pairs))
    best = np.concatenate([best_ious(table) for table in tables])
    return Evaluation(
        images=tuple(images),
        mean=mean(image.scores for image in images),
        pooled=pooled(tables),
        iou_histogram=tuple(int(n) for n in np.histogram(best, bins=20, range=(0, 1))[0]),
        without_truth=without_truth,
    )


def _pairs(
    prediction: str | Path, truth: str | Path
) -> tuple[Sequence[tuple[str, Path | str, Path | str]], tuple[str, ...]]:
    """Two images, or those of two folders by name: name, prediction, truth; what has no truth."""
    folders = [is_plain_folder(place) for place in (prediction, truth)]
    if not any(folders):
        return [(stem(Path(truth)), prediction, truth)], ()
    if not all(folders):
        raise DataError(
            "prediction and truth must both be an image, or both a folder of images",
            f"{prediction} and {truth}",
            "Name two files or two folders.",
        )
    predictions, truths = (_by_name(Path(place)) for place in (prediction, truth))
    missing = sorted(truths.keys() - predictions.keys())
    if missing:
        raise DataError(
            "every truth needs a prediction of the same name",
            f"{len(missing)} of {len(truths)} without in {prediction}, the first is {missing[0]!r}",
            "Segment these images too, or move their truth out of the folder.",
        )
    pairs = [(name, predictions[name], truths[name]) for name in sorted(truths)]
    return pairs, tuple(sorted(predictions.keys() - truths.keys()))


def _by_name(folder: Path) -> dict[str, Path]:
    """Images of a folder by name without suffix."""
    entries = list(visible(folder.iterdir()))
    odd = sorted(p.name for p in entries if p.suffix.lower() in UNREAD)
    if odd:
        raise DataError(
            f"labels to be judged must be OME-Zarr or files of {', '.join(sorted(SUFFIXES))}",
            f"{len(odd)} others in {folder}, such as {odd[0]}",
            "Save them as TIFF, or move them away.",
        )
    files = sorted(p for p in entries if p.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(
            f"a folder must hold OME-Zarr labels or files of {', '.join(sorted(SUFFIXES))}",
            f"none in {folder}",
            "Check the path.",
        )
    return by_name(((stem(path), path) for path in files), f"files in {folder}")


def _count(
    name: str,
    prediction: Image,
    truth: Image,
    ignore: int | None,
    on_region: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, Contingency]]:
    """Count label pairs of each time point of two images of equal shape."""
    shapes = [_shape_of(image) for image in (prediction, truth)]
    if shapes[0] != shapes[1]:
        raise DataError(
            "prediction and truth must have the same shape",
            f"{shapes[0]} and {shapes[1]} for {name!r}",
            "Compare the same region at the same resolution.",
        )
    n_times = truth.n_times
    if prediction.n_times != n_times:
        # Frames are scored one by one, planes of a stack together: which they are, nobody knows.
        raise DataError(
            "prediction and truth must both be a time series, or neither",
            f"axes {','.join(prediction.axes)} and {','.join(truth.axes)} for {name!r}",
            "Save both with the same axes named: for a TIFF, as ImageJ or OME-TIFF.",
        )
    done = 0
    every = n_times * sum(1 for _ in _regions(truth, shapes[1], 0 if n_times > 1 else None))
    sides = (prediction, truth)
    told = [False, False]
    for time in range(n_times):
        table = Contingency(ignore=ignore)
        for region in _regions(truth, shapes[1], time if n_times > 1 else None):
            shape = [part.stop - part.start for part in region]
            ids = [i.read_region(0, _full_region(i, region)).reshape(shape) for i in sides]
            try:
                table.update(*ids)
            except DataError as error:
                raise DataError(error.rule, f"{error.found} of {name!r}", error.remedy) from None
            told = [t or check_ids(i, s.uri) for t, i, s in zip(told, ids, sides, strict=True)]
            done += 1
            if on_region is not None and every > 1:
                on_region(done, every)
        yield (f"{name}, t={time}" if n_times > 1 else name), table


def _shape_of(image: Image) -> tuple[int, ...]:
    """Shape along `_kept`; the channel axis must have length 1."""
    check_one_channel(image)
    return tuple(n for n, kept in zip(image.levels[0].shape, _kept(image), strict=True) if kept)


def _kept(image: Image) -> list[bool]:
    """Which axes count: all but c, and t and z where they have length 1."""
    named = zip(image.axes, image.levels[0].shape, strict=True)
    return [axis in "yx" or (axis in "tz" and n > 1) for axis, n in named]


def _full_region(image: Image, region: tuple[slice, ...]) -> list[slice]:
    """Slices for all axes of an image from those of the axes that count."""
    parts = iter(region)
    return [next(parts) if kept else slice(0, 1) for kept in _kept(image)]


def _regions(truth: Image, shape: tuple[int, ...], time: int | None) -> Iterator[tuple[slice, ...]]:
    """Regions of about `REGION` voxels that cover an image, made of whole chunks of the truth."""
    chunks = [n for n, kept in zip(truth.chunks(), _kept(truth), strict=True) if kept]
    if time is None:
        yield from whole_chunks(shape, chunks, REGION)
        return
    for region in whole_chunks(shape[1:], chunks[1:], REGION):
        yield (slice(time, time + 1), *region)


make_verb(__name__)
