"""Sparse annotation, completed with what a model trained on it is sure of (self-training).

Each training image is segmented as it is and mirrored along every subset of its axes. An object
becomes annotation if all of these segmentations agree about it (IoU of `AGREE`) and it is as
convex as annotated objects are (`SOLID`: what touching objects make when they are joined seldom
is). Background becomes annotation where none of them, nor the annotation, has an object within
`CLEAR` voxels. What a person annotated stays as it is, and everything in between is unlabeled.
Only the sparse annotation is looked at::

    python -m benchmarks.pseudo_labels MODEL IMAGES SPARSE MORE --background-label 65535
    spoco-zoo train --annotation sparse --background-label 65535 --images IMAGES --labels MORE ...

IMAGES and SPARSE are folders paired by name. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch
from scipy import ndimage
from skimage.measure import regionprops
from torch import nn

from spoco_zoo.bundle.load import load_model
from spoco_zoo.config import TrainConfig
from spoco_zoo.segment.cluster import cluster
from spoco_zoo.train.data import load_samples
from spoco_zoo.train.files import pair_files, read_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spoco_zoo.nets.model import Model

AGREE = 0.8
SOLID = 0.9
CLEAR = 2


@torch.inference_mode()
def opinions(model: Model, image: NDArray[np.float32]) -> list[NDArray[np.int32]]:
    """Labels of an image (C, [Z,] Y, X) and of its mirror images, mirrored back."""
    assert isinstance(model.network, nn.Module)
    recipe, found = model.recipe, []
    spatial = range(1, image.ndim)
    for axes in itertools.chain.from_iterable(
        itertools.combinations(spatial, n) for n in range(image.ndim)
    ):
        mirrored = torch.from_numpy(np.ascontiguousarray(np.flip(image, axes)))[None]
        embeddings = model.network(mirrored)[0].flip(axes)
        found.append(cluster(embeddings, recipe.clustering, recipe.background))
    return found


def agreed(labels: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Per label 0..n whether an object of the other image has an IoU of at least `AGREE`."""
    sizes, others = np.bincount(labels.ravel()), np.bincount(other.ravel())
    both, common = np.unique(np.stack([labels.ravel(), other.ravel()]), axis=1, return_counts=True)
    iou = common / (sizes[both[0]] + others[both[1]] - common)
    result = np.zeros(len(sizes), bool)
    result[both[0][(iou >= AGREE) & (both > 0).all(0)]] = True
    return result


def completed(
    sparse: NDArray[Any], found: list[NDArray[np.int32]], background: int
) -> tuple[NDArray[Any], int]:
    """The annotation with what is sure, and the number of objects added."""
    labels = found[0]
    sure = np.logical_and.reduce([agreed(labels, other) for other in found])
    annotated = (sparse > 0) & (sparse != background)
    # Objects of the annotation are complete: what overlaps one is that one, or wrong.
    sure[np.unique(labels[sparse > 0])] = False
    for region in regionprops(labels):
        sure[region.label] &= region.solidity >= SOLID
    result = sparse.copy()
    taken = np.flatnonzero(sure)
    table = np.zeros(len(sure), sparse.dtype)
    table[taken] = int(sparse[annotated].max(initial=0)) + 1 + np.arange(len(taken))
    if len(taken) and int(table.max()) >= background:
        raise ValueError(f"more objects than the background's label, {background}, leaves room for")
    result[sparse == 0] = table[labels][sparse == 0]
    anything = np.logical_or.reduce([*(other > 0 for other in found), annotated])
    clear = ~ndimage.binary_dilation(anything, iterations=CLEAR)
    result[clear & (sparse == 0)] = background
    return result, len(taken)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("sparse", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--background-label", type=int, required=True)
    asked = parser.parse_args()
    model = load_model(asked.model)
    settings = TrainConfig(
        ndim=model.recipe.net.ndim, annotation="sparse", background_label=asked.background_label
    )
    asked.out.mkdir(parents=True)
    pairs = pair_files(asked.images, asked.sparse)
    before = added = 0
    unlabeled = []
    for pair, sample in zip(pairs, load_samples(pairs, settings), strict=True):
        sparse = read_array(pair.labels)
        labels, more = completed(sparse, opinions(model, sample.image), asked.background_label)
        tifffile.imwrite(asked.out / f"{pair.name}.tif", labels, compression="zlib")
        before += len(sample.centres)
        added += more
        unlabeled.append(float((labels == 0).mean()))
    print(
        json.dumps(
            {
                "images": len(pairs),
                "annotated": before,
                "added": added,
                "unlabeled": round(float(np.mean(unlabeled)), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
