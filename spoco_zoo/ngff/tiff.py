"""TIFF and OME-TIFF: what a file holds, and lazy regions of it.

Whatever order a file keeps its axes in, everything here speaks the order
t, c, z, y, x of OME-Zarr, as a subset.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from spoco_zoo.errors import StoreError, one_line
from spoco_zoo.ngff.calibration import calibration, incomplete
from spoco_zoo.ngff.colours import check_colours, is_indexed
from spoco_zoo.ngff.metadata import AXES
from spoco_zoo.ngff.missing import check_complete
from spoco_zoo.ngff.tiff_set import files_of, open_tiff, own_series

__all__ = [
    "TiffArray",
    "TiffInfo",
    "inspect_tiff",
    "open_tiff_level",
    "read_tiff",
]

MOST_CHANNELS = 4
"""Of unnamed axes, a last one of 2 to 4 holds channels."""
PIXELS = "the pixels of a TIFF must be readable"
_NAMES = {"T": "t", "C": "c", "S": "c", "Z": "z", "Y": "y", "X": "x"}


@dataclass(frozen=True)
class TiffInfo:
    """One series of a TIFF file, axes in the order t, c, z, y, x."""

    axes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """One shape per resolution level, finest first."""
    dtype: np.dtype[Any]
    voxel_size: tuple[float, ...] | None
    """Per spatial axis in micrometres; None if the file does not state it."""
    interval: float | None
    """Seconds from one time point to the next, if the file states them."""
    channel_names: tuple[str, ...]
    order: tuple[int, ...]
    """Position in the file of each axis."""
    series: tuple[str, ...]
    """Number, axes and shape of every series of the file."""
    colour: bool
    """Whether the channels are the samples of an RGB or RGBA photograph."""
    guessed: str
    """The axis, z or c, that the file does not name; empty if it names all."""
    incomplete: str = ""
    """What is stated of the voxel size, where that is not all of it."""
    indexed: bool = False
    """Whether values are numbers of colours in a palette, and not as bright as they are high."""
    dark_is_high: bool = False
    """Whether the file says that 0 is white."""
    number: int = 0
    """Of the series among those of the file."""
    own: tuple[int, ...] = (0,)
    """Series with planes in this file; of a set of files others may have theirs elsewhere."""
    files: tuple[str, ...] = ()
    """All that hold planes of the series."""


class TiffArray:
    """One level of a TIFF series, read by region and never as a whole.

    Uncompressed contiguous data are memory-mapped; otherwise the strips or
    tiles that a region touches are decoded.
    """

    def __init__(self, path: str, series: int, level: int) -> None:
        tiff = open_tiff(path)
        self._close = weakref.finalize(self, tiff.close)
        chosen = tiff.series[series].levels[level]
        self.order = _axis_order(chosen.axes, chosen.shape, path)[1]
        files = files_of(chosen)  # of a set it may be another one, or several
        self.mapped = chosen.dataoffset is not None and level == 0 and len(files) == 1
        self.source: Any
        if self.mapped:
            dtype = np.dtype(chosen.dtype).newbyteorder(tiff.byteorder)
            offset = int(chosen.dataoffset or 0)
            self.source = np.memmap(files[0], dtype, "r", offset, tuple(chosen.shape))
            self._close()
        else:
            # The finest level by itself would give all levels, as a group.
            self.source = zarr.open_array(tiff.series[series].aszarr(level=level), mode="r")

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis, in the order t, c, z, y, x."""
        return tuple(self.source.shape[i] for i in self.order)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Decoded unit per axis; single elements where the file is memory-mapped."""
        native = (1,) * self.source.ndim if self.mapped else self.source.chunks
        return tuple(native[i] for i in self.order)

    def read(self, where: Sequence[slice]) -> NDArray[Any]:
        """Return the region `where`, one slice per axis, in native byte order."""
        native: list[slice] = [slice(0, 1)] * self.source.ndim
        for position, part in zip(self.order, where, strict=True):
            native[position] = part
        block = self._mapped(native) if self.mapped else np.asarray(self.source[tuple(native)])
        others = [i for i in range(block.ndim) if i not in self.order]
        block = block.transpose(*others, *self.order).reshape([w.stop - w.start for w in where])
        return block.astype(block.dtype.newbyteorder("="), copy=False)

    def _mapped(self, native: Sequence[slice]) -> NDArray[Any]:
        """A region of a file that is mapped, copied at once: who touches what was cut off dies."""
        file, end = self.source.base, self.source.offset + self.source.nbytes
        if file.size() < end:
            raise OSError(f"{file.size()} of {end} bytes are left")
        return np.array(self.source[tuple(native)])


def open_tiff_level(path: str, series: int, level: int) -> TiffArray:
    """Open one level of a TIFF series.

    Raises
    ------
    StoreError
        If the file has been cut, or its pixels are stored in no way that can be read.
    """
    with _readable(PIXELS, path):
        return TiffArray(path, series, level)


@contextmanager
def _readable(rule: str, path: str | Path) -> Iterator[None]:
    """Say in one line what tifffile makes of a damaged file.

    The parser, the memory map and the codecs fail, each in its own ways: struct, Value, Key and
    Index errors.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(rule, f"{one_line(error)} ({path})", "Export the file again.") from error


def inspect_tiff(path: str | Path, series: int | None = None) -> TiffInfo:
    """Describe one series of a TIFF file without reading its pixels.

    Parameters
    ----------
    path : path
        TIFF, BigTIFF, OME-TIFF or ImageJ hyperstack.
    series : int, optional
        Which image of the file; by default the first with planes in it, which holds the data in
        all common files.

    Returns
    -------
    TiffInfo
        Unnamed page axes count as z, but for a last axis of 2 to 4 entries, which
        holds channels; the samples of RGB data are channels.

    Raises
    ------
    StoreError
        If the file is no TIFF, has no such series, or axes that cannot be
        mapped to t, c, z, y, x.
    """
    path = str(path)
    with _readable("a TIFF file must be readable", path), open_tiff(path) as tiff:
        if not tiff.series:
            raise StoreError("a TIFF must hold an image", f"none in {path}", "Export it again.")
        listed = tuple(f"{i}: {s.axes} {s.shape}" for i, s in enumerate(tiff.series))
        own = own_series(tiff, path)
        number = own[0] if series is None else series
        if not 0 <= number < len(listed):
            raise StoreError(
                "the series must be one of the file's",
                f"{number} for {path}",
                f"Choose from {'; '.join(listed)}.",
            )
        chosen = tiff.series[number]
        check_colours(chosen.keyframe, path)
        check_complete(tiff, chosen, path)
        axes, order = _axis_order(chosen.axes, chosen.shape, path)
        shapes = tuple(tuple(level.shape[i] for i in order) for level in chosen.levels)
        sizes, names = calibration(tiff, number)
        spatial = [axis for axis in axes if axis in "zyx"]
        known = all(sizes.get(axis) for axis in spatial)
        count = dict(zip(axes, shapes[0], strict=True)).get("c", 1)
        return TiffInfo(
            axes=axes,
            shapes=shapes,
            # By its name: Zarr does not know the same type under another C name.
            dtype=np.dtype(np.dtype(chosen.dtype).newbyteorder("=").str),
            voxel_size=tuple(sizes[axis] for axis in spatial) if known else None,
            interval=sizes.get("t"),
            channel_names=names if len(names) == count else (),
            order=order,
            series=listed,
            colour=count in (3, 4) and "S" in chosen.axes,
            guessed=_guessed(chosen.axes, chosen.shape),
            incomplete="" if known else incomplete(sizes, spatial),
            indexed=is_indexed(chosen.keyframe),
            dark_is_high=chosen.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
            number=number,
            own=own,
            files=files_of(chosen),
        )


def read_tiff(
    path: str | Path,
) -> tuple[NDArray[Any], tuple[str, ...], tuple[float, ...] | None, tuple[str, ...]]:
    """Read the first image of a TIFF file whole.

    Returns
    -------
    array : ndarray
        Native dtype, axes in the order t, c, z, y, x.
    axes : tuple of str
        The array's axes.
    voxel_size : tuple of float or None
        Per spatial axis in micrometres, if the file states it.
    channel_names : tuple of str
        Empty if the file names none.

    Raises
    ------
    StoreError
        If the file cannot be read or its axes are not understood.
    """
    info = inspect_tiff(path)
    with _readable(PIXELS, path):
        whole = TiffArray(str(path), info.number, 0).read([slice(0, n) for n in info.shapes[0]])
    # A memory-mapped result would change, or fault, with the file.
    return np.array(whole), info.axes, info.voxel_size, info.channel_names


def _named_axes(axes: str, shape: Sequence[int]) -> str:
    """Arrays (Y, X, C) that were saved without a word about it: no image is 4 pixels wide."""
    if axes[-3:] in ("QYX", "IYX") and 1 < shape[-1] <= MOST_CHANNELS < min(shape[-3:-1]):
        return axes[:-3] + "YXC"
    return axes


def _guessed(axes: str, shape: Sequence[int]) -> str:
    """Which axis has no name in the file and more than one entry."""
    if _named_axes(axes, shape) != axes:
        return "c"
    unnamed = [n for letter, n in zip(axes, shape, strict=True) if letter in "QI"]
    return "z" if any(n > 1 for n in unnamed) else ""


def _axis_order(
    axes: str, shape: Sequence[int], path: str
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Canonical axes and where each lies in the file; axes of length 1 may be dropped."""
    found: dict[str, int] = {}
    axes = _named_axes(axes, shape)
    for position, (letter, length) in enumerate(zip(axes, shape, strict=True)):
        # Q and I are pages without a name: a stack, unless the file says otherwise.
        name = _NAMES.get(letter) or ("z" if letter in "QI" and "Z" not in axes else "")
        if name in found and shape[found[name]] == 1:
            del found[name]
        if name and name not in found:
            found[name] = position
        elif length > 1:
            raise StoreError(
                "the axes of a TIFF must map to t, c, z, y, x, each once",
                f"{axes} {tuple(shape)} in {path}",
                "Save it as an OME-TIFF with named axes.",
            )
    if "y" not in found or "x" not in found:
        raise StoreError("a TIFF must have y and x axes", f"{axes} in {path}", "Export it again.")
    names = tuple(axis for axis in AXES if axis in found)
    return names, tuple(found[axis] for axis in names)
