"""Pyramids: which axes shrink from level to level, and how a cell becomes one voxel.

Cells are aligned to the finest voxels; the last one may be cut by the image's end::

    fine     | 0 | 1 | 2 | 3 | 4 |        length 5, factor 2
    coarse   |   0   |   1   |   2   |    length 3; voxel 2 is made of voxel 4 alone
    centre       ^ scale * (factor - 1) / 2 further than the centre of fine voxel 0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_cells", "mode_cells", "pyramid_factors"]

_COARSE_ENOUGH = 256


def pyramid_factors(shape: Sequence[int], scale: Sequence[float]) -> list[tuple[int, ...]]:
    """Choose the factors from each level to the next, until no axis exceeds 256 voxels.

    An axis is halved when its voxels are no longer than sqrt(2) times those of
    the finest axis that can still be halved: anisotropic voxels first become
    as isotropic as powers of two allow, then shrink together.

    Parameters
    ----------
    shape, scale : sequence
        Voxels and voxel size per spatial axis of the finest level.

    Returns
    -------
    list of tuple of int
        One entry per coarser level: 1 or 2 per axis.
    """
    shape, scale, steps = list(shape), list(scale), []
    while max(shape) > _COARSE_ENOUGH:
        finest = min(s for s, n in zip(scale, shape, strict=True) if n > 1)
        step = tuple(
            2 if n > 1 and s <= finest * math.sqrt(2) else 1
            for s, n in zip(scale, shape, strict=True)
        )
        shape = [-(-n // f) for n, f in zip(shape, step, strict=True)]
        scale = [s * f for s, f in zip(scale, step, strict=True)]
        steps.append(step)
    return steps


def mean_cells(block: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Mean of every cell, rounded to the nearest integer for integer images.

    Parameters
    ----------
    block : ndarray
        Region that starts at a cell's corner.
    factors : sequence of int
        Cell size, one per axis.

    Returns
    -------
    ndarray
        ``ceil(shape / factors)``, dtype of `block`; a cut cell counts what it has.
    """
    total: NDArray[Any] = block
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        fine = np.moveaxis(total, axis, 0)
        sums = np.zeros((-(-len(fine) // factor), *fine.shape[1:]))
        for k in range(factor):
            sums[: len(fine[k::factor])] += fine[k::factor]
        sums[: len(fine) // factor] /= factor
        sums[len(fine) // factor :] /= len(fine) % factor or 1
        total = np.moveaxis(sums, 0, axis)
    if block.dtype.kind in "ui" and block.dtype.itemsize == 8:
        return _as_integers(np.rint(total), block.dtype)
    return (np.rint(total) if block.dtype.kind in "bui" else total).astype(block.dtype)


def _as_integers(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Whole numbers in an integer type of 64 bits, whose highest one float64 rounds up."""
    highest = np.iinfo(dtype).max
    beyond = values >= float(highest)
    return np.where(beyond, highest, np.where(beyond, 0, values).astype(dtype)).astype(dtype)


def mode_cells(block: NDArray[Any], factors: Sequence[int]) -> NDArray[Any]:
    """Most frequent label of every cell, cut ones too; the smallest of those that tie.

    Parameters
    ----------
    block : ndarray of integers
        Region that starts at a cell's corner.
    factors : sequence of int
        Cell size, one per axis.

    Returns
    -------
    ndarray
        ``ceil(shape / factors)``, dtype of `block`; no id is ever made up.
    """
    for axis, (length, factor) in enumerate(zip(block.shape, factors, strict=True)):
        if cut := length % factor:
            # The last cells have fewer voxels along this axis: cells of a factor of their own.
            whole, rest = np.split(block, [length - cut], axis)
            last = mode_cells(rest, [*factors[:axis], cut, *factors[axis + 1 :]])
            return (
                last if cut == length else np.concatenate([mode_cells(whole, factors), last], axis)
            )
    steps = [
        tuple(slice(o, None, f) for o, f in zip(offset, factors, strict=True))
        for offset in np.ndindex(*factors)
    ]
    first = block[steps[0]]
    mixed = np.zeros(first.shape, bool)
    for step in steps[1:]:
        mixed |= block[step] != first
    result = first.copy()
    result[mixed] = _modes(np.stack([block[step][mixed] for step in steps], axis=-1))
    return result


def _modes(cells: NDArray[Any]) -> NDArray[Any]:
    """The most frequent value of each row, the smallest of those that tie."""
    cells = np.sort(cells, axis=-1)
    best = cells[:, 0].copy()
    run = np.ones(len(best), np.int32)
    longest = run.copy()
    for k in range(1, cells.shape[-1]):
        run = np.where(cells[:, k] == cells[:, k - 1], run + 1, 1)
        longer = run > longest
        best[longer], longest[longer] = cells[longer, k], run[longer]
    return best
