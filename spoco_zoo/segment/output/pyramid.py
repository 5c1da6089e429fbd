"""Coarser levels of a label volume, each from the next finer one.

A coarse voxel takes the most frequent label of its cell, the smallest of equally
frequent ones. Where the ratio of two levels along an axis is not a whole number,
as in pyramids made by other tools, the voxel under the coarse voxel's centre is
taken along that axis instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from spoco_zoo.ngff import mode_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AxisStep", "coarse_block", "downsample", "pyramid_steps"]

PIECE = 2**24
"""Fine voxels held at a time."""


class LabelArray(Protocol):
    """What is read from: an array that gives a numpy array for a tuple of slices."""

    shape: tuple[int, ...]

    def __getitem__(self, where: tuple[slice, ...], /) -> np.ndarray: ...


@dataclass(frozen=True)
class AxisStep:
    """From a fine to a coarse axis."""

    fine: int
    coarse: int
    factor: int | None
    """Fine voxels per coarse voxel, or None if their ratio is not a whole number."""
    ratio: float = field(default=0.0, kw_only=True)
    """That ratio, where the levels state it; 0 leaves it to their lengths."""

    def window(self, start: int, stop: int) -> slice:
        """The fine voxels that the coarse voxels ``start:stop`` depend on."""
        if self.factor is not None:
            return slice(start * self.factor, min(stop * self.factor, self.fine))
        picks = self.picks(start, stop)
        return slice(int(picks[0]), int(picks[-1]) + 1)

    def picks(self, start: int, stop: int) -> np.ndarray:
        """The fine voxel under the centre of each coarse voxel."""
        centres = (np.arange(start, stop) + 0.5) * (self.ratio or self.fine / self.coarse)
        return np.minimum(centres.astype(np.int64), self.fine - 1)


def pyramid_steps(
    fine: Sequence[int], coarse: Sequence[int], ratio: Sequence[float]
) -> tuple[AxisStep, ...]:
    """How each axis is reduced.

    Parameters
    ----------
    fine, coarse : sequence of int
        Shapes of two successive levels.
    ratio : sequence of float
        Physical size of a coarse voxel over that of a fine one, per axis.
    """
    steps = []
    for n, m, r in zip(fine, coarse, ratio, strict=True):
        factor = max(round(r), 1)
        whole = abs(r - factor) < 0.01 * factor and m in (n // factor, -(-n // factor))
        # Levels rarely cover exactly the same; what states sizes that cannot be is not believed.
        stated = r if abs(m * r - n) <= max(r, 1) else 0.0
        steps.append(AxisStep(n, m, factor if whole else None, ratio=0.0 if whole else stated))
    return tuple(steps)


def coarse_block(
    fine: LabelArray, steps: Sequence[AxisStep], where: tuple[slice, ...]
) -> np.ndarray:
    """Labels of one write unit of the coarse level.

    Parameters
    ----------
    fine : array-like, shape ([T,] [Z,] Y, X)
        The finer level.
    steps : sequence of AxisStep
    where : tuple of slice
        The write unit, in voxels of the coarse level.

    Returns
    -------
    ndarray
        Shape of `where`, dtype of `fine`. Memory beyond it is bounded by `PIECE`.
    """
    windows = [s.window(w.start, w.stop) for s, w in zip(steps, where, strict=True)]
    # A unit holds one time point: slabs along that axis would be the whole unit.
    axis = next((i for i, w in enumerate(where) if w.stop - w.start > 1), 0)
    step, around = steps[axis], windows[:axis] + windows[axis + 1 :]
    cross = prod(w.stop - w.start for w in around)
    depth = max(PIECE // max(cross * (step.factor or -(-step.fine // step.coarse)), 1), 1)
    parts = []
    for start in range(where[axis].start, where[axis].stop, depth):
        rows = slice(start, min(start + depth, where[axis].stop))
        part = (*where[:axis], rows, *where[axis + 1 :])
        window = (*windows[:axis], step.window(rows.start, rows.stop), *windows[axis + 1 :])
        parts.append(downsample(fine[window], steps, part))
    return np.concatenate(parts, axis)


def downsample(
    labels: np.ndarray, steps: Sequence[AxisStep], where: tuple[slice, ...]
) -> np.ndarray:
    """Reduce the fine voxels under the coarse region `where`.

    Parameters
    ----------
    labels : integer, shape ([Z,] Y, X)
        The fine voxels of ``steps[i].window(where[i])``.
    steps : sequence of AxisStep
    where : tuple of slice

    Returns
    -------
    ndarray
        Shape of `where`, dtype of `labels`.
    """
    factors = []
    for axis, (step, w) in enumerate(zip(steps, where, strict=True)):
        if step.factor is None:
            picks = step.picks(w.start, w.stop)
            labels = np.take(labels, picks - picks[0], axis=axis)
        factors.append(step.factor or 1)
    return labels if prod(factors) == 1 else mode_cells(labels, factors)
