"""Images on disk, opened lazily: OME-Zarr multiscales, TIFF series, pictures; one face."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from spoco_zoo.errors import GoneError, RemoteError, StoreError, one_line
from spoco_zoo.ngff.metadata import SPATIAL, Dataset, micrometres, seconds
from spoco_zoo.ngff.picture import PictureArray
from spoco_zoo.ngff.remote import is_remote, place_of
from spoco_zoo.ngff.store import absent_blocks, emptied_blocks, is_gone
from spoco_zoo.ngff.tiff import TiffArray, open_tiff_level

__all__ = [
    "COLOUR_NAMES",
    "UNREADABLE",
    "Image",
    "Level",
    "dataset_of",
    "find_channels",
    "open_level",
    "planes_as_channels",
]

COLOUR_NAMES = ("red", "green", "blue", "alpha")
"""Channels of a photograph."""
UNREADABLE = "stored image data must be readable"
"""The rule that a damaged chunk breaks."""
# Without range requests a server sends whole shards, which fail their checksums.
_REMEDY_REMOTE = "Check the connection; over HTTP the server must answer range requests."


@dataclass(frozen=True)
class Level:
    """One resolution level; all tuples in the order of the image's axes.

    ``scale`` and ``translation`` are physical: the transformations of the level
    and of the multiscale combined.
    """

    path: str
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Image:
    """An OME-Zarr multiscale (0.4 or 0.5), a TIFF series or a picture, read region by region.

    Pickles without its open files: a worker opens the levels that it reads,
    once per unpickled image.
    """

    uri: str
    """Absolute path, or address of a remote store."""
    kind: Literal["ome-zarr", "tiff", "picture"]
    version: str | None
    """``"0.4"``, ``"0.5"``, or None for files."""
    axes: tuple[str, ...]
    """Subset of t, c, z, y, x, in this order."""
    units: tuple[str | None, ...]
    """One per axis, e.g. ``"micrometer"``; None where not stated."""
    levels: tuple[Level, ...]
    """Finest first."""
    dtype: np.dtype[Any]
    channel_names: tuple[str, ...]
    """One per channel; a channel without a name has its index as its name."""
    channel_display: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)
    """OME-Zarr only: `color`, `window` and `active` of each channel, where they are stated."""
    name: str = ""
    is_label: bool = False
    colour: bool = False
    """Channels are the red, green and blue of a photograph, perhaps with alpha."""
    incomplete: str = ""
    """What is stated of the voxel size, where that is not all of it; the size is unknown then."""
    series: int = 0
    """TIFF only: which series of the file."""
    guessed: str = ""
    """TIFF only: what the axis was taken for that the file does not name, z or c."""
    indexed: bool = False
    """TIFF only: values are numbers of colours in a palette, not intensities."""
    dark_is_high: bool = False
    """TIFF only: the file says that 0 is white."""
    series_note: str = ""
    """Which other images the file, or the group of an OME-Zarr, holds."""
    numbers: bool = False
    """Pictures only: labels, the numbers of an indexed PNG in place of their colours."""
    kept: int | None = field(default=None, compare=False)
    """OME-Zarr only: a level of which no chunk or shard may be absent; see `pieces`."""
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    _opened: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind."""
        return {**self.__dict__, "_opened": {}}

    @property
    def spatial(self) -> tuple[str, ...]:
        """Spatial axes: ``("z", "y", "x")`` or ``("y", "x")``."""
        return tuple(axis for axis in self.axes if axis in SPATIAL)

    @property
    def n_times(self) -> int:
        """Number of time points, 1 without a t axis."""
        return self._length("t")

    @property
    def n_channels(self) -> int:
        """Number of channels, 1 without a c axis."""
        return self._length("c")

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken for granted, in sentences for the user."""
        found = [self.series_note] if self.series_note else []
        if self.indexed:
            found.append(
                f"The values of {os.path.basename(self.uri)} are numbers of colours in a palette: "
                "right for labels, but for an image save it as RGB."
            )
        if self.dark_is_high:
            found.append(
                f"{os.path.basename(self.uri)} says that 0 is white, so viewers show it the other "
                "way round. Values are taken as they stand; --invert turns them round."
            )
        if self.guessed:
            named = dict(zip(self.axes, self.levels[0].shape, strict=True))
            taken, other, axes = (
                ("z", "channels or times", "CYX (or YXC) or TYX")
                if self.guessed == "z"
                else ("channels", "z", "ZYX")
            )
            found.append(
                f"{os.path.basename(self.uri)} does not name its axes: {named[self.guessed]} "
                f"planes of {named['y']} x {named['x']} pixels are taken as {taken}. If they are "
                f"{other}, save it with axes {axes}."
            )
        return tuple(found)

    def spatial_shape(self, level: int = 0) -> tuple[int, ...]:
        """``([Z,] Y, X)`` of a level in voxels."""
        return self.levels[level].shape[-len(self.spatial) :]

    def spatial_scale(self, level: int = 0) -> tuple[float, ...]:
        """Voxel size ``([Z,] Y, X)`` of a level, in the image's own units."""
        return self.levels[level].scale[-len(self.spatial) :]

    def voxel_size(self, level: int = 0, part: slice = slice(None)) -> tuple[float, ...] | None:
        """Voxel size ``([Z,] Y, X)`` of a level in micrometres, None if a unit is unknown.

        With `part` that of some of the spatial axes: the unit of z may be unknown.
        """
        factors = [micrometres(unit) for unit in self.units[-len(self.spatial) :][part]]
        if any(factor is None for factor in factors):
            return None
        sizes = self.spatial_scale(level)[part]
        return tuple(s * (f or 0) for s, f in zip(sizes, factors, strict=True))

    def known_sizes(self, level: int = 0) -> tuple[float | None, ...]:
        """Voxel size ``([Z,] Y, X)`` of a level in micrometres, None for axes of unknown unit."""
        sizes = (self.voxel_size(level, slice(i, i + 1)) for i in range(len(self.spatial)))
        return tuple(size[0] if size else None for size in sizes)

    @property
    def interval(self) -> float | None:
        """Seconds from one time point to the next, None if they are not known."""
        if "t" not in self.axes:
            return None
        at = self.axes.index("t")
        unit = seconds(self.units[at])
        return None if unit is None else self.levels[0].scale[at] * unit

    def chunks(self, level: int = 0) -> tuple[int, ...]:
        """Shape of what one read decodes at least, in the order of `axes`."""
        return tuple(self._array(level).chunks)

    def read(
        self,
        level: int,
        time: int,
        channels: Sequence[int] | None,
        where: Sequence[slice],
    ) -> NDArray[Any]:
        """Read a region of one time point.

        Parameters
        ----------
        level, time : int
            Resolution level and time point.
        channels : sequence of int or None
            Channels in the order wanted; None for all.
        where : sequence of slice
            One per spatial axis, in voxels of the level, within its bounds.

        Returns
        -------
        ndarray
            ``(C, [Z,] Y, X)`` in the image's dtype.

        Raises
        ------
        StoreError
            If the stored data are damaged or cannot be reached.
        ValueError
            If the region leaves the image.
        """
        where = tuple(where)
        wanted = tuple(range(self.n_channels)) if channels is None else tuple(channels)
        if not wanted or len(where) != len(self.spatial):
            raise ValueError(f"channels {wanted} and region {where} for axes {self.axes}")
        parts = []
        for run in _runs(wanted):
            leading = {"t": slice(time, time + 1), "c": run}
            # An absent axis has length 1, and its only index is 0.
            for axis, part in leading.items():
                if axis not in self.axes and part != slice(0, 1):
                    raise ValueError(f"{axis} {part.start} of an image without a {axis} axis")
            region = (*(leading[axis] for axis in self.axes if axis in leading), *where)
            block = self.read_region(level, region)
            parts.append(block.reshape(run.stop - run.start, *block.shape[-len(where) :]))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def read_region(self, level: int, region: Sequence[slice]) -> NDArray[Any]:
        """Read a region given by one slice per axis of the image.

        Parameters
        ----------
        level : int
            Resolution level.
        region : sequence of slice
            One per axis in `axes`, within the level's bounds.

        Returns
        -------
        ndarray
            One dimension per axis, native byte order.

        Raises
        ------
        StoreError
            If the stored data are damaged or cannot be reached.
        GoneError
            If they were moved or deleted since the image was opened.
        ValueError
            If the region leaves the level.
        """
        region = tuple(region)
        shape = self.levels[level].shape
        # Zarr would clip the region without a word.
        if len(region) != len(shape) or not all(
            part.step in (None, 1) and 0 <= part.start <= part.stop <= length
            for part, length in zip(region, shape, strict=False)
        ):
            raise ValueError(f"region {region} leaves level {level} of shape {shape}")
        try:
            array = self._array(level)
            if isinstance(array, TiffArray | PictureArray):
                return array.read(region)
            block = np.asarray(array[region])
            # Only sharded arrays hide an empty file; a look costs one stat per shard.
            if array.shards is not None and (lost := emptied_blocks(array, region)):
                raise OSError(f"{os.path.relpath(lost[0], self.uri)} is empty")
            if is_gone(array):
                raise GoneError(
                    "an image must stay where it is while it is read",
                    f"nothing at {self.uri}/{self.levels[level].path} any more",
                    "Put it back, or connect its disk again; then the same command goes on.",
                )
            if level == self.kept and (away := absent_blocks(array, region)):
                raise OSError(f"{os.path.relpath(away, self.uri)} was there and is not any more")
            if is_remote(self.uri) and not block.any():
                self._open(level)  # raises if nothing is there any more
            return block.astype(self.dtype, copy=False)
        except (MemoryError, StoreError):
            raise
        # Codecs and remote file systems each raise their own kinds of error.
        except Exception as error:
            place = ", ".join(f"{w.start}:{w.stop}" for w in region)
            raise StoreError(
                UNREADABLE,
                f"{one_line(error)} in {self.uri}, "
                f"level {self.levels[level].path}, region [{place}]",
                _REMEDY_REMOTE if is_remote(self.uri) else "Copy the image again from its origin.",
            ) from error

    def adopt(self, level: int, array: PictureArray) -> None:
        """Take over a level that was opened to describe it, so that it is not decoded again."""
        self._opened[level] = array

    def _array(self, level: int) -> Any:
        """Return the level's array, opened at first use in this process."""
        if level not in self._opened:
            self._opened[level] = self._open(level)
        return self._opened[level]

    def _open(self, level: int) -> Any:
        if self.kind == "tiff":
            return open_tiff_level(self.uri, self.series, level)
        if self.kind == "picture":
            return PictureArray(self.uri, self.numbers)
        return open_level(self.uri, self.levels[level].path, self.storage_options)

    def _length(self, axis: str) -> int:
        """Length of an axis, 1 if the image does not have it."""
        return self.levels[0].shape[self.axes.index(axis)] if axis in self.axes else 1


def find_channels(image: Image, wanted: str | int | None, expected: int) -> tuple[int, ...]:
    """Choose the channels that a model of `expected` channels reads.

    Parameters
    ----------
    image : Image
        Where to look.
    wanted : str, int or None
        Name or index of one channel; None for all of them.
    expected : int
        Number of channels that the model takes.

    Raises
    ------
    StoreError
        If there is no such channel, its name is not unique, or the number of
        channels is not the expected one.
    """
    listed = ", ".join(f"{i}: {name}" for i, name in enumerate(image.channel_names))
    if wanted is None:
        chosen = tuple(range(image.n_channels))
    else:
        chosen = tuple(i for i, name in enumerate(image.channel_names) if name == str(wanted))
        if not chosen and str(wanted).isdecimal() and int(wanted) < image.n_channels:
            chosen = (int(wanted),)
        if len(chosen) != 1:
            raise StoreError(
                "a channel must be given by its unique name or its index",
                f"{wanted!r} among {listed} of {image.uri}",
                "Choose one with --channel INDEX.",
            )
    if len(chosen) != expected:
        raise StoreError(
            f"the model takes {expected} channel{'s' if expected > 1 else ''}",
            f"{len(chosen)} ({listed}) in {image.uri}",
            "Choose one with --channel NAME or INDEX." if expected == 1 else "Use another image.",
        )
    return chosen


def planes_as_channels(image: Image) -> Image:
    """The image of a file that names no axes, with its planes as channels instead of z."""
    at = image.axes.index("z")
    return replace(
        image,
        axes=tuple("c" if axis == "z" else axis for axis in image.axes),
        units=tuple(None if i == at else unit for i, unit in enumerate(image.units)),
        channel_names=tuple(map(str, range(image.levels[0].shape[at]))),
        guessed="c",
    )


def open_level(uri: str, path: str, options: Mapping[str, Any] | None) -> zarr.Array[Any]:
    """Open the array of one level."""
    try:
        return zarr.open_array(place_of(uri, options), path=path, mode="r")
    except RemoteError:
        raise
    except Exception as error:
        raise StoreError(
            "every level of an image must be a readable Zarr array",
            f"{one_line(error)} at {uri}/{path}",
            "Restore the level, or drop it from the metadata.",
        ) from error


def _runs(channels: Sequence[int]) -> list[slice]:
    """Group channels into slices of consecutive ones, order kept."""
    runs: list[slice] = []
    for c in channels:
        if runs and runs[-1].stop == c:
            runs[-1] = slice(runs[-1].start, c + 1)
        else:
            runs.append(slice(c, c + 1))
    return runs


def dataset_of(level: Level) -> Dataset:
    """Return the metadata of a level without its shape."""
    return Dataset(level.path, level.scale, level.translation)
