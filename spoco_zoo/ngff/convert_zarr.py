r"""Any image to OME-Zarr with a pyramid, one write unit at a time.

::

    source level --> level 0 --> level 1 --> ...      each unit is read, reduced, written
            \-> raw copy -/     only where the source decodes in units far larger than ours
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from spoco_zoo.errors import StoreError
from spoco_zoo.ngff.image import Image, Level, dataset_of
from spoco_zoo.ngff.labels import label_block
from spoco_zoo.ngff.metadata import SPATIAL, VERSIONS, multiscale_attributes
from spoco_zoo.ngff.reduce import mean_cells, mode_cells, pyramid_factors
from spoco_zoo.ngff.store import create_array, tiles, write_blocks
from spoco_zoo.ngff.target import coarser_level

__all__ = ["Progress", "PyramidPlan", "plan_pyramid", "to_zarr"]

Progress = Callable[[int, int], None]
"""Called with units done and units in total."""

_CHUNK = {("0.4", 2): 1024, ("0.4", 3): 128, ("0.5", 2): 512, ("0.5", 3): 64}
_CHUNKS_PER_SHARD = 4
_COLOURS = ("00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF", "FFFFFF")
_PHOTOGRAPH = ("FF0000", "00FF00", "0000FF", "FFFFFF")


@dataclass(frozen=True)
class PyramidPlan:
    """A multiscale to be written: what, where, in which units."""

    axes: tuple[str, ...]
    levels: tuple[Level, ...]
    factors: tuple[tuple[int, ...], ...]
    """From each level to the next, one entry per axis."""
    chunk: tuple[int, ...]
    """One entry per axis."""
    dtype: np.dtype[Any]
    version: str
    labels: bool

    @property
    def n_space(self) -> int:
        """Number of spatial axes."""
        return sum(axis in SPATIAL for axis in self.axes)


def plan_pyramid(
    image: Image, level: int, chunk: Sequence[int] | None, version: str, labels: bool
) -> PyramidPlan:
    """Levels and chunks of the OME-Zarr that `image` becomes."""
    if version not in VERSIONS:
        raise StoreError("the OME-Zarr version must be 0.4 or 0.5", repr(version), "Choose one.")
    n_space = len(image.spatial)
    if labels and (image.dtype.kind not in "ui" or image.n_channels > 1):
        raise StoreError(
            "labels must be integers in one channel",
            f"{image.dtype} in {image.n_channels} channels in {image.uri}",
            "Convert it as an image.",
        )
    edge = tuple(chunk) if chunk is not None else (_CHUNK[version, n_space],) * n_space
    if len(edge) != n_space or min(edge) < 1:
        raise StoreError(
            f"a chunk must have one positive entry for each of {', '.join(image.spatial)}",
            str(edge),
            "Mend it or leave it out.",
        )
    first = image.levels[level]
    levels = [Level("0", first.shape, first.scale, first.translation)]
    lead = (1,) * (len(image.axes) - n_space)
    # Units may differ from axis to axis.
    size = image.voxel_size(level) or image.spatial_scale(level)
    factors = [(*lead, *step) for step in pyramid_factors(first.shape[-n_space:], size)]
    for step in factors:
        levels.append(coarser_level(levels[-1], step))
    return PyramidPlan(
        axes=image.axes,
        levels=tuple(levels),
        factors=tuple(factors),
        chunk=(*lead, *edge),
        dtype=np.dtype(np.uint8) if image.dtype.kind == "b" else image.dtype,
        version=version,
        labels=labels,
    )


def to_zarr(image: Image, level: int, plan: PyramidPlan, place: Path, progress: Progress) -> None:
    """Write all levels to a new folder, then the metadata."""
    zarr.open_group(place, mode="w", zarr_format=2 if plan.version == "0.4" else 3)
    arrays = [_array_of(plan, one, place) for one in plan.levels]
    total = sum(1 for array in arrays for _ in write_blocks(array))
    done = 0
    for part, block in _finest_blocks(image, level, arrays[0], place):
        if plan.labels and block.min() < 0:
            raise StoreError(
                "labels must be 0 for background, and positive for objects",
                f"{block.min()} in {image.uri}",
                "Number the objects from 1.",
            )
        arrays[0][part] = block
        progress(done := done + 1, total)
    reduce = mode_cells if plan.labels else mean_cells
    for fine, coarse, factors in zip(arrays, arrays[1:], plan.factors, strict=False):
        for part in write_blocks(coarse):
            coarse[part] = _reduced(fine, part, coarse, factors, reduce)
            progress(done := done + 1, total)
    zarr.open_group(place, mode="r+").attrs.put(_attributes(image, plan, arrays[-1]))


def _array_of(plan: PyramidPlan, level: Level, folder: Path) -> zarr.Array[Any]:
    """Create one level; chunk and shard shrink where the level is smaller."""
    chunk = tuple(min(c, n) for c, n in zip(plan.chunk, level.shape, strict=True))
    shard = list(chunk)
    for i in range(len(shard) - plan.n_space, len(shard)):
        shard[i] *= min(_CHUNKS_PER_SHARD, -(-level.shape[i] // chunk[i]))
    return create_array(
        folder / level.path,
        shape=level.shape,
        dtype=plan.dtype,
        chunk=chunk,
        shard=shard,
        version=plan.version,
        axes=plan.axes,
    )


def _finest_blocks(
    image: Image, level: int, array: zarr.Array[Any], folder: Path
) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
    """Yield every write unit of the finest level with its content."""
    unit, native = array.shards or array.chunks, image.chunks(level)
    shape = image.levels[level].shape
    repeats = math.prod(-(-min(a, n) // b) for a, b, n in zip(native, unit, shape, strict=True))
    if repeats <= 2:
        for part in write_blocks(array):
            yield part, image.read_region(level, part)
        return
    # A strip of a TIFF may span the width of the image: decoding it once for each
    # unit that it crosses would cost hundreds of times the work.
    n_space = len(image.spatial)
    raw = folder / "raw.partial"
    for lead in product(*(range(n) for n in shape[:-n_space])):
        outer = tuple(slice(i, i + 1) for i in lead)
        for inner in tiles(shape[-n_space:], native[-n_space:]):
            block = image.read_region(level, (*outer, *inner))
            _mapped(raw, image, level)[inner] = block.reshape(block.shape[-n_space:])
        for inner in tiles(shape[-n_space:], unit[-n_space:]):
            block = _mapped(raw, image, level)[inner]
            yield (*outer, *inner), block.reshape((1,) * len(lead) + block.shape)
    raw.unlink()


def _mapped(raw: Path, image: Image, level: int) -> NDArray[Any]:
    """One time point and channel as a raw file; mapped anew each time, so that pages are let go."""
    shape = image.spatial_shape(level)
    return np.memmap(raw, image.dtype, "r+" if raw.exists() else "w+", shape=shape)


def _reduced(
    fine: zarr.Array[Any],
    part: tuple[slice, ...],
    coarse: zarr.Array[Any],
    factors: Sequence[int],
    reduce: Callable[[NDArray[Any], Sequence[int]], NDArray[Any]],
) -> NDArray[Any]:
    """One write unit of a coarse level, chunk by chunk, as the finer unit is 8 times larger."""
    result = np.empty([p.stop - p.start for p in part], coarse.dtype)
    for inner in tiles(result.shape, coarse.chunks):
        window = tuple(
            slice((p.start + i.start) * f, min((p.start + i.stop) * f, n))
            for p, i, f, n in zip(part, inner, factors, fine.shape, strict=True)
        )
        result[inner] = reduce(np.asarray(fine[window]), factors)
    return result


def _attributes(image: Image, plan: PyramidPlan, coarsest: zarr.Array[Any]) -> dict[str, Any]:
    """Group metadata; channels without a display window get the range of the coarsest level."""
    extra: dict[str, Any] = {}
    if plan.labels:
        # The source is named by its place, which is another one from here.
        stated = label_block(image)
        kept = {name: stated[name] for name in ("colors", "properties") if name in stated}
        extra["image-label"] = {"version": plan.version, **kept}
    else:
        display = dict(enumerate(image.channel_display))
        extra["omero"] = {
            "channels": [
                {
                    "label": name,
                    "color": _colour(image, i),
                    "active": not (image.colour and i == 3),
                    "window": _window(image, coarsest, i),
                    **display.get(i, {}),
                }
                for i, name in enumerate(image.channel_names)
            ]
        }
    how = "most frequent label" if plan.labels else "mean"
    return multiscale_attributes(
        plan.version,
        name=image.name,
        axes=plan.axes,
        units=image.units,
        datasets=[dataset_of(level) for level in plan.levels],
        method="mode" if plan.labels else "mean",
        description=f"Every voxel holds the {how} of its cell in the finer level.",
        extra=extra,
    )


def _colour(image: Image, channel: int) -> str:
    """What a channel is shown in: grey if it is the only one, its own in a photograph."""
    if image.n_channels == 1:
        return "FFFFFF"
    colours = _PHOTOGRAPH if image.colour else _COLOURS
    return colours[channel % len(colours)]


def _window(image: Image, coarsest: zarr.Array[Any], channel: int) -> dict[str, float]:
    """Display range of a channel at its first time point."""
    where = tuple(
        {"t": slice(0, 1), "c": slice(channel, channel + 1)}.get(axis, slice(None))
        for axis in image.axes
    )
    values = np.asarray(coarsest[where])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return {"min": low, "max": high, "start": low, "end": max(high, low + 1e-6)}
