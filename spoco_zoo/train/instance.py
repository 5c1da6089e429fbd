"""Other forms of the instance term: cross-entropy, affinities, and masks around single voxels.

The default, Dice of soft masks around the means, is `spoco_zoo.train.loss.instance_dice`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spoco_zoo.train.loss import EPS
from spoco_zoo.train.objects import offset_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.train.objects import Objects
    from spoco_zoo.train.pairs import Pairs

__all__ = ["affinity_dice", "draw_offsets", "instance_bce", "sample_voxels"]

OFFSETS = 9
REACH = 18  # voxels of the finest axis between the two voxels of an affinity, at most


def sample_voxels(objects: Objects, generator: torch.Generator | None) -> Tensor:
    """One random voxel of each object, int64 (K,), as indices of rows."""
    device = objects.voxel.device
    order = torch.argsort(objects.owner, stable=True)
    start = objects.size.long().cumsum(0) - objects.size.long()
    chance = torch.rand(objects.count, generator=generator, device=device)
    # float32 rounds what is just below 1 up to 1 when it is multiplied by a large size.
    within = torch.minimum((chance * objects.size).long(), objects.size.long() - 1)
    return objects.voxel[order[start + within]]


def instance_bce(squared: Tensor, pairs: Pairs, two_sigma: float) -> Tensor:
    """Binary cross-entropy of each object's soft mask and its annotation, one value per object.

    ``-1/N sum_p [t_k log s_k + (1 - t_k) log(1 - s_k)]`` over the N voxels that k
    is paired with. With ``s_k = exp(-d^2 / 2 sigma^2)`` the first logarithm is
    exact; the second is bounded where a stranger lies on the anchor.

    Parameters
    ----------
    squared : Tensor
        float (pairs), squared distance of voxel and anchor.
    pairs : Pairs
        See `spoco_zoo.train.pairs`.
    two_sigma : float
        See `spoco_zoo.train.loss.kernel_width`.

    Returns
    -------
    Tensor
        float (k,).
    """
    exponent = squared / two_sigma
    outside = -(-torch.expm1(-exponent)).clamp(min=EPS).log()
    loss = torch.where(pairs.inside(), exponent, outside)
    return pairs.total(loss) / pairs.total(torch.ones_like(loss))


def draw_offsets(
    shape: Sequence[int], anisotropy: Sequence[float], generator: torch.Generator | None
) -> list[tuple[int, ...]]:
    """Offsets between the two voxels of an affinity, none of them zero.

    Parameters
    ----------
    shape : sequence of int
        Crop ([Z,] Y, X).
    anisotropy : sequence of float
        Voxel size per axis relative to the finest: equal reach in physical units.
    generator : torch.Generator or None
    """
    device = generator.device if generator is not None else torch.device("cpu")
    reach = [min(n - 1, max(1, round(REACH / a))) for n, a in zip(shape, anisotropy, strict=True)]
    offsets: list[tuple[int, ...]] = []
    while len(offsets) < OFFSETS:
        draw = [
            int(torch.randint(-r, r + 1, (1,), generator=generator, device=device)) for r in reach
        ]
        if any(draw):
            offsets.append(tuple(draw))
    return offsets


def affinity_dice(
    rows: Tensor, labels: Tensor, offsets: Sequence[tuple[int, ...]], delta_dist: float
) -> Tensor:
    """Dice of the borders that embeddings and annotation put between voxels an offset apart.

    A pair of voxels p and q has the affinity ``a = [1 - d(e_p, e_q) / 2 delta_dist]+^2``
    and the target 1 if both lie in one object, else 0. Per offset
    ``1 - 2 sum (1 - a)(1 - t) / (sum (1 - a)^2 + sum (1 - t)^2)``, over the pairs
    with at least one voxel in an annotated object: about others nothing is known.

    Parameters
    ----------
    rows : Tensor
        float (N * S, E).
    labels : Tensor
        int64 (N, [Z,] Y, X): objects > 0.
    offsets : sequence of tuple of int
        One entry per spatial axis each.
    delta_dist : float
        Embeddings 2 delta_dist apart have affinity 0.

    Returns
    -------
    Tensor
        Scalar, the mean over offsets.
    """
    field = rows.reshape(*labels.shape, -1)
    losses = []
    for offset in offsets:
        here, there = offset_slices(labels.shape[1:], offset)
        first, second = labels[:, *here], labels[:, *there]
        known = ((first > 0) | (second > 0)).nonzero(as_tuple=True)
        difference = field[:, *here][known] - field[:, *there][known]
        distance = (difference.square().sum(-1) + 1e-12).sqrt()
        border = 1 - (1 - distance / (2 * delta_dist)).clamp(min=0).square()
        truth = (first != second)[known].to(border.dtype)
        losses.append(1 - 2 * (border @ truth) / (border @ border + truth.sum() + EPS))
    return torch.stack(losses).mean()
