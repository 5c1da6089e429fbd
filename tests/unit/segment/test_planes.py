"""Objects of successive planes that are one, when a 2D model segments a stack."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spoco_zoo.config import ClusteringConfig
from spoco_zoo.segment.planes import cluster_planes
from spoco_zoo.segment.stitch import Rule

RULE = Rule(0.4, 2.0)
EVERYWHERE = (0.0, 0.0, 0.0)


def in_view(
    embeddings: torch.Tensor,
    config: ClusteringConfig,
    background: tuple[float, ...] | None,
    *,
    momentum: torch.Tensor | None = None,
) -> np.ndarray:
    """One object: whatever is not at the origin."""
    return (embeddings.square().sum(0) > 1).numpy().astype(np.int32)


def slanted(kinds: tuple[float, ...]) -> torch.Tensor:
    """A rod that moves 4 pixels per plane, in a pair that turns in 16 and a still channel."""
    embeddings = torch.zeros(3, len(kinds), 6, 40)
    for z, kind in enumerate(kinds):
        where = (slice(None), z, slice(1, 5), slice(4 * z, 4 * z + 12))
        angle = torch.tensor(2 * np.pi * 4 * z / 16)
        value = torch.stack([4 * torch.cos(angle), 4 * torch.sin(angle), torch.tensor(kind)])
        embeddings[where] = value[:, None, None]
    return embeddings


@pytest.mark.parametrize(("turning", "objects"), [(0, 5), (2, 1), (3, 1)])
def test_a_slanted_nucleus_fell_into_one_object_per_plane(turning: int, objects: int) -> None:
    cluster = cluster_planes(in_view, RULE, turning)
    labels = cluster(slanted((3.0,) * 5), ClusteringConfig(), EVERYWHERE)
    assert len(np.unique(labels)) == objects + 1


def test_channels_that_do_not_turn_still_tell_planes_apart() -> None:
    cluster = cluster_planes(in_view, RULE, 2)
    labels = cluster(slanted((3.0, 3.0, -3.0, -3.0)), ClusteringConfig(), EVERYWHERE)
    assert labels[1].max() == labels[0].max() == 1
    assert labels[2].max() == labels[3].max() == 2


def test_one_wide_object_drew_two_columns_of_nuclei_together() -> None:
    def by_kind(
        embeddings: torch.Tensor, *_: object, momentum: torch.Tensor | None = None
    ) -> np.ndarray:
        return embeddings[0].numpy().astype(np.int32)

    embeddings = torch.zeros(1, 5, 8, 20)
    embeddings[0, :, 2:6, 2:9], embeddings[0, :, 2:6, 11:16] = 1, 2
    embeddings[0, 2, 2:6, 2:16] = 1
    cluster = cluster_planes(by_kind, RULE, 1)
    labels = cluster(embeddings, ClusteringConfig(), None)
    assert np.unique(labels[[0, 1, 3, 4], 3, 4]).tolist() == [1]
    above, below = labels[0, 3, 12], labels[4, 3, 12]
    assert above not in (0, 1)
    assert below not in (0, 1, above)
