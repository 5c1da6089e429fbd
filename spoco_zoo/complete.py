"""Sparse annotation, completed with what a model trained on it is sure of (self-training).

Each image is segmented as it is and mirrored along every subset of its axes. An object
becomes annotation if all of these segmentations agree about it and it is about as convex as
annotated ones: what touching objects make when they are joined seldom is. Background becomes
annotation where none of them has an object nearby. What a person annotated keeps its outlines, but
objects are numbered anew; everything in between stays unlabeled::

    annotated by a person    kept, whatever the model says, as objects 1..n
    sure objects             new ids
    CLEAR voxels around all  not annotated
    the rest                 background

So errors of the model that depend on how an image lies do not become annotation, and a model that
is trained on the result sees many more objects, and above all many more pairs of neighbours.
A model that misses most of what was annotated would make background of objects: it is refused.
One that learned a few objects finds these at any rate, so it makes no background at all.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from spoco_zoo.annotated import at_shape, load_annotated, meaning_of_sparse_labels, run_at
from spoco_zoo.bundle.load import load_model
from spoco_zoo.bundle.results import INSIDE, made_folder
from spoco_zoo.errors import BundleError, StoreError
from spoco_zoo.metrics import Contingency
from spoco_zoo.nets.device import choose_device
from spoco_zoo.nets.model import own_network
from spoco_zoo.ngff.write_tiff import write_label_tiff
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.data import BACKGROUND, UNKNOWN
from spoco_zoo.train.files import pair_files
from spoco_zoo.workplace import workplace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from spoco_zoo.nets.model import Embedder, Model

__all__ = ["Completed", "complete_annotation", "completed"]

AGREE = 0.8
"""Least IoU of an object with its likeness in every mirrored image."""
FOUND = 0.5
"""Least IoU of an annotated object with one of the model, which then has found it."""
LEAST = 0.5
"""Share of the annotated objects that a model must find."""
SOLID = 0.9
"""Least share of its convex hull that a new object fills, unless annotated ones fill less."""
BENT = 0.25
"""Share of the annotated objects that may be less convex than any new one."""
FEW = 10
"""Annotated objects from which finding them says that others are found, too."""
CLEAR = 2
"""Voxels around objects that do not become background."""

NO_BACKGROUND = (
    f"Fewer than {FEW} objects are annotated: what the model finds nothing in stays unlabeled, as "
    "it may well be objects unlike these. Objects that it is sure of are added."
)


@dataclass(frozen=True)
class Completed:
    """What was done.

    Attributes
    ----------
    images : int
    annotated, found, added : int
        Objects before, those of them that the model finds as well (IoU of 0.5), and new ones.
    unlabeled : float
        Mean share of the voxels that are still not annotated.
    out : str
    """

    images: int
    annotated: int
    found: int
    added: int
    unlabeled: float
    out: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def complete_annotation(
    model: str | Path | Model,
    images: Path,
    labels: Path,
    out: Path,
    *,
    background_label: int | None = None,
    label_name: str | None = None,
    voxel_size: tuple[float, ...] | None = None,
    rescale: bool = True,
    device: str = "auto",
    listen: Callable[[str, int, int], None] = lambda phase, done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Completed:
    """Write label files that hold the given annotation and what a model is sure of.

    Parameters
    ----------
    model : str, Path or Model
        Trained on the annotation: run, bundle or id of a shipped model.
    images, labels : Path
        Folders of files paired by name, or two files; labels are sparse.
    out : Path
        New folder for uint32 TIFFs of the images' names.
    background_label : int, optional
        Value above 0 that stands for known background in `labels`, if that knows any,
        and in `out`. By default that of the run; needed if there is none.
    label_name : str, optional
        Which labels of OME-Zarr images that hold several; by default those of the run.
    voxel_size : tuple of float, optional
        ([Z,] Y, X) in micrometres, in place of what images state.
    rescale : bool
        Show images of another voxel size than the model's at that size, as `segment` does;
        labels are written at the size of the image.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:I``.
    listen : callable
        Is told a phase, what is done of it and the total.
    say : callable
        Is told what is to be known about the images.

    Returns
    -------
    Completed

    Raises
    ------
    InputError
        If model, images or labels cannot be used, `out` exists, or the model finds fewer than
        half of the annotated objects.
    """
    if out.exists():
        raise StoreError("--out must be a new folder", f"{out} exists", "Name another.")
    place = choose_device(device)
    loaded = (load_model(model) if isinstance(model, (str, Path)) else model).to(place)
    network = own_network(loaded.network, "a model that completes annotation")
    recipe = loaded.recipe
    meaning = meaning_of_sparse_labels(run_at(model), recipe, background_label, label_name)
    assert meaning.background_label is not None
    pairs = pair_files(images, labels)
    given, notes = load_annotated(pairs, meaning, recipe, voxel_size=voxel_size, rescale=rescale)
    for note in notes:
        say(note)
    solid = least_solidity([one.sample.labels for one in given])
    few = sum(len(one.sample.centres) for one in given) < FEW
    if few:
        say(NO_BACKGROUND)
    annotated = known = added = 0
    unlabeled = 0.0
    with made_folder(out.parent, INSIDE), workplace(out) as work:
        partial = work / "labels"
        partial.mkdir()
        for done, one in enumerate(given):
            listen("complete", done, len(given))
            sample = one.sample
            found = opinions(loaded, network, torch.from_numpy(one.seen.image).to(place))
            found = [at_shape(labels, sample.labels.shape) for labels in found]
            result, more = completed(sample.labels, found, solid, background=not few)
            annotated, added = annotated + len(sample.centres), added + more
            known += int(agreed(np.maximum(sample.labels, 0), found[0], FOUND).sum())
            unlabeled += float((result == UNKNOWN).mean()) / len(given)
            write_label_tiff(
                partial / f"{sample.name}.tif", with_background(result, meaning.background_label)
            )
        refuse_if_poor(known, annotated)
        partial.rename(out)
    listen("complete", len(given), len(given))
    return Completed(len(given), annotated, known, added, round(unlabeled, 4), str(out))


def refuse_if_poor(found: int, annotated: int) -> None:
    """Refuse a model that misses most of what a person annotated.

    What it does not see becomes known background, so it has to see most objects.
    """
    if found < LEAST * annotated:
        raise BundleError(
            f"a model that completes annotation must find at least {LEAST:.0%} of the annotated "
            "objects",
            f"{found} of {annotated}",
            "Train longer, annotate more, or choose another model; nothing was written.",
        )


@torch.inference_mode()
def opinions(model: Model, network: nn.Module, image: Tensor) -> list[NDArray[np.int32]]:
    """Labels ([Z,] Y, X) of an image (C, [Z,] Y, X) and of its mirror images, mirrored back."""
    recipe, spatial = model.recipe, range(1, image.ndim)
    mirrors = [axes for n in range(image.ndim) for axes in itertools.combinations(spatial, n)]
    second = model.momentum if recipe.clustering.method == "consistency" else None

    def embedded(by: Embedder, axes: tuple[int, ...]) -> Tensor:
        return by(image.flip(axes)[None])[0].flip(axes)

    return [
        cluster(
            embedded(network, axes),
            recipe.clustering,
            recipe.background,
            momentum=embedded(second, axes) if second is not None else None,
        )
        for axes in mirrors
    ]


def completed(
    annotation: NDArray[np.int32],
    found: list[NDArray[np.int32]],
    solid: float = SOLID,
    *,
    background: bool = True,
) -> tuple[NDArray[np.int32], int]:
    """An annotation with what is sure.

    Parameters
    ----------
    annotation : ndarray
        int32 ([Z,] Y, X): objects > 0, `UNKNOWN`, `BACKGROUND`.
    found : list of ndarray
        int32 labels of the same voxels, one per opinion; outlines are those of the first.
    solid : float
        Least share of its convex hull that a new object fills.
    background : bool
        Whether what is far from all objects becomes background.

    Returns
    -------
    labels : ndarray
        As `annotation`.
    added : int
        New objects.
    """
    labels, unknown = found[0], annotation == UNKNOWN
    sure = np.logical_and.reduce([agreed(labels, other) for other in found])
    # An annotated object is complete, so what overlaps it is that one, or wrong; and what
    # overlaps known background is wrong.
    sure[np.unique(labels[~unknown])] = False
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is not None and sure[number]:
            sure[number] = solidity(labels[place] == number) >= solid
    sure[0] = False
    ids = np.zeros(len(sure), np.int32)
    ids[sure] = int(annotation.max(initial=0)) + 1 + np.arange(int(sure.sum()))
    result = annotation.copy()
    result[unknown] = ids[labels[unknown]]
    objects = np.logical_or.reduce([annotation > 0, *(other > 0 for other in found)])
    if background:
        result[unknown & ~ndimage.binary_dilation(objects, iterations=CLEAR)] = BACKGROUND
    return result, int(sure.sum())


def agreed(
    labels: NDArray[np.int32], other: NDArray[np.int32], least: float = AGREE
) -> NDArray[np.bool_]:
    """Per label 0..n whether an object of the other image has an IoU of at least `least`."""
    sizes, others = np.bincount(labels.ravel()), np.bincount(other.ravel())
    table = Contingency()
    table.update(labels, other)
    both = table.counts()
    iou = both.count / (sizes[both.prediction] + others[both.truth] - both.count)
    result = np.zeros(len(sizes), bool)
    result[both.prediction[(iou >= least) & (both.prediction > 0) & (both.truth > 0)]] = True
    return result


def least_solidity(annotations: Iterable[NDArray[np.int32]]) -> float:
    """Share of its convex hull that a new object must fill: worms fill less than cells."""
    given = [
        solidity(labels[place] == number)
        for labels in annotations
        for number, place in enumerate(ndimage.find_objects(np.maximum(labels, 0)), start=1)
        if place is not None
    ]
    return min(SOLID, float(np.quantile(given, BENT))) if given else SOLID


def solidity(inside: NDArray[np.bool_]) -> float:
    """Share of its convex hull that an object fills; 1 where it is flat along an axis."""
    from skimage.morphology import convex_hull_image

    if min(inside.shape) < 3:
        return 1.0
    return float(inside.sum() / max(int(convex_hull_image(inside).sum()), 1))


def with_background(labels: NDArray[np.int32], value: int) -> NDArray[np.uint32]:
    """Labels as in a file, uint32: `value` is background, and no object has it."""
    result = np.where(labels >= value, labels + 1, labels)
    return np.where(labels == BACKGROUND, value, result).astype(np.uint32)
