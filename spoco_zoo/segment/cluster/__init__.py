"""From embeddings to labels: one interface, four methods.

Every method maps embeddings ``(E, [Z,] Y, X)`` to int32 labels ``([Z,] Y, X)``,
0 for background and 1..n for spatially connected objects, and gives the same
result for the same input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import ConfigError
from spoco_zoo.segment.cluster import consistency, density, meanshift, portable, regions
from spoco_zoo.segment.cluster.tensor_field import TensorField, check_finite, local_field

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from spoco_zoo.config import ClusteringConfig

__all__ = ["check_momentum", "cluster"]


def check_momentum(config: ClusteringConfig, momentum: object | None) -> None:
    """Refuse a clustering by two networks where there is one.

    Raises
    ------
    ConfigError
    """
    if config.method == "consistency" and momentum is None:
        raise ConfigError(
            "consistency clustering needs the momentum network",
            "a model without one",
            "Choose --clustering meanshift, or export the model again from its run.",
        )


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
    check_finite(embeddings)
    if embeddings[0].numel() == 0:
        return np.zeros(embeddings.shape[1:], np.int32)
    if config.method == "instance":
        return np.asarray(
            portable.cluster(local_field(embeddings), background=background, **config.model_dump()),
            np.int32,
        )
    check_momentum(config, momentum)
    field = TensorField(embeddings)
    find = density.clusters if config.method == "hdbscan" else meanshift.clusters
    labels = find(field, config, background)
    split_parts(labels)
    drop_or_absorb(field, labels, config.min_size, background is not None)
    if config.method == "consistency" and momentum is not None:
        labels = consistency.confirmed(labels, momentum.detach(), config)
    if config.fill_holes:
        portable.close_holes(labels)
    return labels


def split_parts(labels: NDArray[np.int32]) -> None:
    """Number the connected parts of each cluster > 0 apart from each other, in place."""
    from skimage.measure import label

    def split(slab: slice) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return label(labels[slab], background=0, connectivity=1), labels[slab]

    portable.number_parts(labels, split)


def drop_or_absorb(
    field: portable.Field, labels: NDArray[np.int32], min_size: int, with_background: bool
) -> None:
    """Drop small parts, or give them to a neighbour where there is no background; in place."""
    count = int(labels.max(initial=0))
    if with_background:
        sizes = np.zeros(count + 1, np.int64)
        for slab in portable.slabs(labels.shape):
            sizes += np.bincount(labels[slab].ravel(), minlength=count + 1)
        table = regions.renumbering(sizes >= min_size)
    else:
        found = portable.measure(field, labels, count)
        table = regions.absorb_small(found, portable.contacts(labels), min_size)
    portable.apply(table, labels)
