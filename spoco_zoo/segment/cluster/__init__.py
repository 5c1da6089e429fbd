"""From embeddings to labels: one interface, four methods.

Every method maps embeddings ``(E, [Z,] Y, X)`` to int32 labels ``([Z,] Y, X)``,
0 for background and 1..n for spatially connected objects, and gives the same
result for the same input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.segment.cluster import consistency, density, meanshift, portable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spoco_zoo.config import ClusteringConfig

__all__ = ["cluster"]


def cluster(
    embeddings: torch.Tensor,
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
    *,
    momentum: torch.Tensor | None = None,
) -> NDArray[np.int32]:
    """Cluster pixel embeddings into instances.

    Parameters
    ----------
    embeddings : Tensor
        Any float dtype, (E, [Z,] Y, X), on any device.
    config : ClusteringConfig
        Method and parameters.
    background : tuple of float or None
        Background prototype, length E. None: every voxel belongs to an object.
    momentum : Tensor, optional
        Embeddings of the same voxels under the momentum network; only the
        consistency method needs them.

    Returns
    -------
    ndarray
        int32 ([Z,] Y, X): 0 is background, 1..n are connected objects.

    Raises
    ------
    ConfigError
        If `config.method` is ``consistency`` and there is no `momentum`.
    DataError
        If an embedding is not finite.
    """
    if not bool(torch.isfinite(embeddings).all()):
        raise DataError(
            "embeddings must be finite",
            f"{int((~torch.isfinite(embeddings)).sum())} NaN or infinite values",
            "Look for NaN in the image; if there is none, train the model again.",
        )
    if embeddings[0].numel() == 0:
        return np.zeros(embeddings.shape[1:], np.int32)
    field = embeddings.detach().float()
    if config.method == "instance":
        host = field.cpu().numpy()
        labels: NDArray[np.int32] = portable.cluster(
            host, background=background, **config.model_dump()
        )
        return labels
    if config.method == "hdbscan":
        return finish(field, density.clusters(field, config, background), config, background)
    labels = finish(field, meanshift.clusters(field, config, background), config, background)
    if config.method == "meanshift":
        return labels
    if momentum is None:
        raise ConfigError(
            "consistency clustering needs the momentum network",
            "a model without one",
            "Choose --clustering meanshift, or export the model again from its run.",
        )
    return consistency.confirmed(labels, momentum.detach().float(), config)


def finish(
    field: torch.Tensor,
    clusters: NDArray[np.int32],
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
) -> NDArray[np.int32]:
    """Split clusters into connected parts; drop small parts, or give them to a neighbour."""
    labels = connected_parts(clusters)
    if background is None:
        labels = portable.absorb_small(field.cpu().numpy(), labels, config.min_size)
        return np.asarray(portable.renumber(labels, np.ones(labels.max() + 1, bool)), np.int32)
    keep = np.bincount(labels.ravel()) >= config.min_size
    return np.asarray(portable.renumber(labels, keep), np.int32)


def connected_parts(clusters: NDArray[np.int32]) -> NDArray[np.int32]:
    """Number the connected parts of each cluster > 0 apart from each other."""
    from skimage.measure import label

    return np.asarray(label(clusters, background=0, connectivity=1), np.int32)
