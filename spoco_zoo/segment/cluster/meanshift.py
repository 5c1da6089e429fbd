"""Mean-shift with a flat kernel: modes in two steps, then one assignment of all voxels.

The embedding space is nearly empty: the voxels of a connected part of the foreground
crowd around a few modes, those of a block without background around a few hundred.
Points start from the occupied cells of a grid with the bandwidth as its
side, as in scikit-learn's bin seeding. They first climb the density of a small
sample, where a step is cheap and thousands of points come down to dozens; those go
on in the density of all voxels (of `MANY` at most), which decides where modes are.
There the voxels of an occupied cell of a much finer grid count as one, with a weight.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from spoco_zoo.segment.cluster import portable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from spoco_zoo.config import ClusteringConfig
    from spoco_zoo.segment.cluster.tensor_field import TensorField

__all__ = ["clusters", "draw_sample", "find_modes", "mark_foreground"]

MAX_STEPS = 300
MANY = 1 << 18  # voxels whose density the modes are modes of
FINE = 1 / 8  # of the bandwidth; side of the cells whose voxels count as one
TOLERANCE = 1e-3  # of the bandwidth; a point that moves less has arrived
MEETING = 0.2  # of the bandwidth; points this near on their way go on as one
GROUP = 1024  # cells that are compared with points as one
GROUP_CUDA = 1 << 14  # there a table is ready before groups are found
EXACT = "donot_use_mm_for_euclid_dist"
CHUNK = 1 << 16  # entries of one point-to-voxel table, so that it stays in the cache


def mark_foreground(
    field: TensorField, config: ClusteringConfig, background: tuple[float, ...] | None
) -> NDArray[np.int32]:
    """Labels that are 1 in the foreground and 0 elsewhere, int32 ([Z,] Y, X)."""
    labels = np.zeros(field.shape, np.int32)
    for slab in portable.slabs(field.shape):
        labels[slab] = field.foreground(slab, background, config.foreground)
    return labels


def draw_sample(labels: NDArray[Any], size: int, seed: int) -> NDArray[np.int64]:
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


@torch.inference_mode()
def find_modes(voxels: Tensor, bandwidth: float, sample: int = 4096, seed: int = 0) -> Tensor:
    """Modes of the density of `voxels` (n, E) under a flat kernel, densest first, (m, E).

    Of modes closer than `bandwidth` only the densest stays. Points first climb the
    density of `sample` voxels, then that of all.
    """
    # At a voxel, not at the cell's middle: in many channels that may lie beyond the bandwidth from
    # all voxels of the cell, and so see no density at all.
    points = _one_per_cell(voxels, bandwidth)
    if len(voxels) > 4 * sample:  # with fewer the detour saves nothing
        picks = np.sort(np.random.default_rng(seed).choice(len(voxels), sample, replace=False))
        few = voxels[torch.from_numpy(picks).to(voxels.device)]
        points = _climb(points, Density(_weighted(few, 0.0), bandwidth), 10 * TOLERANCE)
    density = Density(_weighted(voxels, FINE * bandwidth), bandwidth)
    points = _climb(points, density, TOLERANCE)
    support = density.around(points)[:, -1]
    order = torch.argsort(support, descending=True, stable=True)
    return _thin(points[order[support[order] > 0]], bandwidth)


def _climb(points: Tensor, density: Density, tolerance: float) -> Tensor:
    """Move each point to the mean of the voxels within the bandwidth, until it rests."""
    arrived = []
    for _ in range(MAX_STEPS):
        sums = density.around(points)
        count = sums[:, -1:]
        # A point without voxels around it stays; it may find some in another density.
        moved = torch.where(count > 0, sums[:, :-1] / count.clamp(min=1), points)
        far = (moved - points).norm(dim=1) >= tolerance * density.bandwidth
        arrived.append(moved[~far])
        points = _one_per_cell(moved[far], MEETING * density.bandwidth)
        if not len(points):
            break
    return _one_per_cell(torch.cat([*arrived, points]), tolerance * density.bandwidth)


class Density:
    """Voxels, or cells that stand for several, in groups of neighbours, each in a ball.

    Of all pairs of a point and a cell some hundredths are near. So a group is compared
    with the points that are near its ball only.

    Parameters
    ----------
    cells : Tensor
        float (m, E + 1), see `_weighted`.
    bandwidth : float
    """

    def __init__(self, cells: Tensor, bandwidth: float) -> None:
        self.bandwidth = bandwidth
        means = cells[:, :-1] / cells[:, -1:]
        groups = _groups(means, GROUP_CUDA if cells.is_cuda else GROUP)
        # One row per channel: products with so few columns are slow the other way round.
        self.cells = [cells[group].T.contiguous() for group in groups]
        self.means = [means[group] for group in groups]
        self.squares = [(rows * rows).sum(1) for rows in self.means]
        balls = [_ball(rows) for rows in self.means]
        self.centres = torch.stack([centre for centre, _ in balls])
        self.radii = torch.stack([radius for _, radius in balls])

    def around(self, points: Tensor) -> Tensor:
        """Sums (n, E + 1) of the cells whose means lie within the bandwidth of each point."""
        sums = points.new_zeros((points.shape[1] + 1, len(points)))
        # |v|^2 - 2 v.p <= b^2 - |p|^2 is a matrix product and a comparison, both in place.
        limit = self.bandwidth**2 - (points * points).sum(1, keepdim=True)
        reach = (self.radii + self.bandwidth) * (1 + 1e-4)
        near = torch.cdist(self.centres, points, compute_mode=EXACT) <= reach[:, None]
        counts = near.sum(1).tolist()
        mine = near.nonzero()[:, 1].split(counts)
        for g, index in enumerate(mine):
            if len(index):
                table = torch.addmm(self.squares[g], points[index], self.means[g].T, alpha=-2)
                inside = table.le_(limit[index])
                sums.index_add_(1, index, self.cells[g] @ inside.T)
        return sums.T


def _groups(points: Tensor, size: int) -> list[Tensor]:
    """Indices of groups of at most `size` neighbours: halves along the widest axis, and so on."""
    whole = torch.arange(len(points), device=points.device)
    ready, waiting = [], [whole] if len(points) else []
    while waiting:
        group = waiting.pop()
        if len(group) <= size:
            ready.append(group)
            continue
        rows = points[group]
        values = rows[:, int((rows.amax(0) - rows.amin(0)).argmax())]
        below = values < values.kthvalue(len(group) // 2 + 1).values
        halves = (group[below], group[~below])
        # Nothing lies below the middle where the lower half is all alike.
        waiting += halves if len(halves[0]) else group.tensor_split(2)
    return ready


def _ball(points: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and radius of a ball around points (n, E), n > 0."""
    centre = (points.amax(0) + points.amin(0)) / 2
    return centre, (points - centre).norm(dim=1).max()


def _weighted(voxels: Tensor, side: float) -> Tensor:
    """Per occupied cell the sum of its voxels' embeddings, and their number, (m, E + 1).

    With side 0 every voxel is a cell of its own.
    """
    rows = torch.cat([voxels, voxels.new_ones((len(voxels), 1))], dim=1)
    if side == 0:
        return rows
    _, cell = np.unique(_cell_keys(voxels, side), return_inverse=True)
    index = torch.from_numpy(cell).to(voxels.device)
    sums = rows.new_zeros((int(cell.max()) + 1, rows.shape[1]))
    return sums.index_add_(0, index, rows)


def _one_per_cell(points: Tensor, side: float) -> Tensor:
    """The first point of each occupied cell of a grid, in the order of the points."""
    first = np.sort(np.unique(_cell_keys(points, side), return_index=True)[1])
    return points[torch.from_numpy(first).to(points.device)]


def _cell_keys(points: Tensor, side: float) -> NDArray[np.int64]:
    """A number for the cell of each point in a grid."""
    cells = (points / side).round().to(torch.int64)
    factors = torch.from_numpy(_factors(points.shape[1])).to(points.device)
    return np.asarray((cells * factors).sum(1).cpu().numpy())


@cache
def _factors(count: int) -> NDArray[np.int64]:
    """Random odd numbers that make one number of a cell; no two cells share one in practice."""
    return np.random.default_rng(0).integers(-(2**62), 2**62, count) | 1


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
    step = max(64, CHUNK // max(1, len(modes)))
    nearest = [torch.addmm(-half, part, modes.T).argmax(1) + 1 for part in rows.split(step)]
    return torch.cat(nearest).to(torch.int32).cpu().numpy()


def clusters(
    field: TensorField, config: ClusteringConfig, background: tuple[float, ...] | None
) -> NDArray[np.int32]:
    """Mean-shift clusters of a block, int32 ([Z,] Y, X), 0 where it is background.

    Each connected part of the foreground has modes of its own: what lies elsewhere
    in the block says nothing about it, though it may look alike.
    """
    labels = mark_foreground(field, config, background)
    portable.number_parts(labels, lambda slab: (ndimage.label(labels[slab])[0], None))
    flat, last = labels.reshape(-1), 0
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        mine = labels[box] == number
        if background is not None and np.count_nonzero(mine) < config.min_size:
            # It is dropped whatever it is; noise has thousands of such parts.
            last += 1
            labels[box][mine] = -last
            continue
        picks = draw_sample(mine, MANY, config.seed)
        rows = field.tensor_rows(_moved(picks, mine.shape, box, labels.shape))
        modes = find_modes(rows, config.bandwidth, config.sample, config.seed)
        plane = mine[:1].size
        for slab in portable.slabs(mine.shape):
            where = np.flatnonzero(mine[slab]) + slab.start * plane
            if where.size:
                where = _moved(where, mine.shape, box, labels.shape)
                # Below zero, clusters are not taken for parts that are yet to come.
                flat[where] = -assign(field.tensor_rows(where), modes) - last
        last += len(modes)
    return np.negative(labels, out=labels)


def _moved(
    where: NDArray[np.int64], shape: tuple[int, ...], box: tuple[slice, ...], whole: tuple[int, ...]
) -> NDArray[np.int64]:
    """Flat indices in a box of a shape as flat indices in the whole."""
    places = zip(np.unravel_index(where, shape), box, strict=True)
    return np.asarray(np.ravel_multi_index(tuple(at + s.start for at, s in places), whole))
