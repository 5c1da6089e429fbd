"""Outlines of labels in files of programs that show and edit objects: QuPath and ImageJ."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from spoco_zoo import ngff
from spoco_zoo.errors import ConfigError, StoreError
from spoco_zoo.label_sums import check_one_channel
from spoco_zoo.outlines import trace_labels
from spoco_zoo.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from roifile import ImagejRoi

    from spoco_zoo.outlines import Outline

__all__ = ["SUFFIXES", "check_path", "write_outlines"]

SUFFIXES = (".geojson", ".zip")
MOVE_TO, LINE_TO, CLOSE = 0, 1, 4
"""Of java.awt.geom.PathIterator, as ImageJ writes them."""


class GeoJson:
    """A collection of features, as QuPath reads it (RFC 7946, with planes).

    Parameters
    ----------
    path : Path
    kind : {"detection", "annotation"}
        What QuPath makes of an object: annotations can be edited, of detections there may be many.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._file, self._kind, self._between = path.open("w", encoding="utf-8"), kind, "\n"

    def __enter__(self) -> GeoJson:
        self._file.write('{"type": "FeatureCollection", "features": [')
        return self

    def __exit__(self, *error: object) -> None:
        with self._file:
            self._file.write("\n]}\n")

    def add(self, outline: Outline) -> None:
        """Write an object in one plane; several pieces are a MultiPolygon."""
        polygons = [
            [[*ring.tolist(), ring[0].tolist()] for ring in piece] for piece in outline.pieces
        ]
        several = len(polygons) > 1
        geometry: dict[str, Any] = {
            "type": "MultiPolygon" if several else "Polygon",
            "coordinates": polygons if several else polygons[0],
        }
        if (outline.plane, outline.time) != (None, None):
            geometry["plane"] = {"c": -1, "z": outline.plane or 0, "t": outline.time or 0}
        feature = {
            "type": "Feature",
            "geometry": geometry,
            "properties": {"objectType": self._kind, "name": str(outline.label)},
        }
        self._file.write(self._between + json.dumps(feature, allow_nan=False))
        self._between = ",\n"


class RoiZip:
    """A set of ROIs as ImageJ's ROI Manager opens it.

    Parameters
    ----------
    path : Path
    hyperstack : bool
        Whether the image has channels, so that a slice is not told by one number.
    """

    def __init__(self, path: Path, *, hyperstack: bool) -> None:
        self._hyperstack = hyperstack
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self._names: Counter[str] = Counter()

    def __enter__(self) -> RoiZip:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def add(self, outline: Outline) -> None:
        """Write an object in one plane, named after its label."""
        roi = _roi([ring.astype(np.float32) for piece in outline.pieces for ring in piece])
        roi.name = str(outline.label)
        if None not in (outline.plane, outline.time) or self._hyperstack:
            roi.z_position, roi.t_position = (outline.plane or 0) + 1, (outline.time or 0) + 1
        elif outline.plane is not None or outline.time is not None:
            # A stack of one kind has slices only.
            roi.position = (outline.plane or outline.time or 0) + 1
        self._names[roi.name] += 1
        count = self._names[roi.name]
        # With the time of now no two files of the same labels would be equal.
        entry = zipfile.ZipInfo(f"{roi.name}-{count}.roi" if count > 1 else f"{roi.name}.roi")
        self._zip.writestr(entry, roi.tobytes(), zipfile.ZIP_DEFLATED)


def _roi(rings: Sequence[NDArray[np.float32]]) -> ImagejRoi:
    """A polygon, or a composite where there are holes or several pieces."""
    from roifile import ROI_TYPE, ImagejRoi

    if len(rings) == 1:
        roi = ImagejRoi.frompoints(rings[0])
        roi.roitype = ROI_TYPE.POLYGON
        return roi
    points = np.concatenate(rings)
    path = np.concatenate([_path(ring) for ring in rings])
    (left, top), (right, bottom) = np.floor(points.min(0)), np.ceil(points.max(0))
    return ImagejRoi(
        roitype=ROI_TYPE.RECT,
        left=int(left),
        top=int(top),
        right=int(right),
        bottom=int(bottom),
        shape_roi_size=len(path),
        multi_coordinates=path,
    )


def _path(ring: NDArray[np.float32]) -> NDArray[np.float32]:
    """A ring as a composite holds it: x, y behind what to do, and that it is closed."""
    steps = np.full((len(ring), 1), LINE_TO, np.float32)
    steps[0] = MOVE_TO
    return np.append(np.hstack([steps, ring]), np.float32(CLOSE))


def check_path(path: Path) -> None:
    """Refuse a file that nothing could be written to, before the work.

    Raises
    ------
    ConfigError
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            "outlines must be named .geojson (QuPath) or .zip (ROIs of ImageJ)",
            str(path),
            "Choose another --out.",
        )


def write_outlines(
    labels: str | Path,
    path: Path,
    *,
    label_name: str | None = None,
    image: str | Path | None = None,
    kind: str = "detection",
    on_step: Callable[[str, int, int], None] | None = None,
) -> int:
    """Write the outlines of all objects, under a temporary name until complete.

    Memory does not grow with the image, but with the number of objects, and with the extent in y
    and x of the largest one.

    Parameters
    ----------
    labels : str or path
        A label image, an OME-Zarr image that holds labels, or a TIFF of integers.
    path : Path
        ``.geojson`` for QuPath, or ``.zip`` for the ROI Manager of ImageJ and Fiji.
    label_name : str, optional
        Which label of an image; needed if it holds several.
    image : str or path, optional
        The image in whose voxels outlines are to lie, for labels of a region or of a coarser
        level; by default the one that the labels lie in, if they do.
    kind : {"detection", "annotation"}
        What QuPath makes of an object.
    on_step : callable, optional
        Told a phase, what is done of it and how much there is.

    Returns
    -------
    int
        Outlines that were written: one per object and plane.

    Raises
    ------
    ConfigError
        If the name ends otherwise.
    DataError
        If labels have several channels, are no numbers of objects, or do not lie on the image.
    StoreError
        If the labels cannot be read, or the place not be written.
    """
    check_path(path)
    found = ngff.find_labels(labels, label_name, unsaid=True)
    check_one_channel(found)
    owner = ngff.labelled_image(found) if image is None else ngff.open_image(image)
    if owner is not None:
        owner, found = ngff.laid_on(owner, found)
    tell = on_step or (lambda phase, done, total: None)
    count = 0
    try:
        with replacing(path) as unfinished:
            geo = path.suffix.lower() == ".geojson"
            channels = owner is not None and owner.n_channels > 1 and not owner.colour
            with (
                GeoJson(unfinished, kind) if geo else RoiZip(unfinished, hyperstack=channels)
            ) as writer:
                for outline in trace_labels(found, owner, tell):
                    writer.add(outline)
                    count += 1
    except OSError as error:
        raise StoreError(
            "outlines must go to a folder that can be written", str(error), "Choose another --out."
        ) from error
    return count
