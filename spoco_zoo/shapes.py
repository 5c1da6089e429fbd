"""Shapes that people drew around objects in QuPath (GeoJSON) or ImageJ and Fiji (ROIs)."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo.errors import DataError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["SUFFIXES", "Shape", "read_shapes"]

SUFFIXES = (".geojson", ".json", ".zip", ".roi")
BACKGROUND = "background"
"""Class, or beginning of the name, of what outlines no object but known background."""
DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a damaged file raises."""
FARTHEST = 2.0**40
"""Voxels from the corner of an image."""
BENDS = 32
"""Vertices of a curve for each that it goes through."""
MOST_BYTES = 2**24
"""Of a ROI, a million vertices of a composite one; a small archive can unpack to any size."""
IGNORED = "*"
"""QuPath's mark at the end of classes that are no objects, as in ``Region*``."""


@dataclass(frozen=True)
class Shape:
    """What was drawn in one plane.

    Attributes
    ----------
    rings : tuple of float64, shape (N, 2)
        x, y of vertices in voxels from the corner of the image; within an odd number of rings is
        inside.
    name : str
        Empty if it has none.
    background : bool
        Whether it outlines known background.
    time, plane : int or None
        From 0; None where the file does not say.
    position : int or None
        Of the slice in a stack of channels, planes and times, from 0.
    """

    rings: tuple[NDArray[np.float64], ...]
    name: str
    background: bool = False
    time: int | None = None
    plane: int | None = None
    position: int | None = None


def read_shapes(path: Path) -> tuple[list[Shape], int]:
    """Read all shapes of a file.

    Parameters
    ----------
    path : Path
        GeoJSON, a set of ROIs (``.zip``) or one (``.roi``).

    Returns
    -------
    shapes : list of Shape
    left_out : int
        Points, lines, shapes without vertices, and those of a class that QuPath ignores.

    Raises
    ------
    DataError
        If the file is none of these, or damaged.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"shapes must be in a file of {', '.join(SUFFIXES)}",
            str(path),
            "Export GeoJSON from QuPath, or save the ROI Manager's set in Fiji.",
        )
    rois = path.suffix.lower() in (".zip", ".roi")
    try:
        found = list(_rois(path) if rois else _features(path))
    except DAMAGE as error:
        raise DataError(
            "shapes must be GeoJSON of QuPath or ROIs of ImageJ",
            f"{path}, which cannot be read ({type(error).__name__}: {one_line(error)})",
            "Export them once more.",
        ) from error
    shapes = [shape for shape in found if shape is not None]
    return shapes, len(found) - len(shapes)


def _features(path: Path) -> Iterator[Shape | None]:
    """Shapes of GeoJSON, None for what is left out."""
    found = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(found, dict):
        found = found["features"] if found["type"] == "FeatureCollection" else [found]
    for feature in found:
        geometry = feature["geometry"]
        properties = feature.get("properties") or {}
        kind = str((properties.get("classification") or {}).get("name") or "")
        name = str(properties.get("name") or "")
        background = _is_background(kind) or _is_background(name)
        closed = geometry["type"] in ("Polygon", "MultiPolygon")
        if not closed or (kind.endswith(IGNORED) and not background):
            yield None
            continue
        polygons = geometry["coordinates"]
        if geometry["type"] == "Polygon":
            polygons = [polygons]
        plane = geometry.get("plane") or {}
        rings = tuple(_ring(ring) for polygon in polygons for ring in polygon)
        if not rings:
            yield None
            continue
        yield Shape(
            rings,
            name,
            background,
            # QuPath leaves the first out.
            int(plane.get("t", 0)),
            int(plane.get("z", 0)),
        )


def _rois(path: Path) -> Iterator[Shape | None]:
    """Shapes of ImageJ, None for what is left out."""
    from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

    flat = (ROI_TYPE.POINT, ROI_TYPE.LINE, ROI_TYPE.POLYLINE, ROI_TYPE.FREELINE, ROI_TYPE.ANGLE)
    for entry, data in _entries(path):
        roi = ImagejRoi.frombytes(data)
        rings = tuple(_ring(ring) for ring in roi.coordinates(multi=True))
        if roi.options & ROI_OPTIONS.SPLINE_FIT:
            rings = tuple(map(_bent, rings))
        if roi.roitype in flat or not rings:
            yield None
            continue
        name = roi.name or entry
        yield Shape(
            rings,
            name,
            _is_background(name),
            roi.t_position - 1 if roi.t_position > 0 else None,
            roi.z_position - 1 if roi.z_position > 0 else None,
            roi.position - 1 if roi.position > 0 else None,
        )


def _entries(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of ROI files."""
    if path.suffix.lower() == ".roi":
        yield path.stem, path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            # Archives made on a Mac hold a "._a.roi" beside each "a.roi", which is none.
            hidden = info.filename.rpartition("/")[2].startswith("._")
            if info.filename.lower().endswith(".roi") and not hidden:
                if info.file_size > MOST_BYTES:
                    raise ValueError(f"a ROI of {info.file_size:,} bytes")
                yield info.filename[:-4], archive.read(info)


def _ring(points: Any) -> NDArray[np.float64]:
    ring = np.asarray(points, np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2 or not np.isfinite(ring).all():
        raise ValueError("a ring that is no list of points")
    # Far outside of any image; beyond, whole numbers would overflow.
    return ring[:, :2].clip(-FARTHEST, FARTHEST)


def _bent(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """The closed curve through the vertices that ImageJ's *Fit Spline* shows in their place."""
    from scipy.interpolate import CubicSpline

    closed = np.concatenate([ring, ring[:1]])
    curve = CubicSpline(np.arange(len(closed)), closed, bc_type="periodic")
    return np.asarray(curve(np.arange(len(ring) * BENDS) / BENDS))


def _is_background(name: str) -> bool:
    return name.lower().startswith(BACKGROUND)
