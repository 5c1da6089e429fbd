"""Mean-shift with a flat kernel, on a sample of voxels, then one assignment of them all.

The embedding space is nearly empty: a block's voxels crowd around a few hundred
modes. So modes are sought among a seeded sample, starting from the occupied
cells of a grid with the bandwidth as its side (as scikit-learn's bin seeding
does), and every voxel is then given to its nearest mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from spoco_zoo.segment.cluster import portable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from spoco_zoo.config import ClusteringConfig
    from spoco_zoo.segment.cluster.field import TensorField

__all__ = ["clusters", "draw_sample", "find_modes", "mark_foreground"]

MAX_STEPS = 300
CHUNK = 1 << 22  # entries of one voxel-to-mode distance table


def mark_foreground(
    field: TensorField, config: ClusteringConfig, background: tuple[float, ...] | None
) -> NDArray[np.int32]:
    """Labels that are 1 in the foreground and 0 elsewhere, int32 ([Z,] Y, X)."""
    labels = np.zeros(field.shape, np.int32)
    for slab in portable.slabs(field.shape):
        labels[slab] = field.foreground(slab, background, config.foreground)
    return labels


def draw_sample(labels: NDArray[np.int32], size: int, seed: int) -> NDArray[np.int64]:
    """Flat indices of at most `size` voxels > 0, drawn without replacement, in order."""
    counts = [int(np.count_nonzero(labels[slab])) for slab in portable.slabs(labels.shape)]
    total = sum(counts)
    picks = np.arange(total)
    if total > size:
        picks = np.sort(np.random.default_rng(seed).choice(total, size, replace=False))
    ends = np.cumsum(counts)
    found = [np.zeros(0, np.int64)]
    plane = labels[:1].size
    for slab, end, count in zip(portable.slabs(labels.shape), ends, counts, strict=True):
        mine = picks[np.searchsorted(picks, end - count) : np.searchsorted(picks, end)]
        if mine.size:
            where = np.flatnonzero(labels[slab])
            found.append(where[mine - (end - count)] + slab.start * plane)
    return np.concatenate(found)


def find_modes(sample: Tensor, bandwidth: float) -> Tensor:
    """Modes of the density of `sample` (n, E) under a flat kernel, densest first, (m, E).

    Of modes closer than `bandwidth` only the densest stays. Points that have come
    to the same place go on as one: after a few steps few are left of thousands.
    """
    moving = torch.unique((sample / bandwidth).round(), dim=0) * bandwidth
    still = [moving[:0]]
    for _ in range(MAX_STEPS):
        near = (torch.cdist(moving, sample) <= bandwidth).to(sample.dtype)
        count = near.sum(1, keepdim=True)
        moved = torch.where(count > 0, near @ sample / count.clamp(min=1), moving)
        far = (moved - moving).norm(dim=1) >= 1e-3 * bandwidth
        still.append(moved[~far])
        moving = torch.unique(moved[far], dim=0)
        if not len(moving):
            break
    points = torch.unique(torch.cat([*still, moving]), dim=0)
    support = (torch.cdist(points, sample) <= bandwidth).sum(1)
    order = torch.argsort(support, descending=True, stable=True)
    return _thin(points[order[support[order] > 0]], bandwidth)


def _thin(points: Tensor, bandwidth: float) -> Tensor:
    """Go through the points in order and drop those within `bandwidth` of one kept before."""
    close = torch.cdist(points, points).cpu().numpy() < bandwidth
    keep = np.ones(len(points), bool)
    for i in range(len(points)):
        if keep[i]:
            keep[i + 1 :] &= ~close[i, i + 1 :]
    return points[torch.from_numpy(keep).to(points.device)]


def assign(rows: Tensor, modes: Tensor) -> NDArray[np.int32]:
    """Index 1..m of the nearest mode for each row."""
    # Smallest |r - m|^2 is largest r.m - |m|^2 / 2: one matrix product per chunk.
    half = (modes * modes).sum(1) / 2
    step = max(1, CHUNK // max(1, len(modes)))
    nearest = [torch.addmm(-half, part, modes.T).argmax(1) + 1 for part in rows.split(step)]
    return torch.cat(nearest).to(torch.int32).cpu().numpy()


def clusters(
    field: TensorField, config: ClusteringConfig, background: tuple[float, ...] | None
) -> NDArray[np.int32]:
    """Mean-shift clusters of a block, int32 ([Z,] Y, X), 0 where it is background."""
    labels = mark_foreground(field, config, background)
    picks = draw_sample(labels, config.sample, config.seed)
    if not picks.size:
        return labels
    modes = find_modes(field.tensor_rows(picks), config.bandwidth)
    flat, plane = labels.reshape(-1), labels[:1].size
    for slab in portable.slabs(labels.shape):
        where = np.flatnonzero(labels[slab]) + slab.start * plane
        if where.size:
            flat[where] = assign(field.tensor_rows(where), modes)
    return labels
