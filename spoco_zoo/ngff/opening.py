"""From an address to an image: what lies there is found out and checked, no pixel is read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from spoco_zoo.errors import StoreError, one_line
from spoco_zoo.ngff.calibration import incomplete
from spoco_zoo.ngff.image import COLOUR_NAMES, Image, Level, open_level
from spoco_zoo.ngff.metadata import SPATIAL, micrometres
from spoco_zoo.ngff.parse import Multiscale, parse_multiscale
from spoco_zoo.ngff.picture import PictureArray, is_picture
from spoco_zoo.ngff.store import is_remote, local_path, open_group
from spoco_zoo.ngff.tiff import TiffInfo, inspect_tiff

__all__ = ["holds_zarr", "is_plain_folder", "open_image"]

LONGEST, LARGEST = 2**28, 2**53
"""Voxels of an axis and of an image: beyond what is ever acquired, within what can be counted."""
MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
"""Files that a folder of Zarr holds, one of them at least."""
SHOWN = 8
"""Images of a file that a note lists."""


def holds_zarr(folder: str | Path) -> bool:
    """Whether a local folder is itself a Zarr group or array."""
    return any(os.path.exists(os.path.join(folder, name)) for name in MARKS)


def is_plain_folder(place: str | Path) -> bool:
    """Whether a local folder is no Zarr itself, and may hold several images."""
    return os.path.isdir(place) and not holds_zarr(place)


def open_image(
    uri: str | Path,
    *,
    storage_options: Mapping[str, Any] | None = None,
    series: int | None = None,
    numbers: bool = False,
) -> Image:
    """Open an OME-Zarr image, a TIFF or a picture; of the first two only metadata are read.

    Parameters
    ----------
    uri : str or path
        Folder of an OME-Zarr image (0.4, 0.5), address of a remote one
        (``s3://``, ``https://``), a TIFF file, or a PNG or JPEG.
    storage_options : mapping, optional
        Options for fsspec, remote stores only.
    series : int, optional
        TIFF only: which image of a file that holds several, by default its first.
    numbers : bool
        Labels are wanted: of an indexed PNG its numbers, not their colours.

    Returns
    -------
    Image

    Raises
    ------
    StoreError
        If nothing is there, or it is no image of a supported kind.
    """
    place = local_path(uri)
    if not is_remote(place):
        if not os.path.exists(place):
            raise StoreError("the input must exist", f"nothing at {place}", "Check the path.")
        if os.path.isfile(place):
            return _open_file(place, series, numbers)
        if not holds_zarr(place):
            raise StoreError(
                "the input must be an OME-Zarr folder, a TIFF, PNG or JPEG file",
                f"{'a folder' if os.path.isdir(place) else 'something'} of another kind at {place}",
                "Give one image; `spoco-zoo segment` also takes a folder of them.",
            )
    group = open_group(place, storage_options=storage_options)
    multiscale = parse_multiscale(dict(group.attrs), group.metadata.zarr_format, place)
    arrays = [open_level(place, d.path, storage_options) for d in multiscale.datasets]
    _check_arrays(multiscale, arrays, place)
    levels = tuple(
        Level(d.path, tuple(a.shape), d.scale, d.translation)
        for d, a in zip(multiscale.datasets, arrays, strict=True)
    )
    axes = multiscale.axes
    factors = [micrometres(unit) for unit in multiscale.units]
    sizes = {a: s * f for a, s, f in zip(axes, levels[0].scale, factors, strict=True) if f}
    spatial = [axis for axis in axes if axis in SPATIAL]
    count = levels[0].shape[axes.index("c")] if "c" in axes else 1
    names = _name_channels(multiscale.channel_names, count)
    return Image(
        uri=place,
        kind="ome-zarr",
        version=multiscale.version,
        axes=axes,
        units=multiscale.units,
        levels=levels,
        dtype=np.dtype(arrays[0].dtype).newbyteorder("="),
        channel_names=names,
        channel_display=multiscale.channel_display,
        colour=_is_colour(names),
        name=multiscale.name,
        is_label=multiscale.is_label,
        incomplete="" if all(a in sizes for a in spatial) else incomplete(sizes, spatial),
        series_note=_note_others(multiscale.others),
        storage_options=dict(storage_options) if storage_options else None,
    )


def _note_others(count: int) -> str:
    """What to say of a group with more than one multiscale."""
    return f"The group lists {count + 1} multiscales; the first is taken." if count else ""


def _open_file(path: str, series: int | None, numbers: bool) -> Image:
    """Open a single file by what it begins with, whatever it is called."""
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise StoreError(
            "the input must be readable",
            one_line(error),
            "Check its permissions, and the disk that it lies on.",
        ) from error
    if magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _open_tiff(path, series)
    if is_picture(magic):
        return _open_picture(path, numbers)
    raise StoreError(
        "the input must be an OME-Zarr folder, a TIFF, PNG or JPEG file",
        f"a file of another kind at {path}",
        "Convert what a microscope wrote, with bioformats2raw (to OME-Zarr) or Fiji (to OME-TIFF); "
        "unpack an archive.",
    )


def _open_picture(path: str, numbers: bool) -> Image:
    """Describe a picture as an image of one level and unknown pixel size."""
    array = PictureArray(path, numbers)
    axes = ("c", "y", "x")[-len(array.shape) :]
    names = _name_channels(COLOUR_NAMES[:3], array.shape[0] if "c" in axes else 1)
    ones, zeros = (1.0,) * len(axes), (0.0,) * len(axes)
    image = Image(
        uri=path,
        kind="picture",
        version=None,
        axes=axes,
        units=(None,) * len(axes),
        levels=(Level("0", array.shape, ones, zeros),),
        dtype=array.pixels.dtype,
        channel_names=names,
        name=Path(path).name.split(".")[0],
        colour=_is_colour(names),
        numbers=numbers,
    )
    image.adopt(0, array)
    return image


def _open_tiff(path: str, series: int | None) -> Image:
    """Describe a TIFF series as an image; coarser levels are cells of the finest."""
    info = inspect_tiff(path, series)
    _check_tiff(info, path)
    spatial = [axis for axis in info.axes if axis in SPATIAL]
    size = dict(zip(spatial, info.voxel_size or (), strict=False))
    units = dict.fromkeys(size, "micrometer")
    if info.interval is not None:
        size["t"], units["t"] = info.interval, "second"
    finest = tuple(size.get(axis, 1.0) for axis in info.axes)
    levels = []
    for i, shape in enumerate(info.shapes):
        ratio = [a / b for a, b in zip(info.shapes[0], shape, strict=True)]
        scale = tuple(s * r for s, r in zip(finest, ratio, strict=True))
        shift = tuple(s * (r - 1) / 2 for s, r in zip(finest, ratio, strict=True))
        levels.append(Level(str(i), shape, scale, shift))
    count = info.shapes[0][info.axes.index("c")] if "c" in info.axes else 1
    names = _name_channels(COLOUR_NAMES[:count] if info.colour else info.channel_names, count)
    return Image(
        uri=path,
        kind="tiff",
        version=None,
        axes=info.axes,
        units=tuple(units.get(axis) for axis in info.axes),
        levels=tuple(levels),
        dtype=info.dtype,
        channel_names=names,
        name=Path(path).name.split(".")[0],
        colour=_is_colour(names),
        incomplete=info.incomplete,
        series=info.number,
        guessed=info.guessed,
        indexed=info.indexed,
        dark_is_high=info.dark_is_high,
        series_note="" if series is not None else _note_series(info, path),
    )


def _note_series(info: TiffInfo, path: str) -> str:
    """Tell of further images in a file, and of further files of an image."""
    name, count, notes = Path(path).name, len(info.own), list[str]()
    if len(info.files) > 1:
        notes.append(f"{name} is one of {len(info.files)} files of one image: all are read.")
    if count > 1:
        more = f"; and {count - SHOWN} more" if count > SHOWN else ""
        listed = "; ".join(info.series[i] for i in info.own[:SHOWN])
        notes.append(
            f"{name} holds {count} images: {listed}{more}. The first is used; "
            f"`spoco-zoo convert IN.tif OUT.ome.zarr --series {info.own[1]}` takes out another."
        )
    return " ".join(notes)


def _check_tiff(info: TiffInfo, path: str) -> None:
    """Raise unless a TIFF holds real numbers, as many as an image can have and at least one."""
    _check_size(info.shapes[0], path)
    if info.dtype.kind not in "buif" or 0 in info.shapes[0]:
        raise StoreError(
            "an image must hold real numbers",
            f"{info.dtype} of shape {info.shapes[0]} in {path}",
            "Export it with another type, such as 16-bit integers.",
        )


def _check_arrays(multiscale: Multiscale, arrays: Sequence[zarr.Array[Any]], where: str) -> None:
    """Raise unless all levels have the axes, one numeric dtype, and shrink."""
    first = arrays[0]
    for dataset, array in zip(multiscale.datasets, arrays, strict=True):
        if array.ndim != len(multiscale.axes):
            raise StoreError(
                "a level must have one dimension per axis",
                f"{array.ndim} for axes {', '.join(multiscale.axes)} in {where}/{dataset.path}",
                "Mend the metadata.",
            )
        if array.dtype.kind not in "buif":
            raise StoreError(
                "an image must hold real numbers",
                f"{array.dtype} in {where}",
                "Write it with another type, such as 16-bit integers.",
            )
        if array.dtype != first.dtype:
            raise StoreError(
                "all levels must have one dtype",
                f"{first.dtype} and {array.dtype} in {where}",
                "Write the image again.",
            )
    _check_size(first.shape, where)
    sizes = [math.prod(array.shape) for array in arrays]
    if 0 in sizes or sizes != sorted(sizes, reverse=True):
        raise StoreError(
            "levels must be ordered from fine to coarse and none empty",
            f"shapes {[array.shape for array in arrays]} in {where}",
            "Reorder the datasets, and drop those that are empty.",
        )


def _check_size(shape: Sequence[int], where: str) -> None:
    """Raise if an image claims more than any has: nothing of that size can be planned for."""
    if max(shape) > LONGEST or math.prod(shape) > LARGEST:
        raise StoreError(
            "an image must be of a possible size",
            f"{' x '.join(map(str, shape))} voxels in {where}",
            "Mend the metadata.",
        )


def _is_colour(names: Sequence[str]) -> bool:
    """Whether channels are called as those of photographs are here; a conversion keeps names."""
    return len(names) in (3, 4) and tuple(names) == COLOUR_NAMES[: len(names)]


def _name_channels(names: Sequence[str], count: int) -> tuple[str, ...]:
    """One name per channel; the index where metadata give none."""
    given = names if len(names) == count else [""] * count
    return tuple(name or str(i) for i, name in enumerate(given))
