"""Label images from shapes that people drew: what training takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spoco_zoo.errors import ConfigError, DataError
from spoco_zoo.ngff import is_label_tiff, is_tiff_name, open_image
from spoco_zoo.ngff.write_tiff import write_label_tiff
from spoco_zoo.shapes import Shape, read_shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spoco_zoo.ngff import Image

__all__ = ["BACKGROUND_LABEL", "Painted", "check_target", "paint", "paint_file"]

BACKGROUND_LABEL = 65535
"""Usual value of known background."""
SEVERAL = 4
"""Shapes of which one in 256 sets would lie in one quarter of an image by chance."""
NUMBER = re.compile(r"[0-9]{1,1000}")
"""A name that is a number of an object; Python reads no longer ones than a few thousand digits."""


@dataclass(frozen=True)
class Painted:
    """What became of the shapes of a file.

    Attributes
    ----------
    labels : uint32, shape ([T,] [Z,] Y, X)
    axes : str
        Of `labels`, as in ``"ZYX"``.
    objects : int
        That have voxels.
    lost : int
        Objects without any: they lie outside of the image, between its voxels or below others.
    left_out : int
        Points, lines, and shapes of a class that QuPath ignores.
    corner : tuple of int, optional
        (Y, X) of the corner within which all shapes lie, if they are several and it is a quarter
        of the image or less: they may have been drawn on a smaller copy.
    """

    labels: NDArray[np.uint32]
    axes: str
    objects: int
    lost: int
    left_out: int
    corner: tuple[int, int] | None = None


def paint(
    path: Path,
    image: str | Path,
    *,
    background_label: int = BACKGROUND_LABEL,
    on_shape: Callable[[int, int], None] | None = None,
) -> Painted:
    """Paint shapes into labels of the size of their image.

    Voxels whose centres lie within a shape are its. Shapes named by the same whole number are one
    object of that number; all others are objects of their own. Where shapes overlap the later one
    counts.

    Parameters
    ----------
    path : Path
        GeoJSON of QuPath, or ROIs of ImageJ.
    image : str or path
        That they were drawn on: OME-Zarr, TIFF or picture.
    background_label : int
        Value of shapes whose class or name begins with ``background``.
    on_shape : callable, optional
        Called with shapes done and shapes in all.

    Returns
    -------
    Painted

    Raises
    ------
    ConfigError
        If the value of known background is none of a voxel.
    DataError
        If the file cannot be read, holds no object, or shapes lie in planes that are not there.
    StoreError
        If the image cannot be read.
    """
    return _painted(path, open_image(image), background_label, on_shape)


def _painted(
    path: Path,
    source: Image,
    background_label: int,
    on_shape: Callable[[int, int], None] | None,
) -> Painted:
    """Paint shapes into labels of the size of an image that is open; see `paint`."""
    shapes, left_out = read_shapes(path)
    n_times, spatial = source.n_times, source.spatial_shape()
    depth = spatial[0] if len(spatial) == 3 else 1
    numbers = _numbers(shapes, background_label)
    labels = np.zeros((n_times, depth, *spatial[-2:]), np.uint32)
    for done, (shape, number) in enumerate(zip(shapes, numbers, strict=True), start=1):
        time, plane = _place(shape, source, depth)
        _fill(labels[time, plane], shape.rings, number)
        if on_shape is not None:
            on_shape(done, len(shapes))
    wanted = set(numbers) - {background_label}
    found = wanted & set(np.unique(labels).tolist())
    if not found:
        raise DataError(
            "shapes must enclose voxels of their image",
            f"{len(shapes)} shapes in {path}, none of which does in {source.uri}",
            "Give the image that they were drawn on, at the size that it had."
            if shapes
            else "Outline objects: points and lines enclose nothing.",
        )
    kept = [n > 1 or axis in "yx" for axis, n in zip("tzyx", labels.shape, strict=True)]
    axes = "".join(axis for axis, keep in zip("TZYX", kept, strict=True) if keep)
    labels = labels.reshape([n for n, keep in zip(labels.shape, kept, strict=True) if keep])
    corner = _corner(shapes, spatial[-2:])
    return Painted(labels, axes, len(found), len(wanted) - len(found), left_out, corner)


def _corner(shapes: Sequence[Shape], size: Sequence[int]) -> tuple[int, int] | None:
    """Where shapes end (Y, X) that leave both the right and the lower half of an image empty."""
    if len(shapes) < SEVERAL:
        return None
    x, y = np.concatenate([ring for shape in shapes for ring in shape.rings]).max(0)
    return (ceil(y), ceil(x)) if 2 * y <= size[0] and 2 * x <= size[1] else None


def _numbers(shapes: Sequence[Shape], background_label: int) -> list[int]:
    """The value of each shape."""
    named = [int(shape.name) if NUMBER.fullmatch(shape.name) else 0 for shape in shapes]
    following = max(named, default=0) + 1
    numbers = []
    for shape, number in zip(shapes, named, strict=True):
        if shape.background:
            numbers.append(background_label)
        elif number:
            numbers.append(number)
        else:
            numbers.append(following)
            following += 1
    if background_label >= 2**32:
        raise ConfigError(
            "--background-label must be below 2^32", str(background_label), "Choose a smaller one."
        )
    most = max((n for n, s in zip(numbers, shapes, strict=True) if not s.background), default=0)
    if most >= background_label:
        raise DataError(
            "numbers of objects must be below that of known background",
            f"{most} and {background_label}",
            "Name these shapes otherwise, or choose a larger --background-label.",
        )
    return numbers


def _place(shape: Shape, image: Image, depth: int) -> tuple[int, int]:
    """Time point and plane of a shape."""
    time, plane = shape.time, shape.plane
    if shape.position is not None and (time, plane) == (None, None):
        # Slices of ImageJ: channels follow each other first, then planes, then times.
        # Red, green and blue of a photograph are one slice.
        rest = shape.position // (1 if image.colour else image.n_channels)
        time, plane = rest // depth, rest % depth
    several = image.n_times > 1, depth > 1
    if (several[0] and time is None) or (several[1] and plane is None):
        raise DataError(
            "a shape in a stack must belong to a slice",
            f"{shape.name!r} without one",
            "In Fiji: ROI Manager, More, Options, tick 'Associate with slices', and add it again.",
        )
    where = (time or 0, plane or 0)
    if not (0 <= where[0] < image.n_times and 0 <= where[1] < depth):
        raise DataError(
            "shapes must lie in planes of their image",
            f"{shape.name!r} at time {where[0]} and plane {where[1]} (from 0), of "
            f"{image.n_times} and {depth}",
            "Give the image that they were drawn on.",
        )
    return where


def _fill(plane: NDArray[np.uint32], rings: Sequence[NDArray[np.float64]], number: int) -> None:
    """Give what is inside of an odd number of rings a number."""
    from skimage.draw import polygon

    every = np.concatenate(rings)
    low = np.floor(every.min(0)).astype(int).clip(0)
    high = np.minimum(np.ceil(every.max(0)).astype(int) + 1, plane.shape[::-1])
    if (high <= low).any():
        return
    inside = np.zeros((high - low)[::-1], bool)
    for ring in rings:
        # Centres of voxels are at whole numbers there.
        x, y = (ring - low - 0.5).T
        rows, columns = polygon(y, x, inside.shape)
        inside[rows, columns] ^= True
    plane[low[1] : high[1], low[0] : high[0]][inside] = number


def check_target(path: Path) -> None:
    """Refuse a file that is no TIFF, or that somebody may have painted by hand.

    Raises
    ------
    ConfigError
    """
    if not is_tiff_name(path):
        raise ConfigError("masks must be named .tif", str(path), "Choose another --out.")
    if path.exists() and not is_label_tiff(path):
        raise ConfigError(
            "only masks of this program are replaced",
            f"another file at {path}",
            "Choose another name, or move it away.",
        )


def paint_file(
    path: Path,
    image: str | Path,
    out: Path,
    *,
    background_label: int = BACKGROUND_LABEL,
    on_shape: Callable[[int, int], None] | None = None,
) -> Painted:
    """Paint shapes as `paint`, and write the labels as TIFF with the voxel size of the image.

    Raises
    ------
    ConfigError
        If something else than labels of this program lies at `out`, or it is no ``.tif``.
    DataError, StoreError
        See `paint`.
    """
    check_target(out)
    source = open_image(image)
    done = _painted(path, source, background_label, on_shape)
    sizes = source.known_sizes()[-sum(axis in "ZYX" for axis in done.axes) :]
    write_label_tiff(out, done.labels, sizes, axes=done.axes, interval=source.interval)
    return done
