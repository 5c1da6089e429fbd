"""The SPOCO objective as plain functions of tensors.

Symbols follow the paper (Wolny et al., CVPR 2022) and De Brabandere et al.
(2017): ``e_p`` is the embedding of voxel p, ``mu_k`` the mean embedding of
object k with ``N_k`` voxels, ``[x]+ = max(x, 0)`` and ``d`` the Euclidean
norm. Embeddings are rows (P, E). Terms that compare objects with voxels around
them give one value per object, all others a scalar that is 0 and differentiable
where there is nothing to compare. 2D and 3D differ in nothing here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spoco_zoo.train.objects import scatter_mean
from spoco_zoo.train.pairs import squared_distances

if TYPE_CHECKING:
    from spoco_zoo.train.objects import Objects
    from spoco_zoo.train.pairs import Pairs

__all__ = [
    "background_pull",
    "background_push",
    "consistency",
    "foreground",
    "instance_dice",
    "kernel_width",
    "positive_unlabeled",
    "pull",
    "push",
    "regulariser",
    "soft_mask",
    "unlabeled_push",
]

EPS = 1e-6


def _distance(difference: Tensor) -> Tensor:
    """Euclidean norm over the last axis, with a finite gradient at zero."""
    return (difference.square().sum(-1) + 1e-12).sqrt()


def kernel_width(delta_var: float, threshold: float) -> float:
    """``2 sigma^2`` of the kernel that falls to `threshold` at distance `delta_var` (eq. 3)."""
    return delta_var**2 / -math.log(threshold)


def soft_mask(squared_distance: Tensor, two_sigma: float) -> Tensor:
    """Soft instance selection ``s = exp(-d^2 / 2 sigma^2)`` (section 3.2, equation 3).

    Parameters
    ----------
    squared_distance : Tensor
        float, of any shape, between voxels and anchors.
    two_sigma : float
        ``2 sigma^2``, see `kernel_width`.
    """
    return (squared_distance / -two_sigma).exp_()


def pull(rows: Tensor, means: Tensor, objects: Objects, delta_var: float) -> Tensor:
    """Variance term: ``1/K sum_k 1/N_k sum_{p in k} [d(e_p, mu_k) - delta_var]+^2`` (eq. 1).

    Parameters
    ----------
    rows : Tensor
        float (P, E), embeddings of all voxels of the batch.
    means : Tensor
        float (K, E), of its objects.
    objects : Objects
        Which voxels belong to which object.
    delta_var : float
    """
    own = rows[objects.voxel]
    excess = (_distance(own - means[objects.owner]) - delta_var).clamp(min=0).square()
    per_object = scatter_mean(excess, objects.owner, objects.size)
    return per_object.sum() / max(objects.count, 1)


def push(means: Tensor, pairs: Tensor, delta_dist: float) -> Tensor:
    """Distance term: mean over pairs of ``[2 delta_dist - d(mu_a, mu_b)]+^2`` (eq. 2).

    Where there are fewer pairs than objects, the sum is divided by the number of
    objects: with few of them annotated, neighbours are rare, and single pairs
    would shake the whole network.

    Parameters
    ----------
    means : Tensor
        float (K, E).
    pairs : Tensor
        bool (K, K), the pairs that must differ: all pairs within an image in
        the paper, neighbours only in the local form.
    delta_dist : float
        Half of the distance from which there is no push.
    """
    first, second = pairs.nonzero(as_tuple=True)
    short = (2 * delta_dist - _distance(means[first] - means[second])).clamp(min=0).square()
    return short.sum() / max(first.numel(), means.shape[0], 1)


def regulariser(means: Tensor) -> Tensor:
    """``1/K sum_k d(mu_k, 0)`` of means (K, E): keeps embeddings near the origin."""
    return _distance(means).sum() / max(means.shape[0], 1)


def instance_dice(squared: Tensor, pairs: Pairs, sizes: Tensor, two_sigma: float) -> Tensor:
    """Dice of each object's soft mask against its annotation, one value per object.

    ``1 - 2 sum_p s_k t_k / (sum_p s_k^2 + sum_p t_k^2)`` with the soft mask s_k
    around k's anchor (section 3.2), over the voxels that k is paired with. An
    annotated object is complete, so every other voxel is a negative, annotated
    or not. Their mean weighs objects equally.

    Parameters
    ----------
    squared : Tensor
        float (pairs), squared distance of voxel and anchor.
    pairs : Pairs
        See `spoco_zoo.train.pairs`.
    sizes : Tensor
        (k,), voxels per object.
    two_sigma : float
        See `kernel_width`.

    Returns
    -------
    Tensor
        float (k,).
    """
    soft = soft_mask(squared, two_sigma)
    square = pairs.total(soft.square()) + sizes.to(soft.dtype)
    return 1 - 2 * pairs.total_inside(soft) / (square + EPS)


def unlabeled_push(squared: Tensor, pairs: Pairs, unlabeled: Tensor, delta_dist: float) -> Tensor:
    """``1/N_u sum_{p unlabeled} [delta_dist - d(e_p, mu_k)]+^2`` per object (section 3.3).

    Parameters
    ----------
    squared : Tensor
        float (pairs), squared distance of voxel and mean.
    pairs : Pairs
        Those that are looked at: whole images in the paper.
    unlabeled : Tensor
        bool (P,), the voxels that nobody annotated.

    Returns
    -------
    Tensor
        float (k,).
    """
    short = (delta_dist - (squared + 1e-12).sqrt_()).relu_().square()
    total, count = pairs.total_among(short, unlabeled)
    return total / count.clamp(min=1)


def background_pull(rows: Tensor, background: Tensor, delta_var: float) -> Tensor:
    """Pull of known background to its prototype, the origin: mean of ``[|e_p| - delta_var]+^2``."""
    excess = (_distance(rows[background]) - delta_var).clamp(min=0).square()
    return excess.sum() / max(excess.numel(), 1)


def background_push(means: Tensor, delta_dist: float) -> Tensor:
    """Push of objects from the background prototype: mean of ``[2 delta_dist - |mu_k|]+^2``."""
    short = (2 * delta_dist - _distance(means)).clamp(min=0).square()
    return short.sum() / max(means.shape[0], 1)


def foreground(rows: Tensor, positive: Tensor, negative: Tensor, delta_dist: float) -> Tensor:
    """Logistic loss on the distance from the background prototype, with its border at delta_dist.

    Pull and push leave the place where an object ends undecided, because both
    vanish within their margins. Here the logit ``4 (|e_p| - delta_dist)`` says
    "foreground", so that the border lies at a distance that is known.

    Parameters
    ----------
    rows : Tensor
        float (P, E).
    positive, negative : Tensor
        bool (P,), voxels known to be in an object, and known to be background.
    delta_dist : float
        Distance of the border from the prototype.
    """
    known = (positive | negative).nonzero().squeeze(1)
    logit = 4 * (_distance(rows[known]) - delta_dist)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        logit, positive[known].to(logit.dtype), reduction="sum"
    )
    return loss / max(known.numel(), 1)


def positive_unlabeled(
    rows: Tensor,
    positive: Tensor,
    negative: Tensor,
    unlabeled: Tensor,
    around: Tensor,
    delta_dist: float,
) -> Tensor:
    """The border of `foreground` where only some objects are annotated; needs no class prior.

    Mean logistic loss of the annotated objects, plus that of known background
    if there is any, plus the mean of ``sigmoid(logit)`` over unlabeled voxels,
    as if they were background. Unlabeled voxels are a mixture: where they look
    like objects, the annotated ones outweigh them as long as objects cover less
    than half of the image, because every set is averaged by itself (the
    balanced error is minimised by the same rule under such contamination:
    Menon et al., ICML 2015). The sigmoid is bounded, so objects that nobody
    annotated pull little.

    Sets that are averaged by themselves put the border too far out: few voxels
    of objects weigh as much as many of background. So the unlabeled voxels
    `around` annotated objects, most of which are background, weigh as much per
    voxel as those within: where an object ends is learned there.

    Parameters
    ----------
    rows : Tensor
        float (P, E).
    positive, negative, unlabeled : Tensor
        bool (P,), voxels of objects, of known background, and the rest.
    around : Tensor
        bool (P,), voxels near to annotated objects, outside of them.
    delta_dist : float
        Distance of the border from the prototype.
    """
    logit = 4 * (_distance(rows) - delta_dist)
    as_background = torch.sigmoid(logit)
    parts = [
        torch.nn.functional.softplus(-logit[positive]),
        torch.nn.functional.softplus(logit[negative]),
        as_background[unlabeled],
    ]
    means = [part.mean() for part in parts if part.numel()]
    if not means:
        return logit.sum() * 0
    near = (as_background * (around & unlabeled)).sum() / positive.sum().clamp(min=1)
    return (torch.stack(means).sum() + near) / 2


def consistency(
    student: Tensor,
    teacher: Tensor,
    unlabeled: Tensor,
    *,
    delta_var: float,
    two_sigma: float,
    max_anchors: int,
    volume_threshold: float,
    generator: torch.Generator,
) -> Tensor:
    """Agreement of soft masks under the network and its momentum copy (section 3.3, eq. 5).

    Anchors are drawn at random from the not yet covered part of the unlabeled
    region until less than `volume_threshold` of that region is uncovered. Each
    anchor gives one mask per network, around its own embedding under it; both
    networks' hard neighbourhoods (d < delta_var) count as covered.

    Parameters
    ----------
    student, teacher : Tensor
        float (N, S, E); no gradient flows into `teacher`.
    unlabeled : Tensor
        bool (N, S).
    delta_var, two_sigma : float
        Radius of a hard neighbourhood, width of the soft one.
    max_anchors : int
        Most anchors per image.
    volume_threshold : float
        Share of the unlabeled region that may stay uncovered.
    generator : torch.Generator
        Source of the anchors, on the device of the embeddings.

    Returns
    -------
    Tensor
        Mean of ``1 - Dice(f mask, g mask)`` over all anchors of the batch.
    """
    teacher = teacher.detach()
    anchors = draw_anchors(
        (student.detach(), teacher),
        unlabeled,
        delta_var=delta_var,
        max_anchors=max_anchors,
        volume_threshold=volume_threshold,
        generator=generator,
    )
    losses = [student.sum().reshape(1) * 0]
    for f_rows, g_rows, chosen in zip(student, teacher, anchors, strict=True):
        f, g = (
            soft_mask(squared_distances(rows[chosen], rows), two_sigma) for rows in (f_rows, g_rows)
        )
        square = torch.linalg.vecdot(f, f) + torch.linalg.vecdot(g, g)
        losses.append(1 - 2 * torch.linalg.vecdot(f, g) / (square + EPS))
    return torch.cat(losses).sum() / max(sum(map(len, anchors)), 1)


@torch.no_grad()
def draw_anchors(
    fields: tuple[Tensor, Tensor],
    unlabeled: Tensor,
    *,
    delta_var: float,
    max_anchors: int,
    volume_threshold: float,
    generator: torch.Generator,
) -> list[Tensor]:
    """Voxels whose neighbourhoods cover the unlabeled region, int64 (A_n,) per image.

    Parameters are those of `consistency`; `fields` are the embeddings (N, S, E)
    of both networks.
    """
    uncovered = unlabeled.clone()
    budget = unlabeled.sum(1) * volume_threshold
    squared_lengths = [field.square().sum(-1) for field in fields]
    drawn: list[list[Tensor]] = [[] for _ in unlabeled]
    for _ in range(max_anchors):
        active = (uncovered.sum(1) > budget).nonzero().squeeze(1)
        if active.numel() == 0:
            break
        chance = uncovered[active].to(torch.float32)
        anchors = torch.multinomial(chance, 1, generator=generator)
        for n, anchor in zip(active.tolist(), anchors, strict=True):
            drawn[n].append(anchor)
            for field, lengths in zip(fields, squared_lengths, strict=True):
                centre = field[n, anchor].flatten()
                # d^2 = |e|^2 - 2 e.c + |c|^2: one pass over the embeddings, no copy of them.
                squared = torch.addmv(lengths[n], field[n], centre, alpha=-2) + centre @ centre
                uncovered[n] &= squared >= delta_var**2
            uncovered[n, anchor] = False  # whatever rounding did, the next anchor is another
    none = unlabeled.new_zeros(0, dtype=torch.long)
    return [torch.cat([none, *few]) for few in drawn]
