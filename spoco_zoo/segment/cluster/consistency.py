"""Consistency clustering: keep what the momentum network confirms (paper, section 3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from spoco_zoo.segment.cluster import portable, regions

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from spoco_zoo.config import ClusteringConfig

__all__ = ["confirmed"]

ANCHORS = 32  # voxels of an object from which the momentum network must find it again
MARGIN = 8  # voxels around an object's bounding box that are looked at
PIECE = 1 << 16  # voxels that anchors are compared with at once: a window may be the whole block


def confirmed(
    labels: NDArray[np.int32], momentum: Tensor, config: ClusteringConfig
) -> NDArray[np.int32]:
    """Objects whose (lower) median IoU with their momentum neighbourhoods is at least `iou`.

    For random voxels of an object, the ball of radius `bandwidth` around the
    voxel's momentum embedding is one neighbourhood. It is taken in a window
    around the object, because far away objects may share an embedding.

    Parameters
    ----------
    labels : ndarray
        int32 ([Z,] Y, X), connected objects 1..n. Changed in place.
    momentum : Tensor
        Any float dtype, (E, [Z,] Y, X).
    config : ClusteringConfig
        `bandwidth`, `iou`, `seed`.
    """
    keep = np.zeros(labels.max(initial=0) + 1, bool)
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        window = tuple(
            slice(max(0, side.start - MARGIN), min(side.stop + MARGIN, n))
            for side, n in zip(box, labels.shape, strict=True)
        )
        inside = torch.from_numpy(labels[window].ravel() == index).to(momentum.device)
        rows = momentum[(slice(None), *window)].flatten(1).T.float()
        rng = np.random.default_rng([config.seed, index])
        own = rows[inside]
        picks = rng.choice(len(own), min(ANCHORS, len(own)), replace=False)
        anchors = own[torch.from_numpy(np.sort(picks)).to(rows.device)]
        ball = common = torch.zeros(len(anchors), dtype=torch.int64, device=rows.device)
        for part, within in zip(rows.split(PIECE), inside.split(PIECE), strict=True):
            near = torch.cdist(anchors, part) <= config.bandwidth
            ball, common = ball + near.sum(1), common + (near & within).sum(1)
        iou = common / (ball + inside.sum() - common)
        keep[index] = float(iou.median()) >= config.iou
    portable.apply(regions.renumbering(keep), labels)
    return labels
