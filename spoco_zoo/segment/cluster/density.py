"""HDBSCAN, through the `hdbscan` package: exact on small blocks, on a sample of large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from spoco_zoo.segment.cluster.meanshift import draw_sample, foreground_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from spoco_zoo.config import ClusteringConfig

__all__ = ["clusters"]


def clusters(
    field: Tensor, config: ClusteringConfig, background: tuple[float, ...] | None
) -> NDArray[np.int32]:
    """HDBSCAN clusters of a block, int32 ([Z,] Y, X), 0 where it is background.

    The selection epsilon is the bandwidth. With more foreground voxels than
    `config.sample`, a random sample is clustered (which preserves relative
    densities) and every voxel takes the label of its nearest clustered sample;
    the minimum cluster size shrinks with the sampling rate. Where HDBSCAN
    finds noise only, all foreground is one cluster.
    """
    import hdbscan

    mask, rows = foreground_rows(field, config, background)
    result = np.zeros(mask.shape, np.int32)
    everything = rows.cpu().numpy().astype(np.float64)
    sample = draw_sample(rows, config.sample, config.seed).cpu().numpy().astype(np.float64)
    smallest = max(2, round(config.min_size * len(sample) / max(len(everything), 1)))
    if len(sample) <= max(smallest, config.min_samples):
        result[mask] = 1
        return result
    found = hdbscan.HDBSCAN(
        min_cluster_size=smallest,
        min_samples=min(config.min_samples, len(sample) - 1),
        cluster_selection_epsilon=config.bandwidth,
        core_dist_n_jobs=1,
    ).fit_predict(sample)
    clustered = found >= 0
    if not clustered.any():
        result[mask] = 1
        return result
    _, nearest = cKDTree(sample[clustered]).query(everything)
    result[mask] = found[clustered][nearest] + 1
    return result
