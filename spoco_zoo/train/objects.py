"""The annotated objects of a batch, flattened so that every loss is a few scatter operations.

A batch of label crops ``(N, [Z,] Y, X)`` holds K objects over all its images.
They are numbered 0..K-1, so sums over "each object" become `index_add` over K
rows. A *window* is an object's bounding box grown by a margin; the pairs
(object, voxel of its window) are listed once and shared by all local terms::

    +------------------+
    |  margin          |   every voxel in the frame is one pair with object k:
    |   +--bbox--+     |   target 1 where the voxel's label is k,
    |   | kkkk   |     |   0 elsewhere (neighbours, background, not annotated)
    |   +--------+     |
    +------------------+
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Objects",
    "Windows",
    "dilated",
    "find_objects",
    "flatten_embeddings",
    "in_contact",
    "neighbours",
    "offset_slices",
    "owners",
    "scatter_mean",
    "windows",
]


@dataclass(frozen=True)
class Objects:
    """Objects of a batch of label crops.

    Attributes
    ----------
    voxel : Tensor
        int64 (P,), flat index ``n * S + s`` of every voxel that belongs to an object.
    owner : Tensor
        int64 (P,), object 0..K-1 of each of these voxels.
    size : Tensor
        float32 (K,), voxels per object.
    image : Tensor
        int64 (K,), batch index of each object.
    low, high : Tensor
        int64 (K, ndim), bounding box, `high` exclusive.
    shape : tuple of int
        ``(N, [Z,] Y, X)``.
    """

    voxel: Tensor
    owner: Tensor
    size: Tensor
    image: Tensor
    low: Tensor
    high: Tensor
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of objects K."""
        return int(self.size.numel())

    @property
    def voxels_per_image(self) -> int:
        """Number of voxels S of one crop."""
        return math.prod(self.shape[1:])


@dataclass(frozen=True)
class Windows:
    """All pairs (object, voxel in its window).

    Attributes
    ----------
    owner : Tensor
        int64 (M,), object of the pair.
    voxel : Tensor
        int64 (M,), flat voxel index ``n * S + s``.
    """

    owner: Tensor
    voxel: Tensor


def flatten_embeddings(embeddings: Tensor) -> Tensor:
    """(N, E, [Z,] Y, X) to float32 (N * S, E), one row per voxel."""
    return embeddings.float().movedim(1, -1).reshape(-1, embeddings.shape[1])


def scatter_mean(values: Tensor, owner: Tensor, count: Tensor) -> Tensor:
    """Mean of `values` (P, ...) per owner; `count` (K,) is the number of rows of each."""
    total = values.new_zeros((count.numel(), *values.shape[1:])).index_add(0, owner, values)
    return total / count.to(values.dtype).reshape(-1, *[1] * (values.ndim - 1))


def find_objects(labels: Tensor) -> Objects:
    """List the objects of integer labels (N, [Z,] Y, X); values <= 0 are no objects."""
    spatial = labels.shape[1:]
    ndim = len(spatial)
    flat = labels.reshape(-1)
    voxel = torch.nonzero(flat > 0).squeeze(1)
    per_image = flat.numel() // labels.shape[0]
    # One key per (image, label): labels of different images are different objects.
    span = int(flat.max()) + 1 if voxel.numel() else 1
    keys = (voxel // per_image) * span + flat[voxel].long()
    unique, owner, size = torch.unique(keys, return_inverse=True, return_counts=True)
    rest = voxel % per_image
    low = torch.empty((unique.numel(), ndim), dtype=torch.long, device=labels.device)
    high = torch.empty_like(low)
    for axis in reversed(range(ndim)):
        position = rest % spatial[axis]
        rest = torch.div(rest, spatial[axis], rounding_mode="floor")
        empty = torch.zeros(unique.numel(), dtype=torch.long, device=labels.device)
        low[:, axis] = empty.scatter_reduce(0, owner, position, "amin", include_self=False)
        high[:, axis] = empty.scatter_reduce(0, owner, position, "amax", include_self=False) + 1
    image = torch.div(unique, span, rounding_mode="floor")
    return Objects(voxel, owner, size.float(), image, low, high, tuple(labels.shape))


def windows(objects: Objects, margin: Sequence[int]) -> Windows:
    """Pairs of each object with the voxels of its window."""
    spatial = torch.tensor(objects.shape[1:], device=objects.low.device)
    reach = torch.tensor(list(margin), device=objects.low.device)
    low = (objects.low - reach).clamp(min=0)
    high = torch.minimum(objects.high + reach, spatial)
    extent = high - low
    volume = extent.prod(dim=1)
    owner = torch.repeat_interleave(volume)
    start = volume.cumsum(0) - volume
    within = torch.arange(owner.numel(), device=owner.device) - start[owner]
    voxel = torch.zeros_like(within)
    stride = 1
    for axis in reversed(range(len(objects.shape) - 1)):
        side = extent[:, axis][owner]
        voxel += (within % side + low[:, axis][owner]) * stride
        within = torch.div(within, side, rounding_mode="floor")
        stride *= objects.shape[1 + axis]
    return Windows(owner, voxel + objects.image[owner] * stride)


def neighbours(objects: Objects, margin: Sequence[int] | None) -> Tensor:
    """Bool (K, K): pairs of different objects of one image, with windows that meet.

    `margin` None makes every pair within an image a pair of neighbours.
    """
    pairs = objects.image[:, None] == objects.image[None, :]
    if margin is not None:
        reach = torch.tensor(list(margin), device=objects.low.device)
        gap = torch.maximum(
            objects.low[:, None] - objects.high[None, :],
            objects.low[None, :] - objects.high[:, None],
        )
        pairs = pairs & (gap < reach).all(dim=-1)
    return pairs & ~torch.eye(objects.count, dtype=torch.bool, device=pairs.device)


def owners(objects: Objects) -> Tensor:
    """Object 0..K-1 of every voxel of the batch, int64 (N * S,), -1 for none."""
    count = objects.shape[0] * objects.voxels_per_image
    result = torch.full((count,), -1, dtype=torch.long, device=objects.voxel.device)
    result[objects.voxel] = objects.owner
    return result


def offset_slices(
    shape: Sequence[int], offset: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Indices of the first and of the second voxels of all pairs an offset apart."""
    first, second = [], []
    for size, step in zip(shape, offset, strict=True):
        length = max(0, size - abs(step))
        first.append(slice(max(0, -step), max(0, -step) + length))
        second.append(slice(max(0, step), max(0, step) + length))
    return tuple(first), tuple(second)


def in_contact(objects: Objects, reach: Sequence[int]) -> Tensor:
    """Bool (K, K): pairs of different objects with voxels within `reach` of each other.

    Looked for along the axes and diagonals, at the whole reach and at half of it:
    what is thinner than half of the reach can be overlooked, unless it touches.
    """
    grid = owners(objects).reshape(objects.shape)
    pairs = torch.zeros((objects.count, objects.count), dtype=torch.bool, device=grid.device)
    steps = {tuple(reach), tuple((r + 1) // 2 for r in reach), (1,) * len(reach)}
    # Half of the directions: the other half are the same pairs turned round.
    directions = [d for d in itertools.product((-1, 0, 1), repeat=len(reach)) if d > (0,) * len(d)]
    for step, direction in itertools.product(sorted(steps), directions):
        offset = [s * d for s, d in zip(step, direction, strict=True)]
        here, there = offset_slices(objects.shape[1:], offset)
        first, second = grid[:, *here], grid[:, *there]
        meet = (first != second) & (first >= 0) & (second >= 0)
        pairs[first[meet], second[meet]] = True
    return pairs | pairs.T


def dilated(mask: Tensor, reach: Sequence[int]) -> Tensor:
    """Bool (N, [Z,] Y, X): voxels with a True one within a box of `reach` voxels per axis."""
    pool = F.max_pool2d if mask.ndim == 3 else F.max_pool3d
    size = [2 * r + 1 for r in reach]
    return pool(mask[:, None].float(), size, stride=1, padding=list(reach))[:, 0] > 0
