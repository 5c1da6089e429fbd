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

from spoco_zoo.segment.cluster.portable import foreground_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from spoco_zoo.config import ClusteringConfig

__all__ = ["clusters", "find_modes"]

MAX_STEPS = 300
CHUNK = 1 << 22  # entries of one voxel-to-mode distance table


def foreground_rows(
    field: Tensor, config: ClusteringConfig, background: tuple[float, ...] | None
) -> tuple[NDArray[np.bool_], Tensor]:
    """Foreground mask ([Z,] Y, X) and the embeddings in it, float32 (P, E)."""
    mask = foreground_mask(field.cpu().numpy(), background, config.foreground)
    inside = torch.from_numpy(mask).to(field.device)
    return mask, field[:, inside].T.contiguous()


def draw_sample(rows: Tensor, size: int, seed: int) -> Tensor:
    """At most `size` rows, drawn without replacement and with a seed."""
    if rows.shape[0] <= size:
        return rows
    picks = np.random.default_rng(seed).choice(rows.shape[0], size, replace=False)
    return rows[torch.from_numpy(np.sort(picks)).to(rows.device)]


def find_modes(sample: Tensor, bandwidth: float) -> Tensor:
    """Modes of the density of `sample` (n, E) under a flat kernel, densest first, (m, E).

    Of modes closer than `bandwidth` only the densest stays.
    """
    points = torch.unique((sample / bandwidth).round(), dim=0) * bandwidth
    active = torch.ones(len(points), dtype=torch.bool, device=points.device)
    for _ in range(MAX_STEPS):
        near = (torch.cdist(points[active], sample) <= bandwidth).to(sample.dtype)
        count = near.sum(1, keepdim=True)
        moved = torch.where(count > 0, near @ sample / count.clamp(min=1), points[active])
        still = (moved - points[active]).norm(dim=1) < 1e-3 * bandwidth
        points[active] = moved
        active[active.clone()] = ~still
        if not bool(active.any()):
            break
    support = (torch.cdist(points, sample) <= bandwidth).sum(1)
    order = torch.argsort(support, descending=True, stable=True)
    points = points[order[support[order] > 0]]
    return _thin(points, bandwidth)


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
    step = max(1, CHUNK // max(1, len(modes)))
    nearest = [torch.cdist(part, modes).argmin(1) + 1 for part in rows.split(step)]
    return torch.cat(nearest).to(torch.int32).cpu().numpy()


def clusters(
    field: Tensor, config: ClusteringConfig, background: tuple[float, ...] | None
) -> NDArray[np.int32]:
    """Mean-shift clusters of a block, int32 ([Z,] Y, X), 0 where it is background."""
    mask, rows = foreground_rows(field, config, background)
    result = np.zeros(mask.shape, np.int32)
    if len(rows):
        sample = draw_sample(rows, config.sample, config.seed)
        result[mask] = assign(rows, find_modes(sample, config.bandwidth))
    return result
