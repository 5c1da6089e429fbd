r"""An image seen at another voxel size, resampled region by region as it is read.

One axis, two voxels of the view for five of the image::

    image  |----a----|----b----|----c----|----d----|----e----|
    view   |-----------0------------|-----------1------------|

A view voxel that is larger than the image's is the mean of what it covers, parts
of voxels by their share; one that is smaller is interpolated linearly between
the two nearest centres. A value depends on the image alone and not on the region
asked for, to the last bit: every sum runs over the same terms in the same order.
Shares are whole numbers until a sum is divided, so what is of one value stays so: an
empty image does not become one of rounding errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from spoco_zoo.ngff.image import Image, Level
from spoco_zoo.ngff.lost import read_mended
from spoco_zoo.outliers import cut_off_values, mend_spikes

__all__ = [
    "RescaledImage",
    "cut_off",
    "mixed_lines",
    "resampled",
    "rescale_image",
    "with_neighbours",
]

PIECE = 2**23
"""Voxels of the image held at a time, where the first axis allows it."""


@dataclass(frozen=True)
class RescaledImage(Image):
    """One level of an image at another voxel size, in float32 if that is exact, else float64."""

    origin: Image | None = None
    origin_level: int = 0
    limits: tuple[float, float] = (-np.inf, np.inf)
    """Values of the image beyond these count as the limit."""
    spike: float = np.inf
    """Voxels of the image that are this far from their neighbours are mended."""
    lost: tuple[tuple[int, int], ...] = ()
    """Planes of the image in whose place others are read, see `find_lost`."""

    @property
    def mixed(self) -> tuple[int, ...]:
        """See `mixed_lines`."""
        assert self.origin is not None
        old = self.origin.spatial_shape(self.origin_level)
        return mixed_lines(old, self.spatial_shape(0))

    def read(
        self, level: int, time: int, channels: Sequence[int] | None, where: Sequence[slice]
    ) -> NDArray[Any]:
        """See `Image.read`; `where` is in voxels of the view."""
        assert self.origin is not None
        assert level == 0
        old = self.origin.spatial_shape(self.origin_level)
        new = self.spatial_shape(0)
        count = self.n_channels if channels is None else len(channels)
        maps = [axis_map(n, m, w) for n, m, w in zip(old, new, where, strict=True)]
        cross = count * prod(m.source.stop - m.source.start for m in maps[1:])
        parts = []
        for head in _heads(old[0], new[0], where[0], cross):
            region = (head.source, *(m.source for m in maps[1:]))
            values = self._within_limits(time, channels, region)
            parts.append(_apply(values, [head, *maps[1:]]))
        return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]

    def _within_limits(
        self, time: int, channels: Sequence[int] | None, region: Sequence[slice]
    ) -> NDArray[Any]:
        """A region of the image; neighbours of its voxels are read, too, if any are cut off."""
        assert self.origin is not None
        if not np.isfinite((*self.limits, self.spike)).any():
            return read_mended(self.origin, self.origin_level, time, channels, region, self.lost)
        whole = self.origin.spatial_shape(self.origin_level)
        wide, inner = with_neighbours(region, whole)
        read = read_mended(self.origin, self.origin_level, time, channels, wide, self.lost)
        values = read.astype(np.float64, order="C")
        infinite = ~np.isfinite(values)
        refused = values[infinite]
        mend_spikes(values, self.spike)
        cut_off_values(values, *self.limits)
        values[infinite] = refused
        return values[(slice(None), *inner)].astype(np.promote_types(read.dtype, np.float32))

    def read_region(self, level: int, region: Sequence[slice]) -> NDArray[Any]:
        """A view has no array of its own that could be sliced along all axes."""
        raise NotImplementedError("a rescaled view is read by time and channels")

    def chunks(self, level: int = 0) -> tuple[int, ...]:
        """One voxel: nothing is stored at this size."""
        return (1,) * len(self.axes)


def cut_off(
    image: Image,
    low: float,
    high: float,
    spike: float,
    lost: tuple[tuple[int, int], ...] = (),
) -> Image:
    """The image, of which a view takes no values below `low` or above `high`, and no spikes.

    They would spread over what is resampled, and so would lost planes; an image that is no view
    stays as it is.
    """
    if not isinstance(image, RescaledImage):
        return image
    return replace(image, limits=(low, high), spike=spike, lost=lost)


def with_neighbours(
    where: Sequence[slice], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """A region of an image with two voxels more around it in the plane, and where it lies therein.

    What a voxel is mended by must not hang on the region that it is read with; and a neighbour that
    cuts it off may be mended itself, by one of its own.

    Examples
    --------
    >>> wide, inner = with_neighbours((slice(0, 4), slice(3, 8)), (9, 8))
    >>> wide
    (slice(0, 6, None), slice(1, 8, None))
    >>> inner
    (slice(0, 4, None), slice(2, 7, None))
    """
    margins = [0] * (len(shape) - 2) + [2, 2]
    wide = tuple(
        slice(max(s.start - m, 0), min(s.stop + m, n))
        for s, n, m in zip(where, shape, margins, strict=True)
    )
    return wide, tuple(
        slice(s.start - w.start, s.stop - w.start) for s, w in zip(where, wide, strict=True)
    )


def mixed_lines(old: Sequence[int], new: Sequence[int]) -> tuple[int, ...]:
    """How many lines of a view mix two neighbouring lines of an image, per axis."""
    return tuple(0 if n == m else max(1, -(-m // n)) for n, m in zip(old, new, strict=True))


@dataclass(frozen=True)
class AxisMap:
    """From a part of an axis of the image to a part of the view's."""

    source: slice
    """What has to be read."""
    weights: csr_array | None
    """Shape (view voxels, image voxels), whole numbers; None if nothing changes."""
    unit: int = 1
    """What the weights of a view voxel add up to."""


def rescale_image(image: Image, level: int, voxel_factor: Sequence[float]) -> RescaledImage:
    """View of one level with voxels that are larger by a factor per axis.

    Parameters
    ----------
    image : Image
    level : int
    voxel_factor : sequence of float
        One per spatial axis; above 1 the view is coarser. Shapes are rounded, and
        the view covers exactly what the image covers.

    Returns
    -------
    RescaledImage
        Of one level, with all times and channels.
    """
    base = image.levels[level]
    lead = len(base.shape) - len(voxel_factor)
    factors = (1.0,) * lead + tuple(voxel_factor)
    shape = tuple(max(round(n / f), 1) for n, f in zip(base.shape, factors, strict=True))
    scale = tuple(s * n / m for s, n, m in zip(base.scale, base.shape, shape, strict=True))
    shift = tuple(
        t + (new - old) / 2 for t, old, new in zip(base.translation, base.scale, scale, strict=True)
    )
    return RescaledImage(
        uri=image.uri,
        kind=image.kind,
        version=image.version,
        axes=image.axes,
        units=image.units,
        levels=(Level(base.path, shape, scale, shift),),
        # Counts of more than 24 bits need float64.
        dtype=np.promote_types(image.dtype, np.float32),
        channel_names=image.channel_names,
        name=image.name,
        series=image.series,
        storage_options=image.storage_options,
        origin=image,
        origin_level=level,
    )


def resampled(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Voxels (C, [Z,] Y, X) as a view of another shape ([Z,] Y, X) shows them.

    In float32 if that is exact, else float64.
    """
    maps = [axis_map(n, m, slice(0, m)) for n, m in zip(values.shape[1:], shape, strict=True)]
    cross = len(values) * prod(values.shape[2:])
    parts = [
        _apply(values[:, head.source], [head, *maps[1:]])
        for head in _heads(values.shape[1], shape[0], slice(0, shape[0]), cross)
    ]
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def _heads(old: int, new: int, where: slice, cross: int) -> list[AxisMap]:
    """Maps of parts of the first axis, of which each needs about `PIECE` voxels of the image.

    `cross` is how many a plane (or, in 2D, a row) of it has.
    """
    rows = max(int(PIECE / max(cross, 1) * new / old), 1)
    starts = range(where.start, where.stop, rows)
    return [axis_map(old, new, slice(a, min(a + rows, where.stop))) for a in starts]


def axis_map(old: int, new: int, where: slice) -> AxisMap:
    """Source region and weights for the view voxels `where` of an axis.

    Parameters
    ----------
    old, new : int
        Length of the axis in the image and in the view.
    where : slice
        In voxels of the view.

    Examples
    --------
    >>> axis_map(5, 2, slice(0, 2)).weights.toarray(), axis_map(5, 2, slice(0, 2)).unit
    (array([[2., 2., 1., 0., 0.],
           [0., 0., 1., 2., 2.]]), 5)
    """
    if old == new:
        return AxisMap(where, None)
    index = np.arange(where.start, where.stop)
    columns, values = _averages(index, old, new) if old > new else _ramps(index, old, new)
    unit = old if old > new else 2 * new
    source = slice(int(columns.min()), int(columns.max()) + 1)
    rows = np.broadcast_to(np.arange(len(index))[:, None], columns.shape)
    kept = values > 0
    weights = csr_array(
        (values[kept].astype(np.float64), (rows[kept], columns[kept] - source.start)),
        shape=(len(index), source.stop - source.start),
    )
    return AxisMap(source, weights, unit)


def _averages(index: NDArray[Any], old: int, new: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Image voxels that each view voxel covers, and how much of each, shape (n, k).

    In units of ``1/new`` of an image voxel.
    """
    start, stop = index * old, (index + 1) * old
    width = -(-old // new) + 1
    columns = (start // new)[:, None] + np.arange(width)
    covered = np.minimum(stop[:, None], (columns + 1) * new) - np.maximum(
        start[:, None], columns * new
    )
    return np.minimum(columns, old - 1), np.maximum(covered, 0)


def _ramps(index: NDArray[Any], old: int, new: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two image voxels around the centre of each view voxel, and their weights.

    In units of ``1 / (2 new)`` of an image voxel.
    """
    unit = 2 * new
    centre = np.clip((2 * index + 1) * old - new, 0, (old - 1) * unit)
    low = np.minimum(centre // unit, max(old - 2, 0))
    share = centre - low * unit
    columns = np.stack([low, np.minimum(low + 1, old - 1)], axis=1)
    return columns, np.stack([unit - share, share], axis=1)


def _apply(values: NDArray[Any], maps: Sequence[AxisMap]) -> NDArray[Any]:
    """Resample (C, [Z,] Y, X) axis by axis in float64; the result as `resampled` says."""
    result = values.astype(np.float64)
    for axis, step in enumerate(maps, start=1):
        if step.weights is None:
            continue
        # Sparse rows are summed in the order of their columns: no BLAS, no change of order.
        front = np.moveaxis(result, axis, 0)
        flat = step.weights @ front.reshape(len(front), -1)
        flat /= step.unit
        result = np.moveaxis(flat.reshape(-1, *front.shape[1:]), 0, axis)
    return np.ascontiguousarray(result, np.promote_types(values.dtype, np.float32))
