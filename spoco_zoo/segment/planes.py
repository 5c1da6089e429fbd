"""A 2D model on a stack: plane by plane, then linked from plane to plane.

Two objects of successive planes are one under the rule for two objects of
neighbouring blocks: they overlap enough, and their mean embeddings are near. But
planes show different things, where blocks have seen the same slab: each object is
joined with the one below and the one above that it overlaps most, and with no
other, or one wide object would draw two columns of nuclei together.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.segment.cluster.regions import components
from spoco_zoo.segment.stitch import Rule, make_side, match

if TYPE_CHECKING:
    from torch import Tensor

    from spoco_zoo.config import ClusteringConfig
    from spoco_zoo.nets.model import Clusterer, Embedder

__all__ = ["cluster_planes", "planewise"]


def planewise(network: Embedder) -> Embedder:
    """A 2D network as one that takes planes (N, C, 1, Y, X) of a stack."""

    def forward(x: Tensor, /) -> Tensor:
        return network(x.squeeze(2)).unsqueeze(2)

    return forward


def cluster_planes(cluster: Clusterer, rule: Rule, turning: int) -> Clusterer:
    """A clustering of planes as one of stacks.

    Parameters
    ----------
    cluster : Clusterer
        Takes embeddings (E, Y, X).
    rule : Rule
        When objects of successive planes are one.
    turning : int
        The first channels, which turn with position, say nothing here: from plane to plane
        an object's middle moves.

    Returns
    -------
    Clusterer
        Takes embeddings (E, Z, Y, X).
    """

    def stack(
        embeddings: Tensor,
        config: ClusteringConfig,
        background: tuple[float, ...] | None,
        /,
        *,
        momentum: Tensor | None = None,
    ) -> np.ndarray:
        planes = []
        for z in range(embeddings.shape[1]):
            second = None if momentum is None else momentum[:, z]
            planes.append(cluster(embeddings[:, z], config, background, momentum=second))
        still = embeddings[turning:] if turning < len(embeddings) else embeddings[:1] * 0
        return _link(planes, still.cpu().numpy(), rule)

    return stack


def _link(planes: list[np.ndarray], embeddings: np.ndarray, rule: Rule) -> np.ndarray:
    """Join the labels of successive planes into objects 1..n of the stack."""
    first = np.cumsum([0, *(int(plane.max(initial=0)) for plane in planes)])
    edges = [np.empty((0, 2), np.int64)]
    sides = [make_side(p, embeddings[:, z]) for z, p in enumerate(planes)]
    for z, (below, above) in enumerate(pairwise(sides)):
        if len(below.ids) and len(above.ids):
            edges.append(match(below, above, rule).pairs + first[z : z + 2])
    total = int(first[-1])
    # Node 0 is the background, which no edge reaches: it stays alone and first.
    component = components(np.concatenate(edges), total + 1)
    shifted = [np.where(p > 0, p + f, 0) for p, f in zip(planes, first, strict=False)]
    labels: np.ndarray = component[np.stack(shifted)]
    return labels
