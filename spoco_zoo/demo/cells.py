"""Where crowded cells lie: one endless tissue per seed, seen through a window.

A cell is what the mixture of Gaussians around all cell centres gives to one of
them. With ``d_i`` the distance to centre i and s the cell diameter::

    depth_i(x) = -T log sum_(j != i) exp(-(d_j^2 - d_i^2) / (2 s T))

    depth > 0 inside, 0 on the border with a neighbour, < 0 outside; in voxels

This is a soft minimum of linear functions, hence concave, and the set where it
exceeds any value is convex with rounded corners. Coordinates are then bent by a
smooth map that is one to one and keeps the faces of the window in place: cells
look organic and stay connected, also where the window cuts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import special

from spoco_zoo.demo.hashed import along, normal, smooth, uniform
from spoco_zoo.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["MARGIN", "Cells", "Style", "Tissue", "cells_near", "depths", "objects_of"]

Style = Literal["membrane", "filled"]

MARGIN = 16  # voxels of any axis around a block: reach of the filters and of the smallest objects

# Lengths in units of the cell diameter.
JITTER = 0.24  # of a centre around its lattice point; more lets cells shrink to slivers
REACH = 1.5  # beyond it a centre's Gaussian is below 1e-12
RADIUS = 0.52  # of a cell without neighbours, times the root of the number of axes
SOFTNESS = 0.04  # T above: rounding of corners
BEND, BEND_SPACING = 0.055, 0.5  # standard deviation and scale of the bending
OUTSIDE = 0.3  # centres farther outside the window do not exist: they would leave slivers


@dataclass(frozen=True)
class Tissue:
    """What to draw.

    Attributes
    ----------
    shape : tuple of int
        Window ([Z,] Y, X) in voxels.
    seed : int
        Same seed, same tissue.
    diameter : float
        Typical cell diameter in voxels of Y and X, at least 10.
    anisotropy : float
        Voxel depth in units of voxel width, at most diameter / 5; unused in 2D.
    gaps : float
        Width of the background between touching cells, in voxels; 0 for none.
    style : {"membrane", "filled"}
        Stained membranes, or filled bodies like nuclei.
    coverage : float
        Part of the window that is tissue, in (0, 1].
    dtype : {"uint8", "uint16"}
        Type of the image.
    """

    shape: tuple[int, ...]
    seed: int
    diameter: float = 24.0
    anisotropy: float = 1.0
    gaps: float = 1.0
    style: Style = "membrane"
    coverage: float = 0.85
    dtype: Literal["uint8", "uint16"] = "uint8"

    def __post_init__(self) -> None:
        for rule, found, holds in (
            ("shape must be ([Z,] Y, X), all positive", self.shape, _is_shape(self.shape)),
            ("diameter must be at least 10 voxels", self.diameter, self.diameter >= 10),
            (
                "anisotropy must lie in [1, diameter / 5]",
                self.anisotropy,
                1 <= self.anisotropy <= self.diameter / 5,
            ),
            ("gaps must lie in [0, diameter / 4]", self.gaps, 0 <= self.gaps <= self.diameter / 4),
            ("coverage must lie in (0, 1]", self.coverage, 0 < self.coverage <= 1),
        ):
            if not holds:
                raise DataError(rule, f"{found}", "Choose a value in that range.")

    @property
    def step(self) -> tuple[float, ...]:
        """Voxel size per axis in units of the finest axis."""
        return (self.anisotropy, 1.0, 1.0)[-len(self.shape) :]

    def positions(self, voxels: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
        """Coordinates per axis, in voxels of the finest axis."""
        return [np.multiply(v, s, dtype=np.float64) for v, s in zip(voxels, self.step, strict=True)]


@dataclass(frozen=True)
class Cells:
    """The cells whose Gaussians reach a region, in the order of the lattice."""

    ids: NDArray[np.int64]
    centres: NDArray[np.float64]
    """Shape (n, axes), in voxels of the finest axis."""
    brightness: NDArray[np.float32]


def _is_shape(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3) and all(n > 0 for n in shape)


def cells_near(tissue: Tissue, voxels: Sequence[NDArray[np.int64]]) -> Cells:
    """Cells near a region: a jittered lattice whose odd rows are shifted by half a cell.

    Parameters
    ----------
    tissue : Tissue
    voxels : sequence of int arrays
        The region's coordinates per axis, in voxels of that axis.

    Returns
    -------
    Cells
    """
    s, seed, ndim = tissue.diameter, tissue.seed, len(tissue.shape)
    lattice = [
        np.arange(np.floor(p[0] / s - REACH - 1), np.ceil(p[-1] / s + REACH + 1) + 1).astype(
            np.int64
        )
        for p in tissue.positions(voxels)
    ]
    grid = np.stack(np.meshgrid(*lattice, indexing="ij"), axis=-1)
    centres = np.multiply(grid + 0.5, s, dtype=np.float64)
    centres[..., -1] += (grid[..., :-1].sum(axis=-1) % 2) * s / 2
    for axis in range(ndim):
        centres[..., axis] += (uniform(lattice, seed, 10 + axis) * 2 - 1) * JITTER * s
    alive = _alive(tissue, lattice, centres)
    size = [
        int(np.ceil(n * step / s)) + 4 for n, step in zip(tissue.shape, tissue.step, strict=True)
    ]
    ids = np.zeros(grid.shape[:-1], dtype=np.int64)
    for axis in range(ndim):
        ids = ids * size[axis] + grid[..., axis] + 2
    brightness = np.exp(np.float32(0.3) * normal(lattice, seed, 20))
    return Cells(ids[alive], centres[alive], brightness[alive])


def _alive(
    tissue: Tissue, lattice: Sequence[NDArray[np.int64]], centres: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which lattice points carry a cell: in the tissue, in the window, not lost by chance."""
    s = tissue.diameter
    extent = np.array(tissue.shape) * tissue.step
    density = smooth([axis.astype(np.float64) for axis in lattice], 5, tissue.seed, 21)
    # Denser in the middle, lest a small window be empty.
    middle = ((centres - extent / 2) ** 2).sum(axis=-1) / (4 * s) ** 2
    in_tissue = density + 2 * np.exp(-middle) > special.ndtri(1 - tissue.coverage)
    lost = uniform(lattice, tissue.seed, 22) < 0.03
    in_window = ((centres > -OUTSIDE * s) & (centres < extent + OUTSIDE * s)).all(axis=-1)
    return np.asarray(in_window & (in_tissue & ~lost if tissue.coverage < 1 else True))


def _bending(tissue: Tissue, voxels: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
    """Displacement per axis; along an axis it fades to 0 at the window's faces across it."""
    s, fields = tissue.diameter, []
    positions = tissue.positions(voxels)
    for axis, (v, n, step) in enumerate(zip(voxels, tissue.shape, tissue.step, strict=True)):
        field = smooth(positions, BEND_SPACING * s, tissue.seed, 30 + axis)
        to_face = np.minimum(abs(v + 0.5), abs(n - 0.5 - v)) * step
        fade = np.minimum(to_face / (0.75 * s), 1) * BEND * s
        fields.append(field * along(fade.astype(np.float32), axis, field))
    return fields


def depths(
    tissue: Tissue, voxels: Sequence[NDArray[np.int64]], cells: Cells
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Which cell is strongest at each voxel, and how deep inside it the voxel lies.

    Parameters
    ----------
    tissue : Tissue
    voxels : sequence of int arrays
        The region's coordinates per axis, in voxels of that axis.
    cells : Cells
        From `cells_near` of the same region.

    Returns
    -------
    owner : int32, shape of the region
        Index into `cells`, -1 where none is near.
    depth : float32, shape of the region
        Voxels of the finest axis, negative outside.
    """
    shape = tuple(v.size for v in voxels)
    s = tissue.diameter
    soft = np.float32(SOFTNESS * s)
    bending = _bending(tissue, voxels)
    owner = np.full(shape, -1, dtype=np.int32)
    best = np.zeros(shape, dtype=np.float32)
    # The background takes part like a cell of constant weight: it ends cells at the rim.
    others = np.full(shape, np.exp(-(RADIUS**2) * len(shape) / (2 * SOFTNESS)), dtype=np.float32)
    for number, centre in enumerate(cells.centres):
        box = _box(centre, voxels, tissue.step, REACH * s)
        if any(b.start >= b.stop for b in box):
            continue
        squared: Any = np.float32(0)
        for axis, b in enumerate(box):
            offset = (voxels[axis][b] * tissue.step[axis] - centre[axis]).astype(np.float32)
            squared = squared + (along(offset, axis, best) + bending[axis][box]) ** 2
        weight = np.exp(squared * np.float32(-1 / (2 * s * soft)))
        owner[box][weight > best[box]] = number
        others[box] += np.minimum(weight, best[box])
        np.maximum(best[box], weight, out=best[box])
    depth = np.full(shape, -np.inf, dtype=np.float32)
    np.log(best / others, out=depth, where=best > 0)
    return owner, depth * soft


def _box(
    centre: NDArray[np.float64],
    voxels: Sequence[NDArray[np.int64]],
    steps: Sequence[float],
    reach: float,
) -> tuple[slice, ...]:
    """The part of a region within reach of a centre."""
    return tuple(
        slice(
            max(int(np.ceil((c - reach) / step)) - int(v[0]), 0),
            max(min(int(np.floor((c + reach) / step)) + 1 - int(v[0]), v.size), 0),
        )
        for c, v, step in zip(centre, voxels, steps, strict=True)
    )


def objects_of(
    tissue: Tissue,
    voxels: Sequence[NDArray[np.int64]],
    owner: NDArray[np.int32],
    depth: NDArray[np.float32],
) -> NDArray[np.int32]:
    """Connected objects of a region: `owner` + 1 inside cells, 0 elsewhere.

    Right in the region less `MARGIN` voxels on every side.
    """
    return _sound(_opened(np.where(_inside(tissue, depth, voxels), owner + 1, 0)))


def _inside(
    tissue: Tissue, depth: NDArray[np.float32], voxels: Sequence[NDArray[np.int64]]
) -> NDArray[np.bool_]:
    """Where a cell's label goes; without gaps also the corners where three cells meet."""
    least = tissue.gaps / 2 if tissue.gaps > 0 else -2 * SOFTNESS * tissue.diameter
    inside = depth >= np.float32(least)
    for axis, (v, n) in enumerate(zip(voxels, tissue.shape, strict=True)):
        inside &= along((v >= 0) & (v < n), axis, depth)
    return np.asarray(inside)


def _opened(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """Objects less what is thinner than two voxels: sharp corners fall apart on a grid."""
    cubes, same = objects, objects > 0
    for axis in range(objects.ndim):
        here, after = _neighbours(cubes.ndim, axis)
        same = same[here] & same[after] & (cubes[here] == cubes[after])
        cubes = cubes[here]
    # `same` now marks the first voxel of each 2x2(x2) cube within one object.
    kept = np.pad(same, [(1, 1)] * objects.ndim)
    for axis in range(objects.ndim):
        here, after = _neighbours(objects.ndim, axis)
        kept = kept[here] | kept[after]
    return np.where(kept, objects, 0)


def _sound(objects: NDArray[np.int32]) -> NDArray[np.int32]:
    """Objects less the smallest, which may be squeezed to pieces.

    An opened object this small is shorter than the margin, so that every block
    it touches sees all of it and decides alike.
    """
    least = MARGIN * 2 ** (objects.ndim - 1)
    return np.where((np.bincount(objects.ravel()) < least)[objects], 0, objects)


def _neighbours(ndim: int, axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All but the last, and all but the first, along one axis."""
    rest = [slice(None)] * ndim
    here, after = list(rest), list(rest)
    here[axis], after[axis] = slice(None, -1), slice(1, None)
    return tuple(here), tuple(after)
