"""Default sizes: patch and halo from the model, overlap from its objects, block from memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.nets.receptive import exact_halo, pooling_factor, receptive_radius
from spoco_zoo.segment.field import blend_reach, half_core, make_field
from spoco_zoo.sizes import equivalent_diameter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import Blend, ModelRecipe
    from spoco_zoo.segment.field import Field

__all__ = [
    "LONGEST_ROW",
    "Tiling",
    "choose_block",
    "choose_chunk",
    "choose_overlap",
    "choose_tiling",
]

BLOCK_VOXELS = {2: 2**23, 3: 2**24}
"""Outer voxels of a default block: the larger, the fewer patches reach into two blocks."""
HALO_PART = 5
"""A model's 3D patch is this many default halos wide, at least."""
PATCH_VOXELS = 3 * 2**20
"""Input voxels of a patch that is larger than the model's: the network takes 1 GB for it."""
LEAST_PATCH = 3
"""So many pooling factors leave a core between the narrowest halos."""
LEAST_OVERLAP = {2: 16, 3: 8}
MOST_OVERLAP = 2**28
"""As long as an axis can be: sizes that are absurd give more than can be counted with."""
LONGEST_ROW = 8
"""Blocks beside each other along the last axis that a worker is given at once, at most."""
CHUNK = {2: 512, 3: 64}
"""Largest edge of a chunk inside a shard."""


@dataclass(frozen=True)
class Tiling:
    """Geometry of a network on a volume, per spatial axis of the volume.

    A 2D network on a stack has patches of one plane.
    """

    patch: tuple[int, ...]
    halo: tuple[int, ...]
    factor: tuple[int, ...]
    radius: tuple[int, ...]

    @property
    def core(self) -> tuple[int, ...]:
        """What the halo leaves of a patch, a multiple of the pooling factor."""
        sizes = zip(self.patch, self.halo, self.factor, strict=True)
        return tuple(max((p - 2 * h) // f * f, f) for p, h, f in sizes)

    @property
    def reach(self) -> tuple[int, ...]:
        """How far a patch is used beyond its core at most."""
        return tuple(map(blend_reach, self.halo, self.radius))

    def field(self, shape: Sequence[int], blend: Blend) -> Field:
        """The grid of these patches over a volume of a shape."""
        return make_field(
            shape, self.patch, self.halo, factor=self.factor, radius=self.radius, blend=blend
        )


def choose_tiling(
    recipe: ModelRecipe,
    shape: Sequence[int],
    overlap: Sequence[int],
    patch: tuple[int, ...] | None = None,
    halo: tuple[int, ...] | None = None,
) -> Tiling:
    """Patch and halo as given, or from the model.

    The default halo holds the whole receptive field in 2D, and at most a fifth of the
    model's patch in 3D, but one pooling factor if that leaves a core: a wider one costs more
    than it mends. The default patch is the model's, cut to the volume; in volumes of several
    blocks it is grown, up to `PATCH_VOXELS`, until blocks with their overlap touch but one
    core more than they have (`choose_block`).

    Parameters
    ----------
    recipe : ModelRecipe
    shape : sequence of int
        The volume ([Z,] Y, X).
    overlap : sequence of int
        Of blocks, in voxels.
    patch, halo : tuple of int, optional
        What the user asked for, in voxels of each axis.

    Returns
    -------
    Tiling
    """
    net = recipe.net
    lead = len(shape) - net.ndim
    factor = (1,) * lead + pooling_factor(net)
    radius = (0,) * lead + receptive_radius(net)
    own = patch or tuple(
        min(-(-p // f) * f, -(-n // f) * f)
        for p, f, n in zip((1,) * lead + recipe.patch, factor, shape, strict=True)
    )
    if halo is None:
        halo = (0,) * lead + exact_halo(net)
        if net.ndim == 3:
            # The exact halo would leave little or no core of an affordable 3D patch.
            halo = tuple(
                min(h, max(p // HALO_PART // f, p >= LEAST_PATCH * f) * f)
                for h, p, f in zip(halo, own, factor, strict=True)
            )
    tiling = Tiling(own, halo, factor, radius)
    if patch or prod(shape) <= BLOCK_VOXELS[len(shape)]:
        return tiling
    return _grown(tiling, shape, overlap, lead)


def _grown(tiling: Tiling, shape: Sequence[int], overlap: Sequence[int], lead: int) -> Tiling:
    """With a patch whose half core holds the overlap and the reach, as far as memory goes.

    The axes of which least is wanted come first; the `lead` ones of a 2D network on a stack never.
    """
    rows = zip(overlap, tiling.reach, tiling.halo, tiling.factor, shape, strict=True)
    wanted = [min(2 * (-(-(o + r) // f) * f + h), -(-n // f) * f) for o, r, h, f, n in rows]
    patch = list(tiling.patch)
    for axis in sorted(range(lead, len(patch)), key=lambda a: wanted[a] / patch[a]):
        grown = [*patch[:axis], max(wanted[axis], patch[axis]), *patch[axis + 1 :]]
        if prod(grown) <= PATCH_VOXELS:
            patch = grown
    return replace(tiling, patch=tuple(patch))


def choose_overlap(recipe: ModelRecipe, voxel_size: Sequence[float]) -> tuple[int, ...]:
    """About the diameter of a large object, in voxels of each axis.

    Parameters
    ----------
    recipe : ModelRecipe
        Its `object_size` are voxel counts at its own voxel size.
    voxel_size : sequence of float
        Of the image; only its ratios matter, and only if the recipe has none.

    Returns
    -------
    tuple of int
        Per axis of the image; at least `LEAST_OVERLAP`.
    """
    least = LEAST_OVERLAP[len(voxel_size)]
    if recipe.object_size is None:
        return (least,) * len(voxel_size)
    size = recipe.voxel_size or tuple(voxel_size)[-recipe.net.ndim :]
    diameter = equivalent_diameter(recipe.object_size[2] * prod(size), len(size))
    overlap = tuple(max(ceil(min(diameter / s, MOST_OVERLAP)), least) for s in size)
    return (least,) * (len(voxel_size) - len(size)) + overlap


def choose_block(shape: Sequence[int], tiling: Tiling, overlap: Sequence[int]) -> tuple[int, ...]:
    """Block cores: multiples of the patch core within `BLOCK_VOXELS` that make the least work.

    ::

        outer    |overlap|                         |overlap|
        block            |<------- 3 cores ------->|
        patches      |   :   |       |       |     :   |        4 are run for 3; 6 if the overlap
                                                                and the reach exceed half a core

    What reaches beyond a block's faces is embedded and clustered again. Along the last axis
    a row of blocks shares its patches (`spoco_zoo.segment.rows`), so blocks may be
    short there and long elsewhere. Embedding and clustering all voxels once weigh the same
    here: on a CPU embedding takes far longer, on a GPU less.

    Parameters
    ----------
    shape : sequence of int
        The region that is segmented.
    tiling : Tiling
    overlap : sequence of int
        Voxels that are clustered beyond each face.

    Returns
    -------
    tuple of int
        Voxels per axis.
    """
    core = tiling.core
    options = [_divisions(n, c) for n, c in zip(shape, core, strict=True)]
    embedded = clustered = outer = np.ones((1,) * len(shape))
    narrow: np.ndarray = np.zeros((1,) * len(shape), bool)
    # From a block's face to the first core that its outer region leaves alone, if it is short.
    near = map(half_core, core, tiling.factor)
    far = (o + r for o, r in zip(overlap, tiling.reach, strict=True))
    sizes = zip(options, shape, core, overlap, near, far, strict=True)
    for axis, (cores, n, c, o, half, used) in enumerate(sizes):
        along = [1] * len(shape)
        along[axis] = -1
        blocks, patches = -(-n // (cores * c)), -(-n // c)
        width = np.minimum(cores * c + 2 * o, n)
        shared = LONGEST_ROW if axis == len(shape) - 1 else 1
        beyond = 1 + 2 * ceil(max(used - half, 0) / c)
        again = beyond * (-(-blocks // shared) - 1)
        embedded = embedded * ((patches + again) / patches).reshape(along)
        # A face is worth avoiding without any overlap, too: one block needs none.
        clustered = clustered * ((n + (2 * o + 1) * (blocks - 1)) / n).reshape(along)
        outer = outer * width.reshape(along)
        narrow = narrow | ((blocks > 1) & (cores * c < 2 * o)).reshape(along)
    # Blocks too narrow for their overlap only where wide ones exceed the memory; where all do,
    # the first: one core along every axis.
    work = np.where(narrow, 1e6, 1) * (embedded + clustered)
    work[outer > BLOCK_VOXELS[len(shape)]] = np.inf
    best = np.unravel_index(int(np.argmin(work)), work.shape)
    counts = [int(cores[i]) for cores, i in zip(options, best, strict=True)]
    chunk = CHUNK[len(shape)]
    # With one block along an axis there is no face to align: its end may lie anywhere.
    return tuple(
        min(-(-n // chunk) * chunk, c * k) if c * k >= n else c * k
        for n, c, k in zip(shape, core, counts, strict=True)
    )


def _divisions(size: int, core: int) -> np.ndarray:
    """For each number of blocks along an axis the fewest cores that a block then needs."""
    cores = -(-size // core)
    blocks = -(-cores // np.arange(1, cores + 1))
    return np.unique(-(-cores // blocks))


def choose_chunk(block: Sequence[int]) -> tuple[int, ...]:
    """Chunks that divide a block, which is a shard: the largest divisor up to `CHUNK`.

    A block without a good divisor is one chunk along that axis, rather than
    very many.
    """
    limit = CHUNK[len(block)]
    best = [max(d for d in range(1, min(b, limit) + 1) if b % d == 0) for b in block]
    return tuple(d if 4 * d >= min(b, limit) else b for d, b in zip(best, block, strict=True))
