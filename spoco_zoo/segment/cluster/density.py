"""HDBSCAN, through the `hdbscan` package: exact on small blocks, on a sample of large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from spoco_zoo.segment.cluster import portable
from spoco_zoo.segment.cluster.meanshift import assign, draw_sample, mark_foreground

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spoco_zoo.config import ClusteringConfig
    from spoco_zoo.segment.cluster.field import TensorField

__all__ = ["clusters"]


def clusters(
    field: TensorField, config: ClusteringConfig, background: tuple[float, ...] | None
) -> NDArray[np.int32]:
    """HDBSCAN clusters of a block, int32 ([Z,] Y, X), 0 where it is background.

    The selection epsilon is the bandwidth. With more foreground voxels than
    `config.sample`, a random sample is clustered (which preserves relative
    densities) and every voxel takes the label of its nearest clustered sample;
    the minimum cluster size shrinks with the sampling rate. Where HDBSCAN
    finds noise only, all foreground is one cluster.
    """
    import hdbscan

    labels = mark_foreground(field, config, background)
    total = sum(int(np.count_nonzero(labels[slab])) for slab in portable.slabs(labels.shape))
    picks = draw_sample(labels, config.sample, config.seed)
    smallest = max(2, round(config.min_size * len(picks) / max(total, 1)))
    if len(picks) <= max(smallest, config.min_samples):
        return labels
    sample = field.tensor_rows(picks)
    found = hdbscan.HDBSCAN(
        min_cluster_size=smallest,
        min_samples=min(config.min_samples, len(picks) - 1),
        cluster_selection_epsilon=config.bandwidth,
        core_dist_n_jobs=1,
    ).fit_predict(sample.cpu().numpy().astype(np.float64))
    clustered = found >= 0
    if not clustered.any():
        return labels
    known = sample[torch.from_numpy(clustered).to(sample.device)]
    numbers = found[clustered].astype(np.int32) + 1
    flat, plane = labels.reshape(-1), labels[:1].size
    for slab in portable.slabs(labels.shape):
        where = np.flatnonzero(labels[slab]) + slab.start * plane
        if where.size:
            flat[where] = numbers[assign(field.tensor_rows(where), known) - 1]
    return labels
