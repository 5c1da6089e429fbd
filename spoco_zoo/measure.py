"""Every object of a label image measured, block by block, in one table.

Voxels of a block are summed up per object, and sums of blocks are merged by the
same formula. Counts, boxes, centroids and extremes come out the same whatever the
blocks, and so do means of integer images; standard deviations agree to rounding.
Memory holds one block, and one row per object.
"""

from __future__ import annotations

from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.errors import ConfigError
from spoco_zoo.label_places import align, check_place
from spoco_zoo.label_sums import check_one_channel, sum_blocks
from spoco_zoo.sizes import equivalent_diameter
from spoco_zoo.tables import FORMULA
from spoco_zoo.verbs import make_verb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from spoco_zoo.ngff import Image
    from spoco_zoo.sums import Sums

__all__ = ["measure"]


def measure(
    labels: str | Path,
    image: str | Path,
    *,
    label_name: str | None = None,
    level: int | None = None,
    start: Sequence[int] | None = None,
    voxel_size: Sequence[float] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_block: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Measure every object.

    Parameters
    ----------
    labels : str or path
        A label image, an OME-Zarr image that holds labels, or a TIFF or OME-Zarr of integers.
        It covers the image, one of its levels, or a region of one.
    image : str or path
        Whose intensities are measured, in every channel.
    label_name : str, optional
        Which label of an image; needed if it holds several.
    level, start : int and sequence of int, optional
        Level of the image that the labels lie on, and their first voxel there ([Z,] Y, X), by
        default its first. Without a level both are found out, which a TIFF of a part forbids.
    voxel_size : sequence of float, optional
        Of the labels ([Z,] Y, X) in micrometres, in place of what they or the image state.
    on_note : callable, optional
        Told, before anything is measured, what is taken for granted about the image.
    on_block : callable, optional
        Called with blocks done and blocks in all.

    Returns
    -------
    pandas.DataFrame
        One row per object, in the order of ids. ``um`` in a column's name means
        micrometres; where the voxel size is unknown, it is ``px``: voxels.
        ``label``; ``time`` if there is a t axis; ``voxels``; ``area_um2`` (of a stack of one
        plane, too) or ``volume_um3``; ``diameter_um`` of the disc or ball of that size; centroid
        ``[z_um,] y_um, x_um``, in the coordinates of the label image, or those of the image
        if the labels are a file, which states no place; bounding box
        ``[z_start, z_stop,] ...`` in voxels of the label image, stops exclusive; and ``mean``,
        ``std``, ``min`` and ``max`` per channel, named after it; names that occur more than once
        are followed by the channel's index.

    Raises
    ------
    ConfigError
        If there is a `start` and no `level`, or `voxel_size` is not one number per axis.
    DataError
        If labels and image do not lie on the same voxels, or labels have several channels.
    StoreError
        If either cannot be read.
    """
    import pandas as pd

    if start is not None and level is None:
        raise ConfigError(
            "a first voxel (start) counts on a level",
            f"start {tuple(start)} and no level",
            "Give level, too: 0 is the finest.",
        )
    found = ngff.find_labels(labels, label_name, unsaid=True)
    check_one_channel(found)
    ndim = len(start) if start is not None else None
    source, found = ngff.laid_on(ngff.open_image(image), found, ndim)
    if voxel_size is not None:
        voxel_size = _checked_size(voxel_size, found)
    if level is None:
        level, offset = align(found, source)
    else:
        offset = tuple(start) if start is not None else (0,) * len(found.spatial)
        check_place(found, source, level, offset)
    if on_note is not None:
        for note in source.notes:
            on_note(note)
    sizes = _sizes(found, source, level, offset, voxel_size)
    tables = []
    for when in range(found.n_times):
        sums = _sums(found, source, level, offset, when, on_block or (lambda done, total: None))
        columns = _columns(sums, found, source.channel_names, sizes)
        times = {"time": when} if "t" in found.axes else {}
        tables.append(pd.DataFrame({"label": columns.pop("label"), **times, **columns}))
    return pd.concat(tables, ignore_index=True)


def _sums(
    labels: Image,
    image: Image,
    level: int,
    offset: Sequence[int],
    when: int,
    on_block: Callable[[int, int], None],
) -> Sums:
    """What every object of one time point adds up to with its intensities, one row each."""

    def values(where: tuple[slice, ...]) -> NDArray[Any]:
        there = [slice(w.start + o, w.stop + o) for w, o in zip(where, offset, strict=True)]
        return image.read(level, when, None, there)

    return sum_blocks(labels, when, image.n_channels, values, on_block)


class _Sizes(NamedTuple):
    """Voxel size and origin of labels per spatial axis, in um or px."""

    units: list[str]
    scale: NDArray[np.float64]
    origin: NDArray[np.float64]


def _checked_size(asked: Sequence[float], labels: Image) -> tuple[float, ...]:
    """A voxel size as numbers, whatever holds them."""
    with suppress(TypeError, ValueError):
        size = tuple(float(one) for one in asked)
        if len(size) == len(labels.spatial) and all(0 < one < np.inf for one in size):
            return size
    raise ConfigError(
        f"voxel_size must have one positive number for each of {', '.join(labels.spatial)}",
        f"{asked} for {labels.uri}",
        f"Give {len(labels.spatial)}.",
    )


def _sizes(
    labels: Image,
    image: Image,
    level: int,
    offset: Sequence[int],
    asked: Sequence[float] | None,
) -> _Sizes:
    """What is asked for, else stated by the labels, else by their image; else voxels."""
    n = len(labels.spatial)
    # The z axis of a single plane counts by itself: its size is often unknown.
    parts = [slice(0, 1), slice(1, n)] if _planar(labels) and n == 3 else [slice(0, n)]
    # Files state no place: they lie over their image.
    placed, at, start = (image, level, offset)
    if labels.kind == "ome-zarr":
        placed, at, start = labels, 0, (0,) * n
    units, scale, factors = list[str](), list[float](), list[float]()
    for part in parts:
        wanted = tuple(asked[part]) if asked else None
        size = wanted or labels.voxel_size(0, part) or image.voxel_size(level, part)
        known, own = wanted or placed.voxel_size(at, part), placed.spatial_scale(at)[part]
        units += ["um" if size else "px"] * len(own)
        scale += size or (1.0,) * len(own)
        # A translation is in the units of its image, which the factor brings to micrometres.
        factors += [a / b for a, b in zip(known, own, strict=True)] if known else [0.0] * len(own)
    shift = np.multiply(start, placed.spatial_scale(at)) + placed.levels[at].translation[-n:]
    origin = np.multiply(shift, factors)
    return _Sizes(units, np.asarray(scale), origin)


def _planar(labels: Image) -> bool:
    """Whether labels are flat; fields of slide scanners are often stored as stacks of one plane."""
    return labels.spatial_shape()[:-2] in ((), (1,))


def _columns(sums: Sums, labels: Image, channels: Sequence[str], sizes: _Sizes) -> dict[str, Any]:
    """Named columns in physical units."""
    unit, scale = sizes.units[-1], sizes.scale
    centre = sizes.origin + scale * sums.places / sums.count[:, None]
    n = 2 if _planar(labels) else 3
    extent = sums.count * prod(scale[-n:])
    what = "area" if n == 2 else "volume"
    columns: dict[str, Any] = {
        "label": sums.ids.astype(np.int64),
        "voxels": sums.count,
        f"{what}_{unit}{n}": extent,
        f"diameter_{unit}": equivalent_diameter(extent, n),
    }
    for i, axis in enumerate(labels.spatial):
        columns[f"{axis}_{sizes.units[i]}"] = centre[:, i]
    for i, axis in enumerate(labels.spatial):
        columns |= {f"{axis}_start": sums.low[:, i], f"{axis}_stop": sums.high[:, i] + 1}
    mean = sums.total / sums.count[:, None]
    std = np.sqrt(sums.squares / sums.count[:, None])
    for i, prefix in enumerate(_prefixes(channels)):
        values = {"mean": mean, "std": std, "min": sums.least, "max": sums.most}
        columns |= {f"{prefix}_{key}": value[:, i] for key, value in values.items()}
    return columns


def _prefixes(channels: Sequence[str]) -> list[str]:
    """What the columns of each channel begin with; a name that occurs again gets its index.

    No spreadsheet takes one for a formula.
    """
    names = [f"channel{name}" if name.isdecimal() else name for name in channels]
    names = [f"channel {name}" if name.startswith(FORMULA) else name for name in names]
    while len(set(names)) < len(names):
        names = [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names)]
    return names


make_verb(__name__)
